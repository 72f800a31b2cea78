"""Scores that cannot tell completions apart: at the edges of their range, or all alike."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rlaif_sdk.statistics.arrays import Array, Labels, Mask

_SAME = 1e-8
TOLERANCE = 1e-3
"""Scores are alike within this share of the reward's range."""


class Saturation(NamedTuple):
    """How many of a reward's scores cannot tell completions apart. Shares of the scores, NaN without any.

    Attributes:
        low: At the lower edge of the range.
        high: At its upper edge.
        tied: Most scores that lie within the tolerance of each other.
    """

    low: float
    high: float
    tied: float


def saturation(
    values_B: Array, declared: tuple[float, float] | None = None, *, tolerance: float = TOLERANCE
) -> Saturation:
    """Measure one reward's saturation; NaN is left out.

    Args:
        values_B: Its scores.
        declared: The range that it declares; the least and greatest of the scores if None.
        tolerance: How near is alike, as a share of the range's width.
    """
    ordered = np.sort(values_B[~np.isnan(values_B)])
    if not ordered.size:
        return Saturation(np.nan, np.nan, np.nan)
    low, high = declared or (ordered[0], ordered[-1])
    near = tolerance * (high - low)
    ends = np.searchsorted(ordered, ordered + near, side="right")
    return Saturation(
        low=float(np.searchsorted(ordered, low + near, side="right") / ordered.size),
        high=float(1.0 - np.searchsorted(ordered, high - near, side="left") / ordered.size),
        tied=float((ends - np.arange(ordered.size)).max() / ordered.size),
    )


def group_spread(values_RB: Array, group_B: Labels) -> Array:
    """(R, G) the greatest score minus the least within each group; NaN with fewer than two scores.

    Args:
        values_RB: R rewards' scores of B rows, NaN where there is none.
        group_B: Labels from 0.
    """
    groups = int(group_B.max(initial=-1)) + 1
    if not groups:
        return np.empty((len(values_RB), 0))
    order_B = np.argsort(group_B, kind="stable")
    sorted_RB = values_RB[:, order_B]
    first_G = np.searchsorted(group_B[order_B], np.arange(groups))
    count_RG = np.add.reduceat(~np.isnan(sorted_RB), first_G, axis=1, dtype=np.intp)
    spread_RG = np.fmax.reduceat(sorted_RB, first_G, axis=1) - np.fmin.reduceat(sorted_RB, first_G, axis=1)
    return np.where(count_RG > 1, spread_RG, np.nan)


def flat_groups(spread_G: Array, *, epsilon: float = 0.0) -> float:
    """The share of groups whose scores are all within ``epsilon`` of each other: those teach nothing.

    Where advantages are differences within a group, as in GRPO, such a group has none (DAPO, Yu et al. 2025, section
    3.2). Groups of fewer than two scores, NaN, are left out; NaN when that is all of them.
    """
    known = spread_G[~np.isnan(spread_G)]
    return float((known <= epsilon).mean()) if known.size else float("nan")


def no_variance(values_RB: Array, group_B: Labels) -> Mask:
    """(R, G) True where a group's values are all the same, to 1e-8 as in TRL, or it has fewer than two: it teaches nothing.

    Where advantages are standardised within a group even small differences count, so nothing is measured against a range.

    Args:
        values_RB: R rewards' scores of B rows, or totals, NaN where there is none.
        group_B: Labels from 0.
    """
    without_RG: Mask = ~(group_spread(values_RB, group_B) > _SAME)
    return without_RG


def width(values_B: Array, declared: tuple[float, float] | None = None) -> float:
    """The width of the declared range; without one, of what the scores span."""
    if declared is not None:
        return declared[1] - declared[0]
    present = values_B[~np.isnan(values_B)]
    return float(np.ptp(present)) if present.size else 0.0
