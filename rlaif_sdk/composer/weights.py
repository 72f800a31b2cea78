"""Weights that change during training: a curve over optimiser steps or episodes, which a metric may set off.

The weight in force is logged with every composition as ``reward/NAME/weight``, so that a change of the reward is not
taken for learning.
"""

from __future__ import annotations

import bisect
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from rlaif_sdk.exceptions import ConfigError, StateError
from rlaif_sdk.statistics.arrays import is_finite_number
from rlaif_sdk.types import Progress


class Curve(ABC):
    """A weight as a function of a position, in optimiser steps or episodes; constant before and after what it names."""

    @abstractmethod
    def at(self, position: float) -> float:
        """The weight at a position; ``-inf`` gives the weight before anything has happened."""

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest weight that it ever gives."""


@dataclass(frozen=True, slots=True)
class _Ramp(Curve):
    start_value: float
    end_value: float
    end: float
    start: float = 0.0

    def __post_init__(self) -> None:
        _require_finite(self.start_value, self.end_value, self.start, self.end)
        if self.end <= self.start:
            raise ConfigError(f"a schedule must end after its start; it starts at {self.start:g}, ends at {self.end:g}")

    def done(self, position: float) -> float:
        """How much of the way is done, in [0, 1]."""
        return min(max((position - self.start) / (self.end - self.start), 0.0), 1.0)

    @property
    def bounds(self) -> tuple[float, float]:
        return min(self.start_value, self.end_value), max(self.start_value, self.end_value)


class Linear(_Ramp):
    """``linear``: from ``start_value`` to ``end_value`` in a straight line between ``start`` and ``end``."""

    __slots__ = ()

    def at(self, position: float) -> float:
        done = self.done(position)
        return (1.0 - done) * self.start_value + done * self.end_value


class Cosine(_Ramp):
    """``cosine``: from ``start_value`` to ``end_value`` along half a cosine between ``start`` and ``end``.

    Slow at both ends, as in Loshchilov and Hutter (2017), equation 5, without restarts.
    """

    __slots__ = ()

    def at(self, position: float) -> float:
        done = (1.0 - math.cos(math.pi * self.done(position))) / 2.0
        return (1.0 - done) * self.start_value + done * self.end_value


@dataclass(frozen=True, slots=True)
class Piecewise(Curve):
    """``piecewise``: straight lines through ``points`` (position, weight), in order of position."""

    points: Sequence[tuple[float, float]]

    def __post_init__(self) -> None:
        _require_ordered(self.points)

    def at(self, position: float) -> float:
        index = bisect.bisect_right(self.points, position, key=lambda point: point[0])
        if index == 0:
            return self.points[0][1]
        if index == len(self.points):
            return self.points[-1][1]
        (left, before), (right, after) = self.points[index - 1 : index + 1]
        done = (position - left) / (right - left)
        return (1.0 - done) * before + done * after

    @property
    def bounds(self) -> tuple[float, float]:
        weights = [weight for _, weight in self.points]
        return min(weights), max(weights)


@dataclass(frozen=True, slots=True)
class Step(Curve):
    """``step``: ``start_value`` until the first of ``points`` (position, weight), then the weight of the last one reached."""

    start_value: float
    points: Sequence[tuple[float, float]]

    def __post_init__(self) -> None:
        _require_finite(self.start_value)
        _require_ordered(self.points)

    def at(self, position: float) -> float:
        index = bisect.bisect_right(self.points, position, key=lambda point: point[0])
        return self.points[index - 1][1] if index else self.start_value

    @property
    def bounds(self) -> tuple[float, float]:
        weights = [self.start_value, *(weight for _, weight in self.points)]
        return min(weights), max(weights)


@dataclass(frozen=True, slots=True)
class Crossing:
    """A reward's mean raw score crossing a value, which sets a schedule off once and for all.

    Attributes:
        reward: The reward's name; it may have weight 0.
        above: The mean must be greater than this, or None.
        below: The mean must be less than this, or None. One of the two is given.
        patience: How many training batches in a row must agree. A batch on which nothing was scored counts neither
            way.
    """

    reward: str
    above: float | None = None
    below: float | None = None
    patience: int = 1

    def __post_init__(self) -> None:
        bounds = [bound for bound in (self.above, self.below) if bound is not None]
        if len(bounds) != 1:
            raise ConfigError("a crossing needs 'above' or 'below', and not both")
        _require_finite(*bounds)
        if self.patience < 1:
            raise ConfigError(f"'patience' must be at least 1, not {self.patience}")

    def holds(self, mean: float) -> bool:
        """Whether a batch's mean is beyond the value."""
        return mean > self.above if self.above is not None else mean < (self.below or 0.0)


class Schedule:
    """A weight that follows a curve.

    Args:
        curve: The weight over positions.
        by: What a position counts: optimiser steps (`Progress.step`), or episodes, the rows of the training batches
            composed before this one, over all ranks.
        trigger: Count from the moment when this happened, and hold the curve's first weight before; None counts from
            the beginning of training.
    """

    def __init__(
        self, curve: Curve, *, by: Literal["step", "episode"] = "step", trigger: Crossing | None = None
    ) -> None:
        self.curve = curve
        self.by = by
        self.trigger = trigger
        self._episodes = 0
        self._streak = 0
        self._since: int | None = None if trigger else 0

    def weight(self, progress: Progress) -> float:
        """The weight in force, from what was observed so far."""
        return self.curve.at(-math.inf if self._since is None else self._now(progress) - self._since)

    def observe(self, means: Mapping[str, float], rows: int, progress: Progress) -> None:
        """Take note of a training batch.

        Args:
            means: Each reward's mean raw score over all ranks, NaN where nothing was scored.
            rows: The rows of the batch on all ranks.
            progress: How far training is.
        """
        self._episodes += rows
        if self.trigger is None or self._since is not None or math.isnan(means[self.trigger.reward]):
            return
        self._streak = self._streak + 1 if self.trigger.holds(means[self.trigger.reward]) else 0
        if self._streak >= self.trigger.patience:
            self._since = self._now(progress)

    def _now(self, progress: Progress) -> int:
        return progress.step if self.by == "step" else self._episodes

    def state_dict(self) -> dict[str, Any]:
        """What must survive a checkpoint, as JSON values."""
        return {"episodes": self._episodes, "streak": self._streak, "since": self._since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a saved state.

        Raises:
            StateError: The state is not of a schedule.
        """
        if state.keys() != {"episodes", "streak", "since"}:
            raise StateError(f"a schedule's state has episodes, streak and since; saved was {sorted(state)}")
        self._episodes, self._streak, self._since = state["episodes"], state["streak"], state["since"]

    def __repr__(self) -> str:
        return f"Schedule({self.curve}, by={self.by!r}, trigger={self.trigger})"


Weight: TypeAlias = float | Schedule


def weight_bounds(weight: Weight) -> tuple[float, float]:
    """The least and the greatest value that a weight ever has.

    Raises:
        ConfigError: A constant weight is no finite number.
    """
    if isinstance(weight, Schedule):
        return weight.curve.bounds
    if not is_finite_number(weight):
        raise ConfigError(f"a weight must be a finite number or a Schedule, not {weight!r}")
    return float(weight), float(weight)


def current_weight(weight: Weight, progress: Progress) -> float:
    """The weight in force."""
    return weight.weight(progress) if isinstance(weight, Schedule) else float(weight)


def _require_finite(*values: float) -> None:
    for value in values:
        if not is_finite_number(value):
            raise ConfigError(f"a schedule is made of finite numbers, not {value!r}")


def _require_ordered(points: Sequence[tuple[float, float]]) -> None:
    if not points:
        raise ConfigError("a schedule needs at least one point")
    _require_finite(*(value for point in points for value in point))
    for (left, _), (right, _) in itertools.pairwise(points):
        if right <= left:
            raise ConfigError(f"the points of a schedule must be in order; {right:g} comes after {left:g}")
