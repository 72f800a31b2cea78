"""Several ranks that learn as one: what every rank observed, gathered before anything is learned from it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from rlaif_sdk.statistics.arrays import Array, Labels

AllGather: TypeAlias = Callable[[Array], Sequence[Array]]
"""Brings arrays together. Called with this rank's (B, K) array, it returns those of all ranks, in the order of the
ranks, the same on every rank. B may differ between ranks and may be 0; K is the same everywhere.

It is called once for every training batch, and once more where there is an alarm, so all ranks must compose the same number of them, in the same order."""

_NO_GROUP = -1.0


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """The raw scores of a training batch over all ranks, N rows.

    Attributes:
        raw_RN: The R rewards' scores in their own units, NaN where there is none.
        group_N: Group labels from 0; groups of different ranks differ. None when there are no groups.
    """

    raw_RN: Array
    group_N: Labels | None

    @property
    def rows(self) -> int:
        """N."""
        return int(self.raw_RN.shape[1])

    def means_R(self) -> Array:
        """(R,) the mean of each reward's scores, NaN where nothing was scored."""
        present_RN = ~np.isnan(self.raw_RN)
        count_R = present_RN.sum(axis=1)
        sums_R = np.where(present_RN, self.raw_RN, 0.0).sum(axis=1)
        means_R: Array = np.where(count_R > 0, sums_R / np.maximum(count_R, 1), np.nan)
        return means_R


def gather_observed(raw_RB: Array, group_B: Labels | None, all_gather: AllGather | None) -> Observed:
    """What all ranks observed; this rank's rows alone when ``all_gather`` is None."""
    if all_gather is None:
        return Observed(raw_RB, group_B)
    labels_B = np.full(raw_RB.shape[1], _NO_GROUP) if group_B is None else group_B.astype(np.float64)
    parts = all_gather(np.column_stack([labels_B, raw_RB.T]))
    labels, offset, grouped = [], 0, True
    for part in parts:
        labels_b = part[:, 0].astype(np.intp)
        grouped = grouped and not (labels_b < 0).any()
        labels.append(labels_b + offset)
        offset += int(labels_b.max(initial=-1)) + 1
    all_NK = np.concatenate(parts)
    return Observed(np.ascontiguousarray(all_NK[:, 1:].T), np.concatenate(labels) if grouped else None)


def torch_all_gather() -> AllGather | None:
    """A `AllGather` over the ranks of ``torch.distributed``; None when it is not initialised or there is one rank.

    Call it on every rank. Scores travel in 64 bits, from memory to memory, in a Gloo group of their own, so that a batch
    composed in the background does not meet the collectives of training.
    """
    if "torch.distributed" not in sys.modules:
        return None
    import torch
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return None
    group = dist.new_group(backend="gloo")

    def gather(rows: Array) -> list[Array]:
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(group.size())]
        dist.all_gather(sizes, torch.tensor([len(rows)]), group=group)
        counts = [int(size) for size in sizes]
        padded = torch.zeros((max(counts), rows.shape[1]), dtype=torch.float64)
        padded[: len(rows)] = torch.from_numpy(rows)
        gathered = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(gathered, padded, group=group)
        return [part[:count].numpy() for part, count in zip(gathered, counts, strict=True)]

    return gather
