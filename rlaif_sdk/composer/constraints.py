"""Constraints: a mean that must stay within a bound, held by a multiplier that is learned during training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlaif_sdk.exceptions import ConfigError, StateError
from rlaif_sdk.statistics.arrays import Array, is_finite_number


@dataclass(frozen=True, slots=True)
class Constraint:
    """The mean raw score of a reward must be at most ``max``, or at least ``min``.

    Attributes:
        reward: The reward's name; give it weight 0 if it should enter through the constraint alone.
        max: The most that its mean may be, in its own units, or None.
        min: The least that its mean may be, or None. One of the two is given.
        step_size: How fast the multiplier follows the violation.
        initial: The multiplier at the start, at least 0.
        ceiling: The most that the multiplier may become, or None; it keeps a constraint that cannot be met from
            drowning everything else.
    """

    reward: str
    max: float | None = None
    min: float | None = None
    step_size: float = 0.05
    initial: float = 0.0
    ceiling: float | None = None

    def __post_init__(self) -> None:
        bounds = [bound for bound in (self.min, self.max) if bound is not None]
        if len(bounds) != 1:
            raise ConfigError("a constraint needs 'max' or 'min', and not both", hint="write two constraints for both")
        for value in (*bounds, self.step_size, self.initial):
            if not is_finite_number(value):
                raise ConfigError(f"a constraint is made of finite numbers, not {value!r}")
        if self.step_size <= 0:
            raise ConfigError(f"'step_size' must be greater than 0, not {self.step_size:g}")
        if self.initial < 0:
            raise ConfigError(f"'initial' must be at least 0, not {self.initial:g}")
        if self.ceiling is not None and not self.initial <= self.ceiling:
            raise ConfigError(f"'ceiling' must be at least 'initial', {self.initial:g}, not {self.ceiling:g}")

    @property
    def key(self) -> str:
        """What tells it apart from the other constraints: ``toxicity/max``."""
        return f"{self.reward}/{'min' if self.max is None else 'max'}"

    def violation(self, score: Any) -> Any:
        """How far a score, or an array of them, is beyond the bound; negative within it."""
        return score - self.max if self.max is not None else (self.min or 0.0) - score

    def __str__(self) -> str:
        sign, bound = ("<=", self.max) if self.max is not None else (">=", self.min)
        return f"mean {self.reward} {sign} {bound:g}"


class Multiplier:
    """The Lagrange multiplier of a constraint, learned by projected dual ascent.

    The policy maximises ``total - multiplier * violation``; after each training batch the multiplier becomes
    ``max(0, multiplier + step_size * mean violation)`` (Boyd and Vandenberghe, 2004, chapter 5; as reward shaping,
    Tessler et al., 2019). It rises while the constraint is broken, and falls back to 0 while there is room.
    """

    def __init__(self, constraint: Constraint) -> None:
        self.constraint = constraint
        self.value = constraint.initial

    def penalty(self, raw_B: Array) -> Array:
        """(B,) what a row's total loses, or gains below the bound; NaN where it has no score and the value is above 0."""
        if self.value == 0:
            return np.zeros_like(raw_B)
        penalty_B: Array = self.value * self.constraint.violation(raw_B)
        return penalty_B

    def learn(self, mean: float) -> None:
        """Take a training batch's mean raw score over all ranks; NaN, when nothing was scored, changes nothing."""
        if math.isnan(mean):
            return
        ceiling = math.inf if self.constraint.ceiling is None else self.constraint.ceiling
        ascended = self.value + self.constraint.step_size * self.constraint.violation(mean)
        self.value = float(min(max(ascended, 0.0), ceiling))

    def state_dict(self) -> dict[str, Any]:
        """What must survive a checkpoint, as JSON values."""
        return {"multiplier": self.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a saved state.

        Raises:
            StateError: The state is not of a multiplier.
        """
        if state.keys() != {"multiplier"}:
            raise StateError(f"a constraint's state has its multiplier; saved was {sorted(state)}")
        self.value = float(state["multiplier"])


@dataclass(frozen=True, slots=True, eq=False)
class ConstraintColumn:
    """A constraint's part in a composition of B rows.

    Attributes:
        constraint: The constraint.
        multiplier: The multiplier in force; what this batch teaches takes effect on the next.
        penalty: (B,) what was taken from each row's total.
    """

    constraint: Constraint
    multiplier: float
    penalty: Array
