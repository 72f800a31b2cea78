"""Gates: conditions on one reward's raw score that the whole sum depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from rlaif_sdk.composer.conditions import bounds_in_words, check_bounds, outside
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.statistics.arrays import Array, Mask, is_finite_number

_OnMissing: TypeAlias = Literal["unscored", "floor", "pass"]
GateOrder: TypeAlias = Literal["independent", "lexicographic"]


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
        if not is_finite_number(self.floor):
            raise ConfigError(f"a gate's floor must be a finite number, not {self.floor!r}", key="gates")
        check_bounds("a gate", self.min, self.max, "gates")
        if self.on_missing not in get_args(_OnMissing):
            raise ConfigError(f"a gate's on_missing is one of {', '.join(get_args(_OnMissing))}", key="gates")

    def closed(self, raw_B: Array) -> Mask:
        """Which rows do not pass; a missing score counts as ``on_missing`` says."""
        outside_B = outside(raw_B, self.min, self.max)
        return outside_B | np.isnan(raw_B) if self.on_missing == "floor" else outside_B

    def apply(self, totals_B: Array, raw_B: Array) -> Array:
        """The totals after this gate."""
        gated_B = np.where(self.closed(raw_B), np.minimum(totals_B, self.floor), totals_B)
        return np.where(np.isnan(raw_B), np.nan, gated_B) if self.on_missing == "unscored" else gated_B

    def __str__(self) -> str:
        return bounds_in_words(self.reward, self.min, self.max)


def check_gates(gates: Sequence[Gate], order: GateOrder, rewards: Sequence[str]) -> None:
    """Check that gates fit a composition.

    Raises:
        ConfigError: A gate names no reward, the order is unknown, or it is lexicographic and a floor is not above the
            one before.
    """
    if order not in get_args(GateOrder):
        raise ConfigError(f"gate_order is one of {', '.join(get_args(GateOrder))}, not {order!r}", key="gate_order")
    for index, gate in enumerate(gates):
        if gate.reward not in rewards:
            known = ", ".join(rewards)
            raise ConfigError(f"a gate names {gate.reward!r}; there are {known}", key=f"gates.{index}.reward")
        if order == "lexicographic" and index and gate.floor <= gates[index - 1].floor:
            raise ConfigError(
                f"the floor {gate.floor:g} is not above {gates[index - 1].floor:g}, that of the gate before",
                key=f"gates.{index}.floor",
                hint="with gate_order: lexicographic, the first gate matters most and has the lowest floor",
            )


def apply_gates(
    totals_B: Array, gates: Sequence[Gate], order: GateOrder, raw: Mapping[str, Array]
) -> tuple[Array, list[tuple[Gate, Mask]]]:
    """Apply gates in order.

    With the order ``independent`` each gate lowers the rows that do not pass to its floor or below. With
    ``lexicographic`` the first gate that a row does not pass decides: the row's total is kept between that gate's floor
    and halfway down to the floor before, so that it ranks below every row that fails a later gate only; the total of a
    row that passes all is at least the last floor.

    Args:
        totals_B: The totals before.
        gates: The gates, the most important first.
        order: How several gates work together.
        raw: The (B,) raw scores of each reward that a gate names.

    Returns:
        The (B,) totals after, and each gate with the rows that do not pass it.
    """
    closed = [(gate, gate.closed(raw[gate.reward])) for gate in gates]
    if order == "independent":
        for gate in gates:
            totals_B = gate.apply(totals_B, raw[gate.reward])
        return totals_B, closed
    if not gates:
        return totals_B, closed
    failed_GB = np.stack([mask for _, mask in closed])
    first_B = np.where(failed_GB.any(axis=0), failed_GB.argmax(axis=0), len(gates))
    floors = np.array([gate.floor for gate in gates])
    below = np.r_[-np.inf, (floors[:-1] + floors[1:]) / 2, floors[-1]]
    above = np.r_[floors, np.inf]
    ranked_B = np.clip(totals_B, below[first_B], above[first_B])
    unscored_GB = np.stack([np.isnan(raw[gate.reward]) & (gate.on_missing == "unscored") for gate in gates])
    return np.where(unscored_GB.any(axis=0), np.nan, ranked_B), closed
