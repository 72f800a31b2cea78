"""What the calls of a reward must keep to: rate limits, budgets, and the circuit breaker."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

from rlaif_sdk.config import BudgetConfig, ExecutionConfig, LimitsConfig
from rlaif_sdk.exceptions import BudgetExceededError, ConfigError, RewardError, RewardOutputError, StateError
from rlaif_sdk.rewards import ScoreLike
from rlaif_sdk.scoring.results import CallError
from rlaif_sdk.types import RewardBatch, Score

MINUTE = 60.0
CHARACTERS_A_TOKEN = 4.0
"""What a token is taken for until the reward has reported its usage."""


@dataclass(slots=True)
class Entry:
    """An amount taken from a window, and when."""

    time: float
    amount: float


class Window:
    """At most ``limit`` units in any 60 seconds, whatever their spacing.

    An amount above the limit is let through alone: it would otherwise wait for ever.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._entries: deque[Entry] = deque()

    def delay(self, amount: float, now: float) -> float:
        """Seconds until the amount may be taken; 0 if it may be now."""
        while self._entries and self._entries[0].time <= now - MINUTE:
            self._entries.popleft()
        excess = sum(entry.amount for entry in self._entries) + amount - self.limit
        if excess <= 0:
            return 0.0
        wait = 0.0
        for entry in self._entries:
            wait = entry.time + MINUTE - now
            excess -= entry.amount
            if excess <= 0:
                break
        return wait

    def take(self, amount: float, now: float) -> Entry:
        """Take the amount; the entry's ``amount`` may be corrected when the true one is known."""
        entry = Entry(now, amount)
        self._entries.append(entry)
        return entry


class RateLimits:
    """The limits of one reward in one process."""

    def __init__(self, config: LimitsConfig) -> None:
        self._requests = Window(config.requests_per_minute) if config.requests_per_minute else None
        self._tokens = Window(config.tokens_per_minute) if config.tokens_per_minute else None
        self._seen_tokens = 0.0
        self._seen_characters = 0.0

    @property
    def counts_tokens(self) -> bool:
        """Whether a call's tokens matter."""
        return self._tokens is not None

    async def acquire(self, characters: int, lock: asyncio.Lock) -> Entry | None:
        """Wait, in the order of arrival, until a call with texts of that many characters may be made.

        Returns:
            The entry to `correct` when the call has reported its tokens, or None.
        """
        if self._requests is None and self._tokens is None:
            return None
        tokens = self._estimate(characters)
        async with lock:
            while (delay := self._delay(tokens)) > 0:  # noqa: ASYNC110 - it waits for the clock, not for an event
                await asyncio.sleep(delay)
            now = time.monotonic()
            if self._requests is not None:
                self._requests.take(1, now)
            return None if self._tokens is None else self._tokens.take(tokens, now)

    def _delay(self, tokens: float) -> float:
        now = time.monotonic()
        requests = 0.0 if self._requests is None else self._requests.delay(1, now)
        return max(requests, 0.0 if self._tokens is None else self._tokens.delay(tokens, now))

    def _estimate(self, characters: int) -> float:
        if self._seen_tokens and self._seen_characters:
            return characters * self._seen_tokens / self._seen_characters
        return characters / CHARACTERS_A_TOKEN

    def correct(self, entry: Entry | None, tokens: float, characters: int) -> None:
        """Put what a call really took in the place of the estimate, and learn from it."""
        if entry is not None:
            entry.amount = tokens
            self._seen_tokens += tokens
            self._seen_characters += characters


class Breaker:
    """Refuses calls for ``cooldown`` seconds after ``failures`` failed ones in a row.

    After the cool-down one call is let through. If it succeeds, all are again; if it fails, or has not come back when
    another cool-down is over, the next trial is then. (Nygard, "Release It!", 2007.)
    """

    def __init__(self, failures: int, cooldown: float) -> None:
        self.failures = failures
        self.cooldown = cooldown
        self._in_a_row = 0
        self._open_until: float | None = None
        self._last = ""

    def check(self, now: float) -> None:
        """Refuse a call while the breaker is open.

        Raises:
            RewardError: It is.
        """
        if self._open_until is not None and now < self._open_until:
            raise RewardError(
                f"its breaker is open for another {self._open_until - now:.0f} s after {self._in_a_row} failures in a row, "
                f"the last: {self._last}"
            )

    def admit(self, now: float) -> None:
        """Let a call through, unless `check` refuses it; after the cool-down, one alone."""
        self.check(now)
        if self._open_until is not None:
            self._open_until = now + self.cooldown

    def succeeded(self) -> None:
        """A call came back with scores."""
        self._in_a_row = 0
        self._open_until = None

    def failed(self, problem: str, now: float) -> None:
        """A call failed."""
        self._in_a_row += 1
        self._last = problem
        if self._in_a_row >= self.failures:
            self._open_until = now + self.cooldown


@dataclass(frozen=True, slots=True)
class CallUsage:
    """What calls took.

    Attributes:
        calls: How many there were.
        tokens: Tokens, as the reward reports them.
        cost: Money, in the reward's currency.
    """

    calls: int = 0
    tokens: float = 0.0
    cost: float = 0.0

    def __add__(self, other: CallUsage) -> CallUsage:
        return CallUsage(self.calls + other.calls, self.tokens + other.tokens, self.cost + other.cost)


class Budget:
    """Limits on what may be spent, and what has been.

    A call is begun only while every limit has something left; what the calls under way at that moment take in tokens and
    money is spent beyond it.
    """

    def __init__(self, config: BudgetConfig, name: str) -> None:
        self.limits = {"calls": config.calls, "tokens": config.tokens, "cost": config.cost}
        self.name = name
        self.spent = CallUsage()

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

    def charge(self, usage: CallUsage) -> None:
        """Add what was spent."""
        self.spent += usage

    def state_dict(self) -> dict[str, Any]:
        """What has been spent, as JSON values."""
        return asdict(self.spent)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from what had been spent.

        Raises:
            StateError: The state is not of a budget.
        """
        if state.keys() != asdict(self.spent).keys():
            raise StateError(f"a budget's state has calls, tokens and cost; saved was {sorted(state)}")
        self.spent = CallUsage(int(state["calls"]), float(state["tokens"]), float(state["cost"]))


def reported_usage(entries: Sequence[Any]) -> CallUsage | None:
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
    return CallUsage(
        0, sum(_amount(usage, "tokens") for usage in found), sum(_amount(usage, "cost") for usage in found)
    )


def _amount(usage: Mapping[str, Any], what: str) -> float:
    value = usage.get(what, 0.0)
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise RewardOutputError(f"reports {what} as {value!r} in its usage", hint="report a number of at least 0")
    return float(value)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A call that was let through: what its texts were taken for."""

    rows: int
    characters: int
    entry: Entry | None


class CallLimits:
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
        self._rates = RateLimits(execution.limits)
        breaker = execution.breaker
        self._breaker = Breaker(breaker.failures, breaker.cooldown) if breaker else None
        self._metered = self._rates.counts_tokens or any(budget.needs_usage for budget in self._budgets)

    def check(self) -> None:
        """Refuse a call before anything is set up for it.

        Raises:
            BudgetExceededError: A budget is spent.
            RewardError: The breaker is open.
        """
        self._check_budgets()
        if self._breaker:
            self._breaker.check(time.monotonic())

    async def admit(self, batch: RewardBatch, lock: asyncio.Lock) -> Admitted:
        """Wait until the limits let a call through, and count it.

        Args:
            batch: What is to be scored.
            lock: Keeps the calls of the reward in their order.

        Raises:
            BudgetExceededError: A budget is spent.
            RewardError: The breaker is open.
        """
        characters = _characters(batch) if self._rates.counts_tokens else 0
        entry = await self._rates.acquire(characters, lock)
        self._check_budgets()
        if self._breaker:
            self._breaker.admit(time.monotonic())
        for budget in self._budgets:
            budget.charge(CallUsage(calls=1))
        return Admitted(len(batch), characters, entry)

    def answered(self, call: Admitted, entries: Sequence[ScoreLike]) -> None:
        """Charge what an answer took, and tell the breaker of it: one in which every row failed is a failure.

        Raises:
            ConfigError: It has scores, none reports its usage, and there are limits on tokens or money.
        """
        if not (self._breaker or self._metered):
            return
        if self._metered:
            self._rates.correct(call.entry, self._charge(entries), call.characters)
        if self._breaker:
            errors = [entry.error for entry in entries if isinstance(entry, Score) and entry.error is not None]
            if errors and len(errors) == len(entries):
                self._breaker.failed(errors[0], time.monotonic())
            else:
                self._breaker.succeeded()

    def failed(self, error: CallError | RewardError) -> None:
        """Tell the breaker of a call that failed."""
        if self._breaker:
            problem = error.message if isinstance(error, RewardError) else error.text
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
