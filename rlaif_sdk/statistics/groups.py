"""Sums over, and order within, the groups of a batch, missing values left out; and parts that cut no group."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rlaif_sdk.statistics.arrays import Array, Labels


def group_labels(values_B: Array, group_B: Labels | None) -> Labels:
    """(B,) labels from 0; without groups the whole batch is one."""
    return np.zeros(len(values_B), dtype=np.intp) if group_B is None else group_B


def group_sums(values_B: Array, group_B: Labels) -> tuple[Array, Array]:
    """(G,) how many values each group has, and their sum."""
    present_B = ~np.isnan(values_B)
    groups = int(group_B.max(initial=-1)) + 1
    count_G = np.bincount(group_B[present_B], minlength=groups).astype(np.float64)
    sum_G = np.bincount(group_B, weights=np.where(present_B, values_B, 0.0), minlength=groups).astype(np.float64)
    return count_G, sum_G


def group_means(values_B: Array, group_B: Labels) -> Array:
    """(G,) the mean of each group, 0 where it has no value; of equal values exactly that value.

    It is taken of the distances from each group's first value, so that it keeps small differences of large values.
    """
    rows = np.flatnonzero(~np.isnan(values_B))[::-1]
    first_G = np.zeros(int(group_B.max(initial=-1)) + 1)
    first_G[group_B[rows]] = values_B[rows]
    count_G, sum_G = group_sums(values_B - first_G[group_B], group_B)
    means_G: Array = first_G + sum_G / np.maximum(count_G, 1)
    return means_G


def sorted_within_groups(values_B: Array, group_B: Labels) -> Labels:
    """(B,) the rows, ordered by group and then by value."""
    place_B = np.empty(len(values_B), dtype=np.intp)
    place_B[np.argsort(values_B)] = np.arange(len(values_B))
    return np.argsort(group_B * len(values_B) + place_B)


def rows_of_groups(group_B: Labels) -> list[list[int]]:
    """The rows of each group, in the order of their first ones."""
    groups: dict[int, list[int]] = {}
    for row, label in enumerate(group_B.tolist()):
        groups.setdefault(label, []).append(row)
    return list(groups.values())


def parts_of_groups(group_B: Labels, size: int) -> Iterator[list[int]]:
    """The rows in parts of at most ``size``; those of a group are in one part, whatever its size."""
    part: list[int] = []
    for rows in rows_of_groups(group_B):
        if part and len(part) + len(rows) > size:
            yield part
            part = []
        part = part + rows
    if part:
        yield part
