"""Normalizers: what makes rewards of different scales comparable before they are weighted.

Missing values are NaN and stay NaN. A normalizer with memory is updated by training batches alone.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, field_validator

from rlaif_sdk.exceptions import ConfigError, StateError
from rlaif_sdk.rewards import Params
from rlaif_sdk.statistics.arrays import MAX_SCORE, Array, Labels
from rlaif_sdk.statistics.groups import group_labels, group_means, sorted_within_groups

ROUNDING = 1e-15
"""Differences of this share of a mean, some units of its last place, are taken for rounding."""


class Normalizer(ABC):
    """Maps the scores of one reward to a common scale.

    Attributes:
        range: The reward's declared range, higher being better; set before the first batch. None is unbounded.
        params: Its parameters, or None: saved state is refused when they differ.
        within_groups: Whether a score means nothing but beside those of other completions to the same prompt.
        by_itself: Whether what comes of a score depends on that score alone, on no other and on nothing learned, and never
            falls as it rises.
    """

    range: tuple[float, float] | None = None
    params: BaseModel | None = None
    within_groups: bool = False
    by_itself: bool = False

    def bind(self, value_range: tuple[float, float] | None) -> None:
        """Learn the reward's declared range.

        Raises:
            ConfigError: This normalizer cannot work with it.
        """
        self.range = value_range

    def update(self, values_B: Array, group_B: Labels | None) -> None:
        """Take the scores of a training batch into running statistics, if this normalizer has any.

        Args:
            values_B: The scores of all ranks, higher being better, NaN where missing.
            group_B: (B,) integers, equal for rows that answer the same prompt; None when there are no groups.
        """

    @abstractmethod
    def normalize(self, values_B: Array, group_B: Labels | None) -> Array:
        """The (B,) values on the common scale; NaN stays NaN.

        Args:
            values_B: The scores, higher being better, NaN where missing.
            group_B: (B,) integers, equal for rows that answer the same prompt; None when there are no groups.
        """

    def scale(self, values_B: Array, group_B: Labels | None) -> Array:
        """(B,) how much the value on the common scale rises with one unit of the score; limits are left aside.

        NaN, which is the default, for a normalizer that does more than scale and shift: the values of single tokens
        then have no place on the common scale.

        Args:
            values_B: The scores, higher being better, NaN where missing.
            group_B: (B,) integers, equal for rows that answer the same prompt; None when there are no groups.
        """
        del group_B
        return np.full(len(values_B), np.nan)

    def working(self, values_B: Array, group_B: Labels | None) -> Callable[[int], str]:
        """How `normalize` gets a row's value, for people: a function of the row that gives a formula with its numbers.

        It is asked at any time later, so it holds the state as it is now: that of a copy, not of this object. Its name
        is said by default.

        Args:
            values_B: The scores, higher being better, NaN where missing.
            group_B: (B,) integers, equal for rows that answer the same prompt; None when there are no groups.
        """
        del values_B, group_B
        return partial(_constant, type(self).__name__)

    def describe(self) -> dict[str, Any]:
        """What its state belongs to, as JSON values: state saved under another description is refused."""
        params = self.params.model_dump(mode="json") if self.params else {}
        return {"kind": type(self).__name__, **params}

    def state_dict(self) -> dict[str, Any]:
        """What must survive a checkpoint, as JSON values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a saved state.

        Raises:
            StateError: The state is not of this normalizer.
        """
        if state:
            raise StateError(f"{type(self).__name__} has no state, and {sorted(state)} was saved")


def _constant(words: str, row: int) -> str:
    del row
    return words


def _limit_words(limit: float | None) -> str:
    """What `clipped` does, in words; empty without a limit."""
    return "" if limit is None else f", at most {limit:g} from 0"


class Passthrough(Normalizer):
    """``none``: the score as it is."""

    by_itself = True

    def working(self, values_B: Array, group_B: Labels | None) -> Callable[[int], str]:
        return partial(_constant, "")

    def normalize(self, values_B: Array, group_B: Labels | None) -> Array:
        return values_B

    def scale(self, values_B: Array, group_B: Labels | None) -> Array:
        return np.ones(len(values_B))


class MinMax(Normalizer):
    """``minmax``: the declared range mapped linearly to [0, 1]."""

    by_itself = True

    def bind(self, value_range: tuple[float, float] | None) -> None:
        if value_range is None or not all(map(math.isfinite, value_range)) or value_range[0] == value_range[1]:
            raise ConfigError(
                f"normalize: minmax needs a finite declared range, and this reward's is {value_range}",
                hint="use zscore, group_zscore or rank",
            )
        super().bind(value_range)

    def normalize(self, values_B: Array, group_B: Labels | None) -> Array:
        assert self.range is not None
        low, high = self.range
        return (values_B - low) / (high - low)

    def scale(self, values_B: Array, group_B: Labels | None) -> Array:
        assert self.range is not None
        low, high = self.range
        return np.full(len(values_B), 1 / (high - low))

    def working(self, values_B: Array, group_B: Labels | None) -> Callable[[int], str]:
        assert self.range is not None
        return partial(_between, values_B, *self.range)


def _between(values_B: Array, low: float, high: float, row: int) -> str:
    return f"({values_B[row]:.6g} - {low:.6g}) / {high - low:.6g}"


class Standardizer(Normalizer):
    """A score's distance from the middle of its like, in units of their spread, within limits.

    `working` keeps a shallow copy of it, so `update` replaces what it has learned and changes none of it in place.

    Attributes:
        params: Have ``clip``, the largest absolute value that comes out, or None; and ``epsilon``, added to the spread.
    """

    params: Any

    @abstractmethod
    def center_and_scale(self, values_B: Array, group_B: Labels | None) -> tuple[Array, Array]:
        """(B,) the distances from the middle, and (B,) the spreads; both 0 where nothing was learned yet.

        Args:
            values_B: The scores, higher being better, NaN where missing.
            group_B: (B,) integers, equal for rows that answer the same prompt; None when there are no groups.
        """

    def normalize(self, values_B: Array, group_B: Labels | None) -> Array:
        centred_B, spread_B = self.center_and_scale(values_B, group_B)
        return clipped(centred_B / (spread_B + self.params.epsilon), self.params.clip)

    def scale(self, values_B: Array, group_B: Labels | None) -> Array:
        _, spread_B = self.center_and_scale(values_B, group_B)
        return inverse_std(spread_B, self.params.epsilon)

    def working(self, values_B: Array, group_B: Labels | None) -> Callable[[int], str]:
        return _Standardized(copy.copy(self), values_B, group_B)

    def among(self) -> str:
        """Whose middle and spread these are, in words."""
        return "mean and deviation of its group" if self.within_groups else "mean and deviation"


class _Standardized:
    """How a `Standardizer` got a row's value."""

    def __init__(self, normalizer: Standardizer, values_B: Array, group_B: Labels | None) -> None:
        self.normalizer = normalizer
        self.values_B = values_B
        self.group_B = group_B

    @cached_property
    def measured(self) -> tuple[Array, Array]:
        return self.normalizer.center_and_scale(self.values_B, self.group_B)

    def __call__(self, row: int) -> str:
        centred_B, spread_B = self.measured
        if not spread_B[row] > 0:
            return "0, since there is no spread to measure by"
        value, params = self.values_B[row], self.normalizer.params
        limit = _limit_words(params.clip)
        center, spread = value - centred_B[row], spread_B[row] + params.epsilon
        return f"({value:.6g} - {center:.6g}) / {spread:.6g}{limit} ({self.normalizer.among()})"


class ZScoreParams(Params):
    """Parameters of `ZScore`."""

    clip: float | None = Field(default=10.0, gt=0)
    """Largest absolute value that comes out; null for none."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Added to the standard deviation."""


class ZScore(Standardizer):
    """``zscore``: running mean and standard deviation over all training batches so far, this one included.

    Merges batches with the parallel algorithm of Chan, Golub and LeVeque (1979), so that the result does not depend
    on how rows were cut into batches.
    """

    def __init__(self, params: ZScoreParams | None = None) -> None:
        self.params: ZScoreParams = params or ZScoreParams()
        self.count = 0
        self.mean = 0.0
        self.m2 = 0.0

    def update(self, values_B: Array, group_B: Labels | None) -> None:
        values = values_B[~np.isnan(values_B)]
        if not values.size:
            return
        first = float(values[0])
        mean = first + float((values - first).mean())
        m2 = float(((values - mean) ** 2).sum())
        count = self.count + values.size
        delta = mean - self.mean
        self.mean += delta * (values.size / count)
        self.m2 += m2 + delta**2 * self.count * values.size / count
        self.count = count

    def center_and_scale(self, values_B: Array, group_B: Labels | None) -> tuple[Array, Array]:
        if not self.count:
            return values_B - values_B, np.zeros(len(values_B))
        return deviations(values_B, self.mean), np.full(len(values_B), math.sqrt(self.m2 / self.count))

    def among(self) -> str:
        return f"mean and deviation of {self.count} training scores"

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean, "m2": self.m2}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state.keys() != {"count", "mean", "m2"}:
            raise StateError(f"a zscore's state has count, mean and m2; saved was {sorted(state)}")
        count, mean, m2 = int(state["count"]), float(state["mean"]), float(state["m2"])
        if not (0 <= count < 2**53 and abs(mean) <= MAX_SCORE and m2 >= 0):
            raise StateError(f"{count} scores cannot have a mean of {mean:g} and squared deviations of {m2:g}")
        self.count, self.mean, self.m2 = count, mean, m2


class FixedZScoreParams(ZScoreParams):
    """Parameters of `FixedZScore`."""

    mean: float = Field(allow_inf_nan=False)
    """The score that becomes 0; of a cost, the negative of its mean."""
    std: float = Field(gt=0, allow_inf_nan=False)
    """How far from it a score becomes 1."""


class FixedZScore(Standardizer):
    """``fixed_zscore``: the distance from a stated mean in units of a stated deviation; nothing is learned.

    What a score becomes depends on nothing but the score, so weights that were fitted to such values keep their meaning.
    """

    by_itself = True

    def __init__(self, params: FixedZScoreParams) -> None:
        self.params: FixedZScoreParams = params

    def center_and_scale(self, values_B: Array, group_B: Labels | None) -> tuple[Array, Array]:
        return deviations(values_B, self.params.mean), np.full(len(values_B), self.params.std)

    def among(self) -> str:
        return "stated mean and deviation"


class GroupZScore(Standardizer):
    """``group_zscore``: mean and standard deviation of the completions to the same prompt, as GRPO does.

    Without groups the whole batch is one group. A group without spread, or with one score, gives 0. The deviation is
    that of the group (divided by n), so that groups of any size come out with the same spread; TRL's GRPO divides by
    n - 1, which makes its values the smaller by sqrt((n - 1) / n).
    """

    within_groups = True

    def __init__(self, params: ZScoreParams | None = None) -> None:
        self.params: ZScoreParams = params or ZScoreParams()

    def center_and_scale(self, values_B: Array, group_B: Labels | None) -> tuple[Array, Array]:
        labels_B = group_labels(values_B, group_B)
        centred_B = deviations(values_B, group_means(values_B, labels_B)[labels_B])
        return centred_B, np.sqrt(group_means(centred_B**2, labels_B))[labels_B]


class GroupCenter(Normalizer):
    """``group_center``: the score less the mean of the completions to the same prompt.

    It keeps the reward's own scale, so that a prompt on which all completions are alike does not weigh as much as one
    that tells them apart (Liu et al., 2025, "Dr. GRPO"). Without groups the whole batch is one group.
    """

    within_groups = True

    def normalize(self, values_B: Array, group_B: Labels | None) -> Array:
        labels_B = group_labels(values_B, group_B)
        return deviations(values_B, group_means(values_B, labels_B)[labels_B])

    def scale(self, values_B: Array, group_B: Labels | None) -> Array:
        return np.ones(len(values_B))

    def working(self, values_B: Array, group_B: Labels | None) -> Callable[[int], str]:
        return partial(_less_mean, values_B, group_B)


def _less_mean(values_B: Array, group_B: Labels | None, row: int) -> str:
    labels_B = group_labels(values_B, group_B)
    return f"{values_B[row]:.6g} - {group_means(values_B, labels_B)[labels_B[row]]:.6g} (mean of its group)"


class Rank(Normalizer):
    """``rank``: the mid-rank within the group (or the batch) mapped to [-1, 1]; a lone score gives 0.

    Only the order of the scores counts, so no outlier can dominate.
    """

    def normalize(self, values_B: Array, group_B: Labels | None) -> Array:
        labels_B = group_labels(values_B, group_B)
        out_B = np.full(len(values_B), np.nan)
        rows = np.flatnonzero(~np.isnan(values_B))
        rows = rows[sorted_within_groups(values_B[rows], labels_B[rows])]
        labels, values = labels_B[rows], values_B[rows]
        first = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]][: len(rows)])
        size = np.diff(np.r_[first, len(rows)])
        position = np.arange(len(rows)) - np.repeat(first, size)
        tie = np.cumsum(np.r_[True, (labels[1:] != labels[:-1]) | (values[1:] != values[:-1])][: len(rows)]) - 1
        midrank = np.bincount(tie, weights=position)[tie] / np.bincount(tie)[tie] if len(rows) else position
        spread = np.repeat(np.maximum(size - 1, 1), size)
        out_B[rows] = np.where(np.repeat(size, size) > 1, 2 * midrank / spread - 1, 0.0)
        return out_B

    def working(self, values_B: Array, group_B: Labels | None) -> Callable[[int], str]:
        return partial(_rank_words, values_B, group_B)


def _rank_words(values_B: Array, group_B: Labels | None, row: int) -> str:
    labels_B = group_labels(values_B, group_B)
    others = values_B[(labels_B == labels_B[row]) & ~np.isnan(values_B)]
    below, ties = int((others < values_B[row]).sum()), int((others == values_B[row]).sum())
    if len(others) < 2:
        return "0, since no other score is in its group"
    return f"2 x {below + (ties - 1) / 2:g} / {len(others) - 1} - 1 (scores of its group below it, ties counted half)"


def inverse_std(spread_B: Array, epsilon: float) -> Array:
    """One over the spread; 0 where that is no more than ``epsilon``, which is rounding: parts of equal scores count for nothing."""
    scale_B: Array = np.where(spread_B > epsilon, 1 / (spread_B + epsilon), 0.0)
    return scale_B


def deviations(values_B: Array, mean: Array | float) -> Array:
    """The values less their mean; 0 where that is no more than the mean's rounding, so that equal scores stay equal."""
    centred_B: Array = values_B - mean
    centred_B[np.abs(centred_B) <= ROUNDING * np.abs(mean)] = 0.0
    return centred_B


def clipped(values_B: Array, limit: float | None) -> Array:
    """The values, kept within [-limit, limit] unless that is None."""
    return values_B if limit is None else np.clip(values_B, -limit, limit)


CAPACITY = 4096
"""Scores that are kept: the empirical distribution is then within 0.031 of the true one at every point, with a
probability of 99.9% (Dvoretzky, Kiefer and Wolfowitz)."""


class Reservoir:
    """A uniform sample of bounded size of all values so far (Vitter, 1985, algorithm R).

    Which values stay is drawn from a hash of the seed and a value's position, so the sample depends neither on how
    the values were cut into batches nor on any other randomness, and is the same on every rank.

    Args:
        capacity: How many values are kept.
        seed: What the draws depend on.
    """

    def __init__(self, capacity: int = CAPACITY, seed: int = 0) -> None:
        self.capacity = capacity
        self.seed = seed
        self.count = 0
        self._kept: Array = np.empty(0)
        self._sorted: Array = np.empty(0)

    def add(self, values: Array) -> None:
        """Take values in, in order; NaN is left out."""
        values = values[~np.isnan(values)]
        if not values.size:
            return
        room = max(self.capacity - self.count, 0)
        self._kept = np.concatenate([self._kept, values[:room]])
        late = values[room:]
        positions = np.arange(self.count + len(values) - len(late), self.count + len(values), dtype=np.uint64)
        slots = (_uniform(self.seed, positions) * (positions + np.uint64(1))).astype(np.intp)
        drawn = slots < self.capacity
        self._kept[slots[drawn]] = late[drawn]
        self.count += len(values)
        self._sorted = np.sort(self._kept)

    @property
    def sorted(self) -> Array:
        """The values that are kept, in ascending order."""
        return self._sorted

    def state_dict(self) -> dict[str, Any]:
        """What must survive a checkpoint, as JSON values."""
        return {"count": self.count, "kept": self._kept.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a saved state.

        Raises:
            StateError: The state is not of a reservoir of this capacity.
        """
        if state.keys() != {"count", "kept"} or len(state["kept"]) != min(int(state["count"]), self.capacity):
            raise StateError(f"a sample's state has count and kept, {self.capacity} values at most")
        self.count = int(state["count"])
        self._kept = np.array(state["kept"], dtype=np.float64)
        self._sorted = np.sort(self._kept)


class QuantileParams(Params):
    """Parameters of `Quantile`."""

    capacity: int = Field(default=CAPACITY, ge=2)
    """Scores that are kept."""
    seed: int = Field(default=0, ge=0)
    """What decides which scores are kept."""


class Quantile(Normalizer):
    """``quantile``: where a score stands among all training scores so far, in [-1, 1].

    Twice the share of the kept scores below it, ties counted half, less 1: the median gives 0. Unlike ``rank`` it
    compares with all batches, so a batch that is better as a whole is seen to be. Before the first training batch
    everything is 0.
    """

    def __init__(self, params: QuantileParams | None = None) -> None:
        self.params: QuantileParams = params or QuantileParams()
        self._sample = Reservoir(self.params.capacity, self.params.seed)

    def update(self, values_B: Array, group_B: Labels | None) -> None:
        self._sample.add(values_B)

    def normalize(self, values_B: Array, group_B: Labels | None) -> Array:
        known = self._sample.sorted
        if not known.size:
            return values_B - values_B
        order = np.argsort(values_B)  # values in order are found several times as fast
        ascending = values_B[order]
        below = np.searchsorted(known, ascending, side="left")
        upto = np.searchsorted(known, ascending, side="right")
        places_B = np.empty_like(values_B)
        places_B[order] = np.where(np.isnan(ascending), np.nan, (below + upto) / known.size - 1.0)
        return places_B

    def working(self, values_B: Array, group_B: Labels | None) -> Callable[[int], str]:
        return partial(_quantile_words, values_B, self._sample.sorted)

    def state_dict(self) -> dict[str, Any]:
        return self._sample.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sample.load_state_dict(state)


def _quantile_words(values_B: Array, known: Array, row: int) -> str:
    if not known.size:
        return "0, since there are no training scores yet"
    below, upto = (int(np.searchsorted(known, values_B[row], side=side)) for side in ("left", "right"))
    return f"2 x {(below + upto) / 2:g} / {known.size} - 1 (kept training scores below it, ties counted half)"


def _uniform(seed: int, positions: npt.NDArray[np.uint64]) -> Array:
    """One number in [0, 1) a position: splitmix64 (Steele, Lea and Flood, 2014), 53 bits."""
    stream = _mixed(np.array([seed % 2**64], dtype=np.uint64))  # seeds side by side must not give shifted copies
    drawn = _mixed(stream + (positions + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    return (drawn >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """A hash of each 64-bit number: the finalizer of splitmix64."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * np.uint64(factor)
    return numbers ^ (numbers >> np.uint64(31))


class LimitParams(Params):
    """Keys that go with every normalizer, beside its own parameters."""

    winsorize: tuple[float, float] | None = None
    """The quantiles of the training scores so far to which scores beyond are moved, such as ``[0.01, 0.99]``; one
    number stands for that share at either end."""
    clip: float | None = Field(default=None, gt=0)
    """Largest absolute value that comes out; null for none."""

    @field_validator("winsorize", mode="before")
    @classmethod
    def _either_end(cls, value: Any) -> Any:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return value
        if not 0 <= value < 0.5:  # which a whole number of any length may be asked
            raise ValueError("the quantiles must be in order and within [0, 1]: a share is from 0 to below 0.5")
        return value, 1.0 - value

    @field_validator("winsorize")
    @classmethod
    def _in_order(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0.0 <= value[0] < value[1] <= 1.0:
            raise ValueError(f"the quantiles must be in order and within [0, 1], not {value[0]:g} and {value[1]:g}")
        return value


class Limited(Normalizer):
    """Another normalizer, with scores winsorised before it and its values clipped after it.

    Winsorising learns the quantiles from a sample of all training scores so far, this batch included
    (`rlaif_sdk.composer.normalizers.Reservoir`); the inner normalizer sees the scores so limited.
    """

    def __init__(self, inner: Normalizer, params: LimitParams) -> None:
        self.inner = inner
        self.params: LimitParams = params
        self.within_groups = inner.within_groups
        self.by_itself = inner.by_itself and not params.winsorize
        self._sample = Reservoir()

    def bind(self, value_range: tuple[float, float] | None) -> None:
        super().bind(value_range)
        self.inner.bind(value_range)

    def update(self, values_B: Array, group_B: Labels | None) -> None:
        if self.params.winsorize:
            self._sample.add(values_B)
        self.inner.update(self._winsorized(values_B), group_B)

    def normalize(self, values_B: Array, group_B: Labels | None) -> Array:
        return clipped(self.inner.normalize(self._winsorized(values_B), group_B), self.params.clip)

    def scale(self, values_B: Array, group_B: Labels | None) -> Array:
        return self.inner.scale(self._winsorized(values_B), group_B)

    def working(self, values_B: Array, group_B: Labels | None) -> Callable[[int], str]:
        inner = self.inner.working(self._winsorized(values_B), group_B)
        bounds = None
        if self.params.winsorize and self._sample.count:
            low, high = np.quantile(self._sample.sorted, self.params.winsorize)
            bounds = (float(low), float(high))
        return partial(_limited_words, inner, bounds, self.params.clip)

    def _winsorized(self, values_B: Array) -> Array:
        if not self.params.winsorize or not self._sample.count:
            return values_B
        low, high = np.quantile(self._sample.sorted, self.params.winsorize)
        return np.clip(values_B, low, high)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "inner": self.inner.describe()}

    def state_dict(self) -> dict[str, Any]:
        return {"sample": self._sample.state_dict(), "inner": self.inner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sample.load_state_dict(state.get("sample", {}))
        self.inner.load_state_dict(state.get("inner", {}))


def _limited_words(
    inner: Callable[[int], str], bounds: tuple[float, float] | None, limit: float | None, row: int
) -> str:
    moved = f", scores kept within {bounds[0]:.6g} and {bounds[1]:.6g} before" if bounds else ""
    return f"{inner(row) or 'the score'}{moved}{_limit_words(limit)}"
