"""Shares and means of N values, with confidence intervals or standard errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from rlaif_sdk.statistics.arrays import Array, json_number

Indices = npt.NDArray[np.int64]

RESAMPLES = 1000
_NO_WIDTH = 1e-9


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its confidence interval.

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

    def text(self, *, digits: int = 3, signed: bool = False) -> str:
        """``0.700 [0.481, 0.855]``; a dash where nothing was counted, no brackets without an interval, ∞ for an open end."""
        if math.isnan(self.value):
            return "–"
        form = f"{'+' if signed else ''}.{digits}f"
        if math.isnan(self.low):
            return f"{self.value:{form}}"
        ends = [f"{end:{form}}".replace("inf", "∞") for end in (self.low, self.high)]
        return f"{self.value:{form}} [{', '.join(ends)}]"

    def record(self) -> dict[str, float | int | None]:
        """The estimate as a JSON-ready mapping, None for NaN."""
        return {
            "value": json_number(self.value),
            "low": json_number(self.low),
            "high": json_number(self.high),
            "n": self.n,
        }


def normal_quantile(confidence: float) -> float:
    """By how many standard deviations a two-sided interval of this confidence reaches out: 1.96 for 0.95."""
    from scipy.special import ndtri

    return float(ndtri((1 + confidence) / 2))


def student_t_quantile(confidence: float, degrees: float) -> float:
    """The same for the mean of a sample with this many degrees of freedom, by Student's t: 2.262 for 0.95 and 9."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))


def wilson(successes: float, n: int, confidence: float = 0.95) -> Estimate:
    """A share with Wilson's score interval (1927), which stays within [0, 1] and is not empty at either end.

    Args:
        successes: From 0 to ``n``; a tie may count half, for which the interval is a little too wide.
        n: Independent trials.
        confidence: Between 0 and 1.
    """
    if not n:
        return Estimate(math.nan, math.nan, math.nan, 0)
    share = successes / n
    return Estimate(share, *_wilson_ends(share, n, confidence), n)


def _wilson_ends(share: float, trials: float, confidence: float) -> tuple[float, float]:
    z = normal_quantile(confidence)
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def at_least_wilson(
    found: Estimate, trials: float, confidence: float = 0.95, *, within: tuple[float, float] = (0.0, 1.0)
) -> Estimate:
    """An estimate whose interval is no narrower than Wilson's over so many independent trials.

    A bootstrap draws what was seen and nothing else: of ten prompts that are all right, every resample is all right,
    and its interval is [1, 1]. Wilson's is [0.72, 1] there. It holds for a mean of any values in a range: none varies
    more than values at its two ends do.

    Args:
        found: A mean of values in the range, with another interval or none.
        trials: Independent ones, such as prompts; where they weigh differently, `effective_size`.
        confidence: Between 0 and 1.
        within: The range of the values, of which the first end is the lower one.
    """
    low, high = within
    if math.isnan(found.value) or not trials or low == high:
        return replace(found, low=math.nan, high=math.nan)
    share = min(max((found.value - low) / (high - low), 0.0), 1.0)
    least, most = (low + (high - low) * end for end in _wilson_ends(share, trials, confidence))
    return replace(found, low=float(np.fmin(found.low, least)), high=float(np.fmax(found.high, most)))


def effective_size(weights_G: Array) -> float:
    """How many values of equal weight give a mean that varies as much: Kish's (1965) squared sum over sum of squares."""
    return float(weights_G.sum() ** 2 / (weights_G @ weights_G)) if weights_G.any() else 0.0


def weighted_mean(values_N: Array, weights_N: Array) -> float:
    """The mean of values of which each counts so often; NaN where none counts."""
    total = float(weights_N.sum())
    return float(values_N @ weights_N) / total if total else math.nan


def bootstrap_weights(groups: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[Array]:
    """How often each of G groups is drawn in a resample of G groups with replacement (Efron 1979), (G,) each."""
    draw = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(draw.integers(groups, size=groups), minlength=groups).astype(np.float64)


def percentiles(resampled_R: Array, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile interval of a value's resamples."""
    low, high = np.quantile(resampled_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def bootstrap_mean(
    values_N: Array,
    groups_N: Indices,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """A mean with the percentile interval of a bootstrap over groups, so that values of one group may depend.

    Args:
        values_N: The values.
        groups_N: To which of the groups 0 to G - 1 each belongs, such as its prompt; each has one at least.
        confidence: Between 0 and 1.
        resamples: How many are drawn.
        seed: Of the draws.
    """
    return bootstrap_means(values_N[None], groups_N, confidence=confidence, resamples=resamples, seed=seed)[0]


def bootstrap_means(
    values_KN: Array, groups_N: Indices, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> list[Estimate]:
    """K means over the same groups, as `bootstrap_mean` has each, of the same resamples.

    Args:
        values_KN: The values; NaN where one is left out.
        groups_N: To which of the groups 0 to G - 1 each belongs.
        confidence: Between 0 and 1.
        resamples: How many are drawn.
        seed: Of the draws.
    """
    known_KN = ~np.isnan(values_KN)
    groups = int(groups_N.max()) + 1 if groups_N.size else 0
    sums_GK = np.stack([np.bincount(groups_N, np.nan_to_num(values_N), groups) for values_N in values_KN], axis=1)
    counts_GK = np.stack([np.bincount(groups_N, known_N, groups) for known_N in known_KN], axis=1)
    drawn = bootstrap_weights(groups, resamples=resamples, seed=seed) if groups > 1 else ()
    with np.errstate(invalid="ignore"):  # no value of a mean may be drawn
        resampled_RK = np.array([(weights_G @ sums_GK) / (weights_G @ counts_GK) for weights_G in drawn])
    found = []
    for place, (values_N, known_N, counts_G) in enumerate(zip(values_KN, known_KN, counts_GK.T, strict=True)):
        mean = float(values_N[known_N].mean()) if known_N.any() else math.nan
        ends = math.nan, math.nan
        if np.count_nonzero(counts_G) > 1:  # one group does not show how groups differ
            ends = percentiles(resampled_RK[~np.isnan(resampled_RK[:, place]), place], confidence)
        found.append(Estimate(mean, *ends, int(known_N.sum())))
    return found


def share_over_groups(
    values_N: Array, groups_N: Indices, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """A share, with the interval of `bootstrap_mean` and no narrower than Wilson's over the groups.

    Example:
        >>> import numpy as np
        >>> found = share_over_groups(np.ones(10), np.arange(10))
        >>> round(found.low, 2), found.high
        (0.72, 1.0)

    Args:
        values_N: In [0, 1], such as 1 for right, 0 for wrong and one half for a tie.
        groups_N: To which of the groups 0 to G - 1 each belongs, such as its prompt; each has one at least.
        confidence: Between 0 and 1.
        resamples: How many are drawn.
        seed: Of the draws.
    """
    found = bootstrap_mean(values_N, groups_N, confidence=confidence, resamples=resamples, seed=seed)
    return at_least_wilson(found, effective_size(np.bincount(groups_N).astype(np.float64)), confidence)


def bootstrap(
    statistic: Callable[[Array], float],
    groups_N: Indices,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """A statistic of N weighted values, with the percentile interval of a bootstrap over groups.

    Args:
        statistic: Of the values' weights (N,): how often each counts. Resamples in which it is NaN are left out.
        groups_N: What may not be torn apart, such as rows of one prompt; any numbers.
        confidence: Between 0 and 1.
        resamples: How many are drawn.
        seed: Of the draws.

    Returns:
        Without an interval where all resamples are alike: they do not show how far off the statistic may be.
    """
    if not len(groups_N):
        return Estimate(math.nan, math.nan, math.nan, 0)
    names, groups_N = np.unique(groups_N, return_inverse=True)
    if len(names) == 1:  # one group does not show how groups differ
        return Estimate(statistic(np.ones(len(groups_N))), math.nan, math.nan, len(groups_N))
    drawn = bootstrap_weights(len(names), resamples=resamples, seed=seed)
    resampled_R = np.array([statistic(weights_G[groups_N]) for weights_G in drawn])
    known = resampled_R[~np.isnan(resampled_R)]
    varies = known.size and np.ptp(known) > _NO_WIDTH
    low, high = percentiles(known, confidence) if varies else (math.nan, math.nan)
    return Estimate(statistic(np.ones(len(groups_N))), low, high, len(groups_N))


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The mean of independent values, and the half-width of its confidence interval by Student's t.

    Args:
        values: Such as one measurement a seed; NaN is left out.
        confidence: Between 0 and 1.

    Returns:
        Mean and half-width; NaN where there are too few values for them (one, and two).
    """
    present = [value for value in values if not math.isnan(value)]
    count = len(present)
    if not count:
        return math.nan, math.nan
    mean = math.fsum(present) / count
    if count == 1:
        return mean, math.nan
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in present) / (count - 1))
    return mean, student_t_quantile(confidence, count - 1) * spread / math.sqrt(count)


def mean_estimate(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The mean of independent values with the interval of `mean_interval`."""
    mean, half = mean_interval(values, confidence)
    return Estimate(mean, mean - half, mean + half, len(values) - sum(map(math.isnan, values)))


@dataclass(frozen=True, slots=True)
class SampleMean:
    """A mean and how far off it may be.

    Attributes:
        mean: The mean; NaN when nothing was measured.
        standard_error: The sample standard deviation over the root of n; NaN for n < 2.
        n: How many values.
    """

    mean: float
    standard_error: float
    n: int

    @property
    def exceeds_error(self) -> bool:
        """Whether the mean lies more than one standard error above 0."""
        return self.mean > self.standard_error

    def to_dict(self) -> dict[str, float | int | None]:
        """JSON values: None for NaN."""
        return {"mean": json_number(self.mean), "standard_error": json_number(self.standard_error), "n": self.n}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """The one whose `to_dict` this is; other keys do not matter."""
        mean, error = (math.nan if value[name] is None else value[name] for name in ("mean", "standard_error"))
        return cls(mean, error, value["n"])


def sample_mean(values_B: Array) -> SampleMean:
    """The mean of the values that are not NaN."""
    present = values_B[~np.isnan(values_B)]
    if present.size == 0:
        return SampleMean(math.nan, math.nan, 0)
    spread = float(present.std(ddof=1)) if present.size > 1 else math.nan
    return SampleMean(float(present.mean()), spread / math.sqrt(present.size), int(present.size))


def paired_change(before_B: Array, after_B: Array) -> SampleMean:
    """The mean of after minus before, over the rows where neither is NaN.

    Its standard error is that of the differences, so that easy and hard rows do not blur it.

    Raises:
        ValueError: The shapes differ: the rows are then not the same ones.
    """
    if before_B.shape != after_B.shape:
        raise ValueError(f"paired values must have one shape, not {before_B.shape} and {after_B.shape}")
    return sample_mean(after_B - before_B)


def comparison(before: Mapping[str, Array], after: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    """For each measure its estimates before and after, and the paired change, as JSON values."""
    return {
        name: {
            "before": sample_mean(values_B).to_dict(),
            "after": sample_mean(after[name]).to_dict(),
            "change": paired_change(values_B, after[name]).to_dict(),
        }
        for name, values_B in before.items()
    }
