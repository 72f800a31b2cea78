"""Normalizers: what makes rewards of different scales comparable before they are weighted.

Missing values are NaN and stay NaN. A normalizer with memory is updated by training batches alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from rlaif_sdk.composer.arrays import Array, Labels
from rlaif_sdk.composer.grouping import group_labels, group_means, sorted_within_groups
from rlaif_sdk.exceptions import ConfigError, StateError
from rlaif_sdk.rewards import Params

ROUNDING = 1e-12
"""Differences of this share of a mean are taken for rounding."""


class Normalizer(ABC):
    """Maps the scores of one reward to a common scale.

    Attributes:
        range: The reward's declared range, higher being better; set before the first batch. None is unbounded.
        params: Its parameters, or None: saved state is refused when they differ.
        within_groups: Whether a score means nothing but beside those of other completions to the same prompt.
    """

    range: tuple[float, float] | None = None
    params: BaseModel | None = None
    within_groups: bool = False

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

    def describe(self) -> dict[str, Any]:
        """What its state belongs to, as JSON values: state saved under another description is refused."""
        params = self.params.model_dump(mode="json") if self.params else {}
        return {"kind": type(self).__name__, **params}

    def state_dict(self) -> dict[str, Any]:
        """What must survive a checkpoint, as JSON values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            StateError: The state is not of this normalizer.
        """
        if state:
            raise StateError(f"{type(self).__name__} has no state, and {sorted(state)} was saved")


class Identity(Normalizer):
    """``none``: the score as it is."""

    def normalize(self, values_B: Array, group_B: Labels | None) -> Array:
        return values_B

    def scale(self, values_B: Array, group_B: Labels | None) -> Array:
        return np.ones(len(values_B))


class MinMax(Normalizer):
    """``minmax``: the declared range mapped linearly to [0, 1]."""

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


class Standardizer(Normalizer):
    """A score's distance from the middle of its like, in units of their spread, within limits.

    Attributes:
        params: Have ``clip``, the largest absolute value that comes out, or None; and ``epsilon``, added to the spread.
    """

    params: Any

    @abstractmethod
    def standing(self, values_B: Array, group_B: Labels | None) -> tuple[Array, Array]:
        """(B,) the distances from the middle, and (B,) the spreads."""

    def normalize(self, values_B: Array, group_B: Labels | None) -> Array:
        centred_B, spread_B = self.standing(values_B, group_B)
        return clipped(centred_B / (spread_B + self.params.epsilon), self.params.clip)

    def scale(self, values_B: Array, group_B: Labels | None) -> Array:
        _, spread_B = self.standing(values_B, group_B)
        return scale_of_spread(spread_B, self.params.epsilon)


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
        mean = float(values.mean())
        m2 = float(((values - mean) ** 2).sum())
        count = self.count + values.size
        delta = mean - self.mean
        self.mean += delta * values.size / count
        self.m2 += m2 + delta**2 * self.count * values.size / count
        self.count = count

    def standing(self, values_B: Array, group_B: Labels | None) -> tuple[Array, Array]:
        if not self.count:
            return values_B - values_B, np.zeros(len(values_B))
        return deviations(values_B, self.mean), np.full(len(values_B), math.sqrt(self.m2 / self.count))

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean, "m2": self.m2}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state.keys() != {"count", "mean", "m2"}:
            raise StateError(f"a zscore's state has count, mean and m2; saved was {sorted(state)}")
        self.count, self.mean, self.m2 = int(state["count"]), float(state["mean"]), float(state["m2"])


class GroupZScore(Standardizer):
    """``group_zscore``: mean and standard deviation of the completions to the same prompt, as GRPO does.

    Without groups the whole batch is one group. A group without spread, or with one score, gives 0.
    """

    within_groups = True

    def __init__(self, params: ZScoreParams | None = None) -> None:
        self.params: ZScoreParams = params or ZScoreParams()

    def standing(self, values_B: Array, group_B: Labels | None) -> tuple[Array, Array]:
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


def scale_of_spread(spread_B: Array, epsilon: float) -> Array:
    """One over the spread; 0 where there is none, so that everything is 0 there."""
    scale_B: Array = np.where(spread_B > 0, 1 / (spread_B + epsilon), 0.0)
    return scale_B


def deviations(values_B: Array, mean: Array | float) -> Array:
    """The values less their mean; 0 where that is no more than the mean's rounding, so that equal scores stay equal."""
    centred_B: Array = values_B - mean
    centred_B[np.abs(centred_B) <= ROUNDING * np.abs(mean)] = 0.0
    return centred_B


def clipped(values_B: Array, limit: float | None) -> Array:
    """The values, kept within [-limit, limit] unless that is None."""
    return values_B if limit is None else np.clip(values_B, -limit, limit)
