"""The calls behind a composition: every reward at once, and a fallback on the rows where one has failed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.ledger import Ledger
from rlaif_sdk.composer.ledger.cache import RewardOrigin, UnidentifiedError
from rlaif_sdk.config import BudgetConfig
from rlaif_sdk.exceptions import ConfigError, ConversationError, RewardError
from rlaif_sdk.rewards import FunctionReward, Reward, ScoreLike, require_columns
from rlaif_sdk.scoring import (
    Budget,
    CallResult,
    CallResults,
    CheckedScores,
    Runner,
    check_entries,
    described,
    run_all,
    set_up_all,
    start_all,
    wait_all,
)
from rlaif_sdk.scoring.results import is_program_error, raised_at
from rlaif_sdk.types import RewardBatch, Score

_SINGLE_ROWS = 4
"""Rows that come one by one, as some trainers send them, and all fail, before that counts like a whole batch."""


@dataclass(frozen=True, slots=True)
class StartedCalls:
    """The calls of a batch.

    Attributes:
        batch: The rows that can be read.
        here: The rewards that are called where the batch is finished.
        elsewhere: The results of the others, which have begun; None if there are none.
    """

    batch: RewardBatch
    here: Sequence[str]
    elsewhere: Future[CallResults] | None

    def cancel(self) -> None:
        """Give up the calls that have begun."""
        if self.elsewhere is not None:
            self.elsewhere.cancel()


class Calls:
    """Calls the rewards of a composition.

    Args:
        components: The rewards by name.
        fallbacks: Those that are asked where they fail, by name.
        budget: What all may spend together.
        ledger: Keeps their scores.
    """

    def __init__(
        self,
        components: Mapping[str, Component],
        fallbacks: Mapping[str, Component],
        budget: BudgetConfig,
        ledger: Ledger | None,
    ) -> None:
        self._components = components
        self._fallbacks = fallbacks
        self._budget = Budget(budget, "the composition")
        self._ledger = ledger
        self.runners = {name: self._runner(name, part) for name, part in components.items()}
        self._unproven = {name: 0 for name, part in components.items() if part.failure.fail_fast}
        self._fallback_runners = {name: self._runner(name, part) for name, part in fallbacks.items()}

    def _runner(self, name: str, part: Component) -> Runner:
        return Runner(
            name,
            part.reward,
            timeout=part.timeout,
            setup_timeout=part.setup_timeout,
            execution=part.execution,
            recipe=part.recipe,
            budgets=[self._budget],
            cache=self._ledger.reward_cache(name, part) if self._ledger else None,
        )

    @property
    def kept(self) -> tuple[str, ...]:
        """The rewards and fallbacks whose scores the ledger keeps."""
        runners = {**self.runners, **self._fallback_runners}
        return tuple(name for name, runner in runners.items() if runner.keeps_scores)

    def check(self, batch: RewardBatch) -> None:
        """Check that a batch has what every reward reads.

        Raises:
            BatchError: A reward misses a column.
        """
        for name, part in (*self._components.items(), *self._fallbacks.items()):
            require_columns(part.reward, batch, name, part.columns, place=part.place)

    def set_up(self) -> None:
        """Make every reward and fallback ready.

        Raises:
            RlaifError: One did not become ready.
        """
        set_up_all([*self.runners.values(), *self._fallback_runners.values()])

    def identities(self) -> dict[str, Any]:
        """What the scores of each reward and fallback depend on beside the row, once all are set up; JSON-ready.

        Raises:
            UnidentifiedError: Nothing tells a reward from others like it, or its scores are never to be kept.
        """
        found = {}
        runners = self.runners | self._fallback_runners
        for name, part in (*self._components.items(), *self._fallbacks.items()):
            if not (part.cache and part.reward.cacheable):
                raise UnidentifiedError(f"reward {name!r} is not to be cached")
            try:
                key = RewardOrigin(part).cache_key(runners[name].stated)
            except UnidentifiedError as error:
                raise UnidentifiedError(f"nothing tells reward {name!r} from others like it: {error}") from None
            found[name] = [asdict(key), dict(part.columns)]
        return found

    def start(self, batch: RewardBatch, *, here: bool) -> StartedCalls:
        """Begin to call the rewards.

        Args:
            batch: What is to be scored.
            here: Whether `finish` follows in this thread, so that it may call the plain rewards itself.
        """
        readable = [row for row in range(len(batch)) if row not in batch.unreadable] if batch.unreadable else None
        if readable is not None:
            batch = batch.select(readable)
            if not readable:
                return StartedCalls(batch, (), None)
        short = [name for name, runner in self.runners.items() if runner.is_short] if here else []
        others = {name: runner for name, runner in self.runners.items() if name not in short}
        if not others:
            return StartedCalls(batch, short, None)
        batches = {name: batch.with_columns(self._components[name].columns) for name in others}
        return StartedCalls(batch, short, start_all(others, batches))

    def finish(self, batch: RewardBatch, started: StartedCalls) -> tuple[dict[str, CheckedScores], dict[str, float]]:
        """Call the plain rewards, and wait for those that were started.

        Returns:
            What each reward said, or its fallback in its place, checked; and the seconds that its call took.

        Raises:
            RlaifError: A reward failed in a way that no policy covers; the others are given up.
        """
        results: CallResults = {}
        try:
            for name in started.here:
                part = self._components[name]
                results[name] = self.runners[name].score_here(started.batch.with_columns(part.columns))
        except BaseException:
            started.cancel()
            raise
        if started.elsewhere is not None:
            results |= wait_all(started.elsewhere)
        if batch.unreadable:
            nothing = CallResult(0.0, answer=[])
            results = {name: _with_unreadable(results.get(name, nothing), batch) for name in self.runners}
        scores = {name: _checked(results[name], batch, part.reward) for name, part in self._components.items()}
        if self._fallbacks:
            scores |= self._fall_back(batch, scores)
        for name in list(self._unproven):
            self._prove(name, scores[name], batch)
        return scores, {name: result.seconds for name, result in results.items()}

    def _prove(self, name: str, scores: CheckedScores, batch: RewardBatch) -> None:
        """Take a reward that has not answered yet for broken if it fails altogether, or as a wrong program does.

        Raises:
            RewardError: It is; whatever its policy, since that would go on for the whole run.
        """
        unread = batch.unreadable.keys()
        rows, failed = len(scores.raw) - len(unread), len(scores.failures.keys() - unread)
        if not rows:
            return
        is_wrong = scores.error is not None and is_program_error(scores.error)
        if failed < rows and not is_wrong:
            self._unproven.pop(name, None)
            return
        row = min(scores.failures.keys() - unread)
        where = f"first on row {row + 1} of the batch"
        if rows == 1:
            failed = rows = self._unproven[name] = self._unproven.get(name, 0) + 1
            if rows < _SINGLE_ROWS and not is_wrong:
                return
            if rows > 1:
                where = "each a batch of its own, the last time"
        problem = scores.failures[row]
        if scores.error and problem == described(scores.error) and (place := raised_at(scores.error)):
            problem += f", at {place}"
        hint = (
            "a reward must answer once before its failure policy holds; 'fail_fast: false' under its on_failure lets the "
            "policy hold from the start"
        )
        reward = self._components[name].reward
        if isinstance(reward, FunctionReward) and reward.reads_messages and not isinstance(batch.completions[row], str):
            hint = f"completions are lists of messages here: a function that names completion_texts gets their text; {hint}"
        raise RewardError(
            f"failed on {failed} of {rows} rows before it ever scored one, {where}: {problem}", reward=name, hint=hint
        ) from scores.error

    def _fall_back(self, batch: RewardBatch, scores: Mapping[str, CheckedScores]) -> dict[str, CheckedScores]:
        """The scores of the rewards that have a fallback, with its scores where they failed."""
        named = {name: part.fallback for name, part in self._components.items() if part.fallback is not None}
        rows = {name: sorted(scores[name].failures.keys() - batch.unreadable.keys()) for name in named}
        asked = {name: batch.select(failed) for name, failed in rows.items() if failed}
        if not asked:
            return {name: with_fallback(scores[name], [], None, fallback) for name, fallback in named.items()}
        results = run_all(
            {name: self._fallback_runners[named[name]] for name in asked},
            {name: seen.with_columns(self._fallbacks[named[name]].columns) for name, seen in asked.items()},
        )
        others = {
            name: _checked(result, asked[name], self._fallbacks[named[name]].reward) for name, result in results.items()
        }
        return {
            name: with_fallback(scores[name], rows[name], others.get(name), fallback)
            for name, fallback in named.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """What has been spent of each budget that has a limit, as JSON values."""
        return {name: budget.state_dict() for name, budget in self._budgets().items()}

    def load_state_dict(self, spent: Mapping[str, Any]) -> None:
        """Resume from what had been spent.

        Raises:
            StateError: A part of the state is not of a budget.
        """
        for name, budget in self._budgets().items():
            if name in spent:
                budget.load_state_dict(spent[name])

    def _budgets(self) -> dict[str, Budget]:
        """The budgets that have a limit: of rewards and fallbacks by name, and that of all under ``""``."""
        runners = (*self.runners.items(), *self._fallback_runners.items())
        budgets = {name: runner.budget for name, runner in runners} | {"": self._budget}
        return {name: budget for name, budget in budgets.items() if budget.is_limited}

    def close(self) -> None:
        """Close the rewards and end their threads and processes; what is under way is given up."""
        for runner in (*self.runners.values(), *self._fallback_runners.values()):
            runner.close()


def _with_unreadable(result: CallResult, batch: RewardBatch) -> CallResult:
    """The result for all rows of a batch, given that for those that can be read."""
    if result.answer is None:
        return result
    asked = [row for row in range(len(batch)) if row not in batch.unreadable]
    entries: list[ScoreLike] = [None] * len(batch)
    for row, refusal in batch.unreadable.items():
        entries[row] = Score.failed(_why_unreadable(refusal))
    for row, entry in zip(asked, result.answer, strict=True):
        entries[row] = entry
    cached = None
    if result.cached is not None:
        cached = np.zeros(len(batch), dtype=bool)
        cached[asked] = result.cached
    return replace(result, answer=entries, cached=cached)


def _why_unreadable(error: ConversationError) -> str:
    """Which side and message, and why; the row is the one that the failure is of."""
    message = "" if error.index is None else f"message {error.index + 1}: "
    return f"the {error.part} cannot be read: {message}{error.message}"


def _checked(result: CallResult, batch: RewardBatch, reward: Reward) -> CheckedScores:
    rows, error = len(batch), result.error
    if result.answer is not None:
        scores = check_entries(result.answer, reward.range, batch.completion_ids)
        cached = None if result.cached is None else result.cached & ~np.isnan(scores.raw)
        return replace(scores, cached=cached, error=error)
    assert error is not None
    return CheckedScores(np.full(rows, np.nan), dict.fromkeys(range(rows), described(error)), (), error)


def check_fallbacks(components: Mapping[str, Component], fallbacks: Mapping[str, Component]) -> None:
    """Check that each fallback that a reward names is there and speaks in the same units.

    Raises:
        ConfigError: It is not, or does not; or nobody names it.
    """
    for name, component in components.items():
        if component.fallback is None:
            continue
        key = f"rewards.{name}.fallback"
        if component.fallback not in fallbacks:
            known = ", ".join(fallbacks) or "none"
            raise ConfigError(f"there is no fallback {component.fallback!r}", key=key, hint=f"fallbacks: {known}")
        own, other = component.reward, fallbacks[component.fallback].reward
        if (own.range, own.higher_is_better) != (other.range, other.higher_is_better):
            raise ConfigError(
                f"the range {own.range} and that of its fallback, {other.range}, or their directions differ",
                key=key,
                hint="a fallback's scores must mean the same",
            )
    for name in fallbacks:
        if name in components:
            raise ConfigError("a reward has the same name", key=f"fallbacks.{name}")
        if all(component.fallback != name for component in components.values()):
            raise ConfigError("no reward names this fallback", key=f"fallbacks.{name}")


def with_fallback(
    scores: CheckedScores, rows: Sequence[int], other: CheckedScores | None, fallback: str
) -> CheckedScores:
    """A reward's scores, with its fallback's where it failed.

    Args:
        scores: What the reward said of B rows.
        rows: The rows on which it failed.
        other: What the fallback said of those rows, in their order; None if there are none.
        fallback: The fallback's name.
    """
    if other is None:
        return replace(scores, fallback_reasons={})
    raw = scores.raw.copy()
    failures = dict(scores.failures)
    reasons: dict[int, str] = {}
    entries = list(scores.entries) or [None] * len(raw)
    tokens = dict(scores.tokens)
    for index, row in enumerate(rows):
        if not math.isnan(other.raw[index]):
            raw[row] = other.raw[index]
            entries[row] = other.entries[index]
            if index in other.tokens:
                tokens[row] = other.tokens[index]
            reasons[row] = f"fallback {fallback!r}: {failures.pop(row)}"
        else:
            problem = other.failures.get(index, "abstains")
            failures[row] = f"{failures[row]}; its fallback {fallback!r}: {problem}"
    return replace(
        scores,
        raw=raw,
        failures=failures,
        entries=entries,
        error=scores.error if failures else None,
        fallback_reasons=reasons,
        tokens=tokens,
    )
