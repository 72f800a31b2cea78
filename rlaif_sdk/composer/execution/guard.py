"""What the calls of a reward must keep to: its rate limits, budgets, and the breaker that stops them after failures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlaif_sdk.composer.execution.breaker import Breaker
from rlaif_sdk.composer.execution.budget import Budget, Usage, reported_usage
from rlaif_sdk.composer.execution.limits import Entry, RateLimits
from rlaif_sdk.composer.execution.outcome import Raised
from rlaif_sdk.composer.validation import entries_of
from rlaif_sdk.config import ExecutionConfig
from rlaif_sdk.exceptions import ConfigError, RewardError
from rlaif_sdk.types import RewardBatch, Score


@dataclass(frozen=True, slots=True)
class Admitted:
    """A call that was let through: what its texts were taken for."""

    rows: int
    characters: int
    entry: Entry | None


class Guard:
    """Lets the calls of one reward through, and counts what comes of them.

    Args:
        name: The reward's name in the composition.
        execution: Its limits, budget and breaker.
        budgets: Budgets that it shares with others.
    """

    def __init__(self, name: str, execution: ExecutionConfig, budgets: Sequence[Budget]) -> None:
        self.budget = Budget(execution.budget, f"reward {name!r}")
        self._name = name
        self._budgets = (self.budget, *budgets)
        self._limits = RateLimits(execution.limits)
        breaker = execution.breaker
        self._breaker = Breaker(breaker.failures, breaker.cooldown) if breaker else None
        self._metered = self._limits.counts_tokens or any(budget.needs_usage for budget in self._budgets)

    def check(self) -> None:
        """Refuse a call before anything is set up for it.

        Raises:
            BudgetExceededError: A budget is spent.
            RewardError: The breaker is open.
        """
        self._check_budgets()
        if self._breaker:
            self._breaker.check(time.monotonic())

    async def admit(self, batch: RewardBatch, turn: asyncio.Lock) -> Admitted:
        """Wait until the limits let a call through, and count it.

        Args:
            batch: What is to be scored.
            turn: Keeps the calls of the reward in their order.

        Raises:
            BudgetExceededError: A budget is spent.
            RewardError: The breaker is open.
        """
        characters = _characters(batch) if self._limits.counts_tokens else 0
        entry = await self._limits.acquire(characters, turn)
        self._check_budgets()
        if self._breaker:
            self._breaker.admit(time.monotonic())
        for budget in self._budgets:
            budget.charge(Usage(calls=1))
        return Admitted(len(batch), characters, entry)

    def answered(self, call: Admitted, answer: Any) -> None:
        """Charge what an answer took, and tell the breaker of it: one in which every row failed is a failure.

        Raises:
            ConfigError: It has scores, none reports its usage, and there are limits on tokens or money.
            RewardOutputError: It is no list of an entry a row.
        """
        if not (self._breaker or self._metered):
            return
        entries = entries_of(answer, call.rows)
        if self._metered:
            self._limits.correct(call.entry, self._charge(entries), call.characters)
        if self._breaker:
            errors = [entry.error for entry in entries if isinstance(entry, Score) and entry.error is not None]
            if errors and len(errors) == len(entries):
                self._breaker.failed(errors[0], time.monotonic())
            else:
                self._breaker.succeeded()

    def failed(self, error: Raised | RewardError) -> None:
        """Tell the breaker of a call that failed."""
        if self._breaker:
            cause = error.cause if isinstance(error, Raised) else error
            problem = error.message if isinstance(error, RewardError) else f"{type(cause).__name__}: {cause}"
            self._breaker.failed(problem, time.monotonic())

    def _check_budgets(self) -> None:
        for budget in self._budgets:
            budget.check()

    def _charge(self, entries: Sequence[Any]) -> float:
        """Charge what the scores report, and return the tokens."""
        usage = reported_usage(entries)
        if usage is None:
            if any(entry is not None and getattr(entry, "value", entry) is not None for entry in entries):
                raise ConfigError(
                    f"reward {self._name!r} has limits on tokens or money, and does not report its usage",
                    hint='Score.details["usage"] = {"tokens": 120, "cost": 0.002}',
                )
            return 0.0
        for budget in self._budgets:
            budget.charge(usage)
        return usage.tokens


def _characters(batch: RewardBatch) -> int:
    return sum(map(len, batch.prompt_texts)) + sum(map(len, batch.completion_texts))
