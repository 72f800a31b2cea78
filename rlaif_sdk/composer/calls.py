"""The calls behind a composition: every reward at once, and a fallback on the rows where one has failed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from rlaif_sdk.composer.asking import Asking
from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.conditions import AskedRows, ask, joined, scattered
from rlaif_sdk.composer.ledger import Ledger
from rlaif_sdk.composer.ledger.cache import RewardOrigin, UnidentifiedError
from rlaif_sdk.composer.stages import check_columns, in_order, rewards_looked_at
from rlaif_sdk.config import BudgetConfig
from rlaif_sdk.exceptions import ConfigError, ConversationError, RewardError
from rlaif_sdk.rewards import FunctionReward, Reward
from rlaif_sdk.scoring import (
    Budget,
    CallResult,
    CheckedScores,
    Runner,
    check_entries,
    described,
    set_up_all,
    start,
    together,
    wait,
)
from rlaif_sdk.scoring.results import is_program_error, raised_at
from rlaif_sdk.types import RewardBatch

_SINGLE_ROWS = 4
"""Rows that come one by one, as some trainers send them, and all fail, before that counts like a whole batch."""
_NOT_CALLED = CallResult(0.0, answer=[])


class RewardResult(NamedTuple):
    """What came of one reward, or of its fallback in its place.

    Attributes:
        scores: What it said of each row, checked.
        seconds: How long its call took.
        asked: The rows that it was asked about; None where it has no condition.
    """

    scores: CheckedScores
    seconds: float
    asked: AskedRows | None = None


@dataclass(frozen=True, slots=True)
class StartedCalls:
    """The calls of a batch.

    Attributes:
        batch: The rows that can be read.
        here: The rewards that are called where the batch is finished, in that order.
        promised: The answers that these will have given, where conditions of the others look at them.
        elsewhere: The answers of the others, which have begun; None if there are none.
    """

    batch: RewardBatch
    here: Sequence[str]
    promised: Mapping[str, Future[RewardResult]]
    elsewhere: Future[dict[str, RewardResult]] | None

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
        asking: Begins the waves in which the reward with an ``ask`` is asked, given what the others said and the rows that
            its conditions let it be asked about.
    """

    def __init__(
        self,
        components: Mapping[str, Component],
        fallbacks: Mapping[str, Component],
        budget: BudgetConfig,
        ledger: Ledger | None,
        asking: Callable[[RewardBatch, Mapping[str, CheckedScores], Sequence[int]], Asking],
    ) -> None:
        self._components = components
        self._fallbacks = fallbacks
        self._budget = Budget(budget, "the composition")
        self._ledger = ledger
        self._asking = asking
        self.runners = {name: self._runner(name, part) for name, part in components.items()}
        self._unproven = {name: 0 for name, part in components.items() if part.failure.fail_fast}
        self._fallback_runners = {name: self._runner(name, part) for name, part in fallbacks.items()}
        self._order = in_order(components)
        self._looks_at = rewards_looked_at(components)
        self._looked_at = {other for others in self._looks_at.values() for other in others}

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
        """Check that a batch has what every reward and condition reads.

        Raises:
            BatchError: One misses a column.
        """
        check_columns({**self._components, **self._fallbacks}, batch)

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
        if batch.unreadable:
            batch = batch.select(_readable(batch))
        short = self._short() if here else []
        others = [name for name in self._order if name not in short]
        if not others:
            return StartedCalls(batch, short, {}, None)
        promised: dict[str, Future[RewardResult]] = {}
        for name in short:
            if name in self._looked_at:
                promised[name] = Future()
                promised[name].set_running_or_notify_cancel()  # nobody who waits for it can cancel it
        return StartedCalls(batch, short, promised, start(self._score_all(others, batch, promised)))

    def _short(self) -> list[str]:
        """The plain rewards whose conditions look at such ones only, in order."""
        if not self._looked_at:
            return [name for name, runner in self.runners.items() if runner.is_short]
        found: list[str] = []
        for name in self._order:
            waits = name in self._looked_at and self._components[name].fallback is not None
            is_here = self.runners[name].is_short and self._components[name].ask is None
            if is_here and not waits and all(other in found for other in self._looks_at[name]):
                found.append(name)
        return found

    async def _score_all(
        self, names: Sequence[str], batch: RewardBatch, promised: Mapping[str, Future[RewardResult]]
    ) -> dict[str, RewardResult]:
        """Ask rewards, each as soon as those have answered that its conditions look at."""
        answers: dict[str, asyncio.Future[RewardResult]] = {
            name: asyncio.wrap_future(answer) for name, answer in promised.items()
        }
        for name in names:
            looked_at = {other: answers[other] for other in self._looks_at[name]}
            answers[name] = asyncio.ensure_future(self._score(name, batch, looked_at))
        return await together({name: answers[name] for name in names})

    async def _score(
        self, name: str, batch: RewardBatch, looked_at: Mapping[str, asyncio.Future[RewardResult]]
    ) -> RewardResult:
        """Ask one reward, and its fallback where it fails."""
        others = {other: await answer for other, answer in looked_at.items()}
        seen, asked = self._seen(name, batch, others)
        if self._components[name].ask is not None:
            return await self._score_in_waves(name, batch, others, asked)
        is_called = asked is None or bool(asked.rows)
        return _answer(*await self._called(name, seen, is_called=is_called), asked, batch)

    async def _called(
        self, name: str, seen: RewardBatch, *, is_called: bool = True
    ) -> tuple[CheckedScores, CallResult]:
        """What a reward, and its fallback where it fails, says of rows that it is asked about."""
        part = self._components[name]
        result = await self.runners[name].score(seen.with_columns(part.columns)) if is_called else _NOT_CALLED
        scores = _checked(result, seen, part.reward)
        if part.fallback is not None:
            scores = await self._fall_back(name, scores, seen)
        return scores, result

    async def _score_in_waves(
        self, name: str, batch: RewardBatch, others: Mapping[str, RewardResult], conditions: AskedRows | None
    ) -> RewardResult:
        """Ask a reward about the rows where its answer matters, a wave at a time."""
        rows = range(len(batch)) if conditions is None else conditions.rows
        asking = self._asking(batch, {other: answer.scores for other, answer in others.items()}, rows)
        order: list[int] = []
        waves: list[CheckedScores] = []
        seconds = 0.0
        while wave := asking.next_rows():
            scores, result = await self._called(name, batch.select(wave))
            asking.tell(wave, scores.raw)
            order += wave
            waves.append(scores)
            seconds += result.seconds
        imputed = asking.imputed()
        asked = AskedRows(
            sorted(order),
            {**(conditions.not_asked if conditions else {}), **{row: one.reason for row, one in imputed.items()}},
            conditions.failures if conditions else {},
        )
        scores = scattered(
            joined(waves),
            order,
            len(batch),
            failures=asked.failures,
            not_asked=dict(sorted(asked.not_asked.items())),
            imputed=imputed,
        )
        return RewardResult(scores, seconds, asked)

    def _seen(
        self, name: str, batch: RewardBatch, answers: Mapping[str, RewardResult]
    ) -> tuple[RewardBatch, AskedRows | None]:
        """The rows that a reward is asked about."""
        conditions = self._components[name].when
        if not conditions:
            return batch, None
        asked = ask(conditions, batch, {other: answer.scores for other, answer in answers.items()})
        return (batch if len(asked.rows) == len(batch) else batch.select(asked.rows)), asked

    def finish(self, batch: RewardBatch, started: StartedCalls) -> tuple[dict[str, CheckedScores], dict[str, float]]:
        """Call the plain rewards in this thread, then the fallbacks of those that failed; and wait for the others.

        Returns:
            What each reward said, or its fallback in its place, checked; and the seconds that its call took.

        Raises:
            RlaifError: A reward failed in a way that no policy covers; the others are given up.
        """
        readable = started.batch
        answers: dict[str, RewardResult] = {}
        failed = {}
        try:
            for name in started.here:
                part = self._components[name]
                seen, asked = self._seen(name, readable, answers)
                is_called = asked is None or asked.rows
                result = self.runners[name].score_here(seen.with_columns(part.columns)) if is_called else _NOT_CALLED
                scores = _checked(result, seen, part.reward)
                if part.fallback is not None:
                    if scores.failures:
                        failed[name] = scores, seen, result, asked
                        continue
                    scores = with_fallback(scores, [], None, part.fallback)
                answers[name] = _answer(scores, result, asked, readable)
                if name in started.promised:
                    started.promised[name].set_result(answers[name])
            if failed:
                calls = {name: self._fall_back(name, scores, seen) for name, (scores, seen, *_) in failed.items()}
                for name, mended in wait(start(together(calls))).items():
                    answers[name] = _answer(mended, *failed[name][2:], readable)
        except BaseException:
            started.cancel()
            raise
        if started.elsewhere is not None:
            later: dict[str, RewardResult] = wait(started.elsewhere)
            answers |= later
        return self._all_rows(batch, answers), {name: answer.seconds for name, answer in answers.items()}

    def _all_rows(self, batch: RewardBatch, answers: Mapping[str, RewardResult]) -> dict[str, CheckedScores]:
        """What each reward said of all rows, given that of the rows that can be read.

        Raises:
            RewardError: One is broken, see `_prove`.
        """
        place = _readable(batch) if batch.unreadable else range(len(batch))
        for name in list(self._unproven):
            self._prove(name, answers[name], batch, place)
        scores = {name: answers[name].scores for name in self._components}
        if not batch.unreadable:
            return scores
        unreadable = {row: _why_unreadable(error) for row, error in batch.unreadable.items()}
        return {name: scattered(said, place, len(batch), failures=unreadable) for name, said in scores.items()}

    def _prove(self, name: str, answer: RewardResult, batch: RewardBatch, place: Sequence[int]) -> None:
        """Take a reward that has not answered yet for broken if it fails altogether, or as a wrong program does.

        Args:
            name: The reward's name.
            answer: What came of it.
            batch: The batch.
            place: The rows of the batch that can be read, which the answer is of.

        Raises:
            RewardError: It is; whatever its policy, since that would last for the whole run.
        """
        scores = answer.scores
        asked = range(len(scores.raw)) if answer.asked is None else answer.asked.rows
        failures = [row for row in asked if row in scores.failures]
        rows, failed = len(asked), len(failures)
        if not rows:
            return
        is_wrong = scores.error is not None and is_program_error(scores.error)
        if failed < rows and not is_wrong:
            self._unproven.pop(name, None)
            return
        row = place[failures[0]]
        where = f"first on row {row + 1} of the batch"
        if rows == 1:
            failed = rows = self._unproven[name] = self._unproven.get(name, 0) + 1
            if rows < _SINGLE_ROWS and not is_wrong:
                return
            if rows > 1:
                where = "each a batch of its own, the last time"
        problem = scores.failures[failures[0]]
        if scores.error and problem == described(scores.error) and (raised := raised_at(scores.error)):
            problem += f", at {raised}"
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

    async def _fall_back(self, name: str, scores: CheckedScores, batch: RewardBatch) -> CheckedScores:
        """The scores of a reward that has a fallback, with its scores where it failed."""
        fallback = self._components[name].fallback
        assert fallback is not None
        rows = sorted(scores.failures)
        if not rows:
            return with_fallback(scores, [], None, fallback)
        part, failed = self._fallbacks[fallback], batch.select(rows)
        result = await self._fallback_runners[fallback].score(failed.with_columns(part.columns))
        return with_fallback(scores, rows, _checked(result, failed, part.reward), fallback)

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


def _answer(scores: CheckedScores, result: CallResult, asked: AskedRows | None, batch: RewardBatch) -> RewardResult:
    """What came of a reward, given its scores for the rows that it was asked about."""
    if asked is not None:
        scores = scattered(scores, asked.rows, len(batch), failures=asked.failures, not_asked=asked.not_asked)
    return RewardResult(scores, result.seconds, asked)


def _readable(batch: RewardBatch) -> list[int]:
    """The rows that can be read."""
    return [row for row in range(len(batch)) if row not in batch.unreadable]


def _why_unreadable(error: ConversationError) -> str:
    """Which side and message, and why; the row is the one that the failure is of."""
    message = "" if error.index is None else f"message {error.index + 1}: "
    return f"the {error.part} cannot be read: {message}{error.message}"


def _checked(result: CallResult, batch: RewardBatch, reward: Reward) -> CheckedScores:
    rows, error = len(batch), result.error
    if result.answer is not None:
        scores = check_entries(result.answer, reward.range, batch)
        if result.cached is None and error is None:
            return scores
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
        if fallbacks[name].reward.scope == "group":
            raise ConfigError(
                "compares the completions to one prompt, and a fallback is asked only about those that failed",
                key=f"fallbacks.{name}",
                hint="use a reward that scores each completion by itself",
            )
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
    credit = dict(scores.credit)
    for index, row in enumerate(rows):
        if not math.isnan(other.raw[index]):
            raw[row] = other.raw[index]
            entries[row] = other.entries[index]
            if index in other.credit:
                credit[row] = other.credit[index]
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
        credit=credit,
    )
