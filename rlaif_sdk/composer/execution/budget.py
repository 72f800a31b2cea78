"""Budgets: what a run may spend on calls, tokens and money."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import BudgetExceededError, RewardOutputError, StateError
from rlaif_sdk.types import Score

if TYPE_CHECKING:
    from rlaif_sdk.config import BudgetConfig


@dataclass(frozen=True, slots=True)
class Usage:
    """What calls took.

    Attributes:
        calls: How many there were.
        tokens: Tokens, as the reward reports them.
        cost: Money, in the reward's currency.
    """

    calls: int = 0
    tokens: float = 0.0
    cost: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.calls + other.calls, self.tokens + other.tokens, self.cost + other.cost)


class Budget:
    """Limits on what may be spent, and what has been.

    A call is begun only while every limit has something left; what the calls under way at that moment take in tokens and
    money is spent beyond it.
    """

    def __init__(self, config: BudgetConfig, name: str) -> None:
        self.limits = {"calls": config.calls, "tokens": config.tokens, "cost": config.cost}
        self.name = name
        self.spent = Usage()

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit at all."""
        return any(limit is not None for limit in self.limits.values())

    @property
    def needs_usage(self) -> bool:
        """Whether it can be kept only if rewards report their usage."""
        return self.limits["tokens"] is not None or self.limits["cost"] is not None

    def check(self) -> None:
        """Refuse a further call when the budget is spent.

        Raises:
            BudgetExceededError: A limit is reached.
        """
        for what, limit in self.limits.items():
            if limit is not None and getattr(self.spent, what) >= limit:
                raise BudgetExceededError(
                    f"the budget of {self.name} is spent: {getattr(self.spent, what):g} of {limit:g} {what}",
                    hint="raise the budget and resume from the last checkpoint",
                )

    def charge(self, usage: Usage) -> None:
        """Add what was spent."""
        self.spent += usage

    def state_dict(self) -> dict[str, Any]:
        """What has been spent, as JSON values."""
        return asdict(self.spent)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what had been spent.

        Raises:
            StateError: The state is not of a budget.
        """
        if state.keys() != asdict(self.spent).keys():
            raise StateError(f"a budget's state has calls, tokens and cost; saved was {sorted(state)}")
        self.spent = Usage(int(state["calls"]), float(state["tokens"]), float(state["cost"]))


def reported_usage(entries: Sequence[Any]) -> Usage | None:
    """The sum of ``details["usage"]`` over the scores that report it, or None if none does.

    Raises:
        RewardOutputError: A usage is no mapping, or ``tokens`` or ``cost`` no number of at least 0.
    """
    found = [entry.details["usage"] for entry in entries if isinstance(entry, Score) and "usage" in entry.details]
    if not found:
        return None
    for usage in found:
        if not isinstance(usage, Mapping):
            raise RewardOutputError(f"reports the usage {usage!r}", hint='use {"tokens": 120, "cost": 0.002}')
    return Usage(0, sum(_amount(usage, "tokens") for usage in found), sum(_amount(usage, "cost") for usage in found))


def _amount(usage: Mapping[str, Any], what: str) -> float:
    value = usage.get(what, 0.0)
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise RewardOutputError(f"reports {what} as {value!r} in its usage", hint="report a number of at least 0")
    return float(value)
