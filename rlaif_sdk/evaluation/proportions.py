"""Shares and other figures of N comparisons, with confidence intervals."""

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
