"""Shares, means and agreement of N comparisons, with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and its confidence interval.

    Attributes:
        value: NaN where nothing was counted.
        low: The interval's lower end; NaN where there is none.
        high: Its upper end.
        n: How many comparisons it rests on.
    """

    value: float
    low: float
    high: float
    n: int

    def record(self) -> dict[str, float | int | None]:
        """The figure as a JSON-ready mapping, None for NaN."""
        ends = {"value": self.value, "low": self.low, "high": self.high}
        return {**{name: value if math.isfinite(value) else None for name, value in ends.items()}, "n": self.n}


def normal_quantile(confidence: float) -> float:
    """By how many standard deviations a two-sided interval of this confidence reaches out: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def wilson(successes: float, n: int, confidence: float = 0.95) -> Figure:
    """A share with Wilson's score interval (1927), which stays within [0, 1] and is not empty at either end.

    Args:
        successes: From 0 to ``n``; a tie may count half, for which the interval is a little too wide.
        n: Independent trials.
        confidence: Between 0 and 1.
    """
    if not n:
        return Figure(math.nan, math.nan, math.nan, 0)
    z = normal_quantile(confidence)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Figure(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)), n)


def cohens_kappa(counts_KK: Array, confidence: float = 0.95) -> Figure:
    """Cohen's kappa (1960): agreement beyond what the raters' own habits would give by chance; 1 is full agreement.

    kappa = (p_o - p_e) / (1 - p_e), with p_o the share on the diagonal and p_e = sum_k r_k c_k of the margins. The
    interval is the large-sample one (Fleiss, Cohen and Everitt 1969), by the delta method.

    Args:
        counts_KK: How often the first rater said the row's category and the second the column's.
        confidence: Between 0 and 1.

    Returns:
        NaN where there is nothing, or where both raters always say the same one category; without an interval where
        the standard error is 0.
    """
    n = float(counts_KK.sum())
    if not n:
        return Figure(math.nan, math.nan, math.nan, 0)
    shares_KK = counts_KK / n
    rows_K, columns_K = shares_KK.sum(axis=1), shares_KK.sum(axis=0)
    observed, by_chance = float(np.trace(shares_KK)), float(rows_K @ columns_K)
    if by_chance >= 1:
        return Figure(math.nan, math.nan, math.nan, int(n))
    kappa = (observed - by_chance) / (1 - by_chance)
    # d kappa / d p_ij, since d p_o = [i = j] and d p_e = c_i + r_j
    slope_KK = (
        np.eye(len(rows_K)) / (1 - by_chance)
        - (columns_K[:, None] + rows_K[None, :]) * (1 - observed) / (1 - by_chance) ** 2
    )
    variance = float((shares_KK * slope_KK**2).sum() - (shares_KK * slope_KK).sum() ** 2) / n
    half = normal_quantile(confidence) * math.sqrt(max(variance, 0.0))
    if half < 1e-6:  # full agreement, or none: such counts do not show how far kappa may be off
        return Figure(kappa, math.nan, math.nan, int(n))
    return Figure(kappa, max(-1.0, kappa - half), min(1.0, kappa + half), int(n))


def bootstrap_weights(groups: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[Array]:
    """How often each of G groups is drawn in a resample of G groups with replacement (Efron 1979), (G,) each."""
    draw = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(draw.integers(groups, size=groups), minlength=groups).astype(np.float64)


def percentiles(resampled_R: Array, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile interval of a figure's resamples."""
    low, high = np.quantile(resampled_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def bootstrap_mean(
    values_N: Array,
    groups_N: Indices,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Figure:
    """A mean with the percentile interval of a bootstrap over groups, so that values of one group may depend.

    Args:
        values_N: The values.
        groups_N: To which of the groups 0 to G - 1 each belongs, such as its prompt; each has one at least.
        confidence: Between 0 and 1.
        resamples: How many are drawn.
        seed: Of the draws.
    """
    if not values_N.size:
        return Figure(math.nan, math.nan, math.nan, 0)
    sums_G, counts_G = np.bincount(groups_N, values_N), np.bincount(groups_N)
    drawn = bootstrap_weights(len(counts_G), resamples=resamples, seed=seed)
    resampled_R = np.array([weights_G @ sums_G / (weights_G @ counts_G) for weights_G in drawn])
    return Figure(float(values_N.mean()), *percentiles(resampled_R, confidence), values_N.size)
