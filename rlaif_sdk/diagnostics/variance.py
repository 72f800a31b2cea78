"""What the total's variance is made of."""

from __future__ import annotations

import numpy as np

from rlaif_sdk.statistics.arrays import Array


def variance_shares(parts_RB: Array, totals_B: Array) -> Array:
    """(R,) the share of each part in the variance of the total: ``cov(part, total) / var(total)``.

    The natural decomposition of a sum's variance (Shorrocks, 1982, *Inequality decomposition by factor components*).
    Where the parts of a row sum to its total, the shares sum to 1. A share is negative where a part moves against the
    total; what the shares lack of 1 is owed to what is no part, such as gates.

    Args:
        parts_RB: What each reward adds to the total; NaN, where it took no part, adds nothing.
        totals_B: The totals; rows where it is NaN are left out.

    Returns:
        The shares; all NaN where the total does not vary.
    """
    scored_B = ~np.isnan(totals_B)
    totals = totals_B[scored_B]
    parts = np.nan_to_num(parts_RB[:, scored_B], nan=0.0)
    if totals.size == 0:
        return np.full(len(parts_RB), np.nan)
    size = np.abs(totals).max()
    centred = (totals - totals.mean()) / (size or 1.0)
    variance = centred @ centred
    if variance <= totals.size * 1e-24:  # what rounding leaves of none
        return np.full(len(parts_RB), np.nan)
    shares_R: Array = (parts / size) @ centred / variance
    return shares_R
