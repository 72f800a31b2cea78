"""Gates: conditions on one reward's raw score that the whole sum depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from rlaif_sdk.composer.arrays import Array, Mask, is_finite_number
from rlaif_sdk.exceptions import ConfigError

_OnMissing: TypeAlias = Literal["unscored", "floor", "pass"]


@dataclass(frozen=True, slots=True)
class Gate:
    """Where a reward's raw score is outside [min, max], the row's total is at most ``floor``.

    Attributes:
        reward: The reward's name.
        floor: The most that the total of a row can be that does not pass; a total already lower stays, so failing
            the gate never helps a row.
        min: The least raw score that passes, or None.
        max: The greatest raw score that passes, or None.
        on_missing: What becomes of a row without a score: no total, the floor, or as if it passed.

    Raises:
        ConfigError: It has no bound, a floor or bound that is no finite number, or bounds that nothing satisfies.
    """

    reward: str
    floor: float
    min: float | None = None
    max: float | None = None
    on_missing: _OnMissing = "unscored"

    def __post_init__(self) -> None:
        for name in ("floor", "min", "max"):
            value = getattr(self, name)
            if value is not None and not is_finite_number(value):
                raise ConfigError(f"a gate's {name} must be a finite number, not {value!r}", key="gates")
        if self.min is None and self.max is None:
            raise ConfigError("a gate needs min, max or both", key="gates")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ConfigError("a gate's min is greater than its max: nothing would pass", key="gates")
        if self.on_missing not in get_args(_OnMissing):
            raise ConfigError(f"a gate's on_missing is one of {', '.join(get_args(_OnMissing))}", key="gates")

    def closed(self, raw_B: Array) -> Mask:
        """Which rows do not pass; a missing score counts as ``on_missing`` says."""
        low = -np.inf if self.min is None else self.min
        high = np.inf if self.max is None else self.max
        with np.errstate(invalid="ignore"):
            outside_B: Mask = (raw_B < low) | (raw_B > high)
        return outside_B | np.isnan(raw_B) if self.on_missing == "floor" else outside_B

    def apply(self, totals_B: Array, raw_B: Array) -> Array:
        """The totals after this gate."""
        gated_B = np.where(self.closed(raw_B), np.minimum(totals_B, self.floor), totals_B)
        return np.where(np.isnan(raw_B), np.nan, gated_B) if self.on_missing == "unscored" else gated_B

    def __str__(self) -> str:
        bounds = ((">=", self.min), ("<=", self.max))
        return f"{self.reward} {' and '.join(f'{sign} {bound:g}' for sign, bound in bounds if bound is not None)}"
