"""Trade-offs between objectives: which points nobody would refuse, and how much they cover.

P points, M objectives; higher is better in each.
"""

from __future__ import annotations

import numpy as np

from rlaif_sdk.statistics.arrays import Array, Mask


def nondominated(values_PM: Array) -> Mask:
    """Which points are on the Pareto frontier.

    A point is dominated when another is at least as good in every objective and better in one. Equal points do not
    dominate each other. A point with a NaN is on no frontier, and dominates none.

    Args:
        values_PM: The points' values.

    Returns:
        (P,) True on the frontier.
    """
    measured_P: Mask = np.logical_and.reduce(~np.isnan(values_PM), axis=1)
    frontier_P = measured_P.copy()
    for point, values_M in enumerate(values_PM):
        no_worse_P = (values_PM >= values_M).all(axis=1)
        better_P = (values_PM > values_M).any(axis=1)
        frontier_P[point] &= not (no_worse_P & better_P & measured_P).any()
    return frontier_P


def hypervolume(values_PM: Array, reference_M: Array) -> float:
    """The volume of what the points dominate and the reference does not: 0 when no point exceeds it everywhere.

    Computed in slices along one objective after the other (While et al. 2006, IEEE Trans. Evol. Comput. 10, "HSO"),
    which suits tens of points and a few objectives.

    Args:
        values_PM: The points' values; those with a NaN are left out.
        reference_M: A point that all others should exceed.
    """
    above_P = (values_PM > reference_M).all(axis=1)  # False for NaN
    return _volume(values_PM[above_P] - reference_M)


def _volume(sides_PM: Array) -> float:
    """The volume of the union of boxes from the origin."""
    if not len(sides_PM):
        return 0.0
    if sides_PM.shape[1] == 1:
        return float(sides_PM.max())
    ordered_PM = sides_PM[np.argsort(-sides_PM[:, -1], kind="stable")]
    depths_P = ordered_PM[:, -1] - np.append(ordered_PM[1:, -1], 0.0)
    return sum(
        float(depth) * _volume(ordered_PM[: count + 1, :-1]) for count, depth in enumerate(depths_P) if depth > 0
    )
