"""The calls behind a composition: every reward at once, and a fallback on the rows where one has failed."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np

from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.execution import (
    Budget,
    Outcome,
    Outcomes,
    Runner,
    described,
    run_all,
    set_up_all,
    start_all,
    wait_all,
)
from rlaif_sdk.composer.fallback import with_fallback
from rlaif_sdk.composer.ledger import Ledger
from rlaif_sdk.composer.validation import Answer, check_answer, entries_of
from rlaif_sdk.config import BudgetConfig
from rlaif_sdk.exceptions import RewardError
from rlaif_sdk.rewards import Reward, ScoreLike, require_columns
from rlaif_sdk.types import RewardBatch, Score


class Calls:
    """Calls the rewards of a composition.

    Args:
        components: The rewards by name.
        fallbacks: Those that stand in for them, by name.
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
            recall=self._ledger.recall(name, part) if self._ledger else None,
        )

    def check(self, batch: RewardBatch) -> None:
        """Check that a batch has what every reward reads.

        Raises:
            BatchError: A reward misses a column.
        """
        for name, part in (*self._components.items(), *self._fallbacks.items()):
            require_columns(part.reward, batch.with_columns(part.columns), name)

    def set_up(self) -> None:
        """Make every reward and fallback ready.

        Raises:
            RlaifError: One did not become ready.
        """
        set_up_all([*self.runners.values(), *self._fallback_runners.values()])

    def start(self, batch: RewardBatch) -> Future[Outcomes]:
        """Begin to call every reward, with the rows that can be read."""
        rows = [row for row in range(len(batch)) if row not in batch.unreadable]
        if batch.unreadable and not rows:
            return _answered({name: Outcome(0.0, answer=[]) for name in self.runners})
        asked = batch.select(rows) if batch.unreadable else batch
        return start_all(
            self.runners, {name: asked.with_columns(part.columns) for name, part in self._components.items()}
        )

    def answers(self, batch: RewardBatch, calls: Future[Outcomes]) -> tuple[dict[str, Answer], dict[str, float]]:
        """Wait for calls that were started.

        Returns:
            What each reward said, or its fallback in its place, checked; and the seconds that its call took.

        Raises:
            RlaifError: A reward failed in a way that no policy covers.
        """
        outcomes = {name: _with_unreadable(outcome, batch) for name, outcome in wait_all(calls).items()}
        answers = {name: _checked(outcome, batch, self._components[name].reward) for name, outcome in outcomes.items()}
        answers |= self._stand_in(batch, answers)
        return answers, {name: outcome.seconds for name, outcome in outcomes.items()}

    def _stand_in(self, batch: RewardBatch, answers: Mapping[str, Answer]) -> dict[str, Answer]:
        """The answers of the rewards that have a fallback, with its scores where they failed."""
        named = {name: part.fallback for name, part in self._components.items() if part.fallback is not None}
        rows = {name: sorted(answers[name].failures.keys() - batch.unreadable.keys()) for name in named}
        asked = {name: batch.select(failed) for name, failed in rows.items() if failed}
        if not asked:
            return {name: with_fallback(answers[name], [], None, fallback) for name, fallback in named.items()}
        outcomes = run_all(
            {name: self._fallback_runners[named[name]] for name in asked},
            {name: seen.with_columns(self._fallbacks[named[name]].columns) for name, seen in asked.items()},
        )
        others = {
            name: _checked(outcome, asked[name], self._fallbacks[named[name]].reward)
            for name, outcome in outcomes.items()
        }
        return {
            name: with_fallback(answers[name], rows[name], others.get(name), fallback)
            for name, fallback in named.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """What has been spent of each budget that has a limit, as JSON values."""
        return {name: budget.state_dict() for name, budget in self._budgets().items()}

    def load_state_dict(self, spent: Mapping[str, Any]) -> None:
        """Go on from what had been spent.

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


def _answered(outcomes: Outcomes) -> Future[Outcomes]:
    answered: Future[Outcomes] = Future()
    answered.set_result(outcomes)
    return answered


def _with_unreadable(outcome: Outcome, batch: RewardBatch) -> Outcome:
    """The outcome for all rows of a batch, given that for those that can be read."""
    if not batch.unreadable or outcome.answer is None:
        return outcome
    asked = [row for row in range(len(batch)) if row not in batch.unreadable]
    try:
        given = entries_of(outcome.answer, len(asked))
    except RewardError as error:
        return Outcome(outcome.seconds, error=error)
    entries: list[ScoreLike] = [
        Score.failed(f"cannot be read: {batch.unreadable.get(row)}") for row in range(len(batch))
    ]
    for row, entry in zip(asked, given, strict=True):
        entries[row] = entry
    cached = None
    if outcome.cached is not None:
        cached = np.zeros(len(batch), dtype=bool)
        cached[asked] = outcome.cached
    return replace(outcome, answer=entries, cached=cached)


def _checked(outcome: Outcome, batch: RewardBatch, reward: Reward) -> Answer:
    rows = len(batch)
    error: RewardError | None = outcome.error
    if error is None:
        try:
            answer = check_answer(outcome.answer, rows, reward.range, batch.completion_ids)
        except RewardError as refused:
            error = refused
        else:
            cached = None if outcome.cached is None else outcome.cached & ~np.isnan(answer.raw)
            return replace(answer, cached=cached)
    return Answer(np.full(rows, np.nan), dict.fromkeys(range(rows), described(error)), (), error)
