"""Budgets of calls, tokens and money, and runs that go on after one is spent."""

from __future__ import annotations

import pytest

from rlaif_sdk import Composer, ConfigError, RewardBatch, Score
from rlaif_sdk.composer import Component, FailurePolicy
from rlaif_sdk.composer.normalizers import ZScore
from rlaif_sdk.config import BudgetConfig, ExecutionConfig
from rlaif_sdk.exceptions import BudgetExceededError, RewardOutputError, RlaifError, StateError
from rlaif_sdk.scoring import limits
from rlaif_sdk.scoring.limits import Budget, CallUsage, reported_usage


def rows(first: int, count: int = 4) -> RewardBatch:
    return RewardBatch(["p"] * count, [str(first + row) for row in range(count)])


class Paid:
    """Costs 10 tokens and 0.5 a row, and scores the number in the completion."""

    def __init__(self) -> None:
        self.calls = 0

    def score(self, batch: RewardBatch) -> list[Score]:
        self.calls += 1
        usage = {"tokens": 10, "cost": 0.5}
        return [Score(float(text), details={"usage": usage}) for text in batch.completion_texts]


def composer_of(reward: object, whole: dict[str, float] | None = None, **budget: float) -> Composer:
    execution = ExecutionConfig.model_validate({"chunk": 2, "budget": budget})
    part = Component(reward, normalizer=ZScore(), failure=FailurePolicy("abstain"), execution=execution)
    return Composer({"paid": part}, budget=BudgetConfig.model_validate(whole or {}))


@pytest.mark.parametrize(
    ("budget", "spent"),
    [({"calls": 4}, "4 of 4 calls"), ({"tokens": 70}, "80 of 70 tokens"), ({"cost": 3.0}, "3 of 3 cost")],
)
def test_a_spent_budget_ends_the_run_whatever_the_failure_policy(budget: dict[str, float], spent: str) -> None:
    """No further call is made, and the message says what was spent."""
    paid = Paid()
    with composer_of(paid, **budget) as composer:
        composer.compose(rows(0))
        with pytest.raises(BudgetExceededError, match=f"the budget of reward 'paid' is spent: {spent}"):
            composer.compose(rows(4)), composer.compose(rows(8))
        calls = paid.calls
        with pytest.raises(BudgetExceededError):
            composer.compose(rows(8))
    assert paid.calls == calls


def test_a_run_resumes_with_a_greater_budget_as_if_nothing_had_happened() -> None:
    """What was spent and learned is in the state; the batch that was refused has taught nothing."""
    with composer_of(Paid(), calls=100) as whole:
        expected = [whole.compose(rows(first)).totals.tolist() for first in (0, 4, 8)]
        end = whole.state_dict()
    with composer_of(Paid(), calls=4) as composer:
        got = [composer.compose(rows(first)).totals.tolist() for first in (0, 4)]
        with pytest.raises(BudgetExceededError):
            composer.compose(rows(8))
        state = composer.state_dict()
    with composer_of(Paid(), calls=100) as resumed:
        resumed.load_state_dict(state)
        got.append(resumed.compose(rows(8)).totals.tolist())
        assert resumed.state_dict() == end
    assert got == expected
    with composer_of(Paid(), calls=4) as again:
        again.load_state_dict(state)
        with pytest.raises(BudgetExceededError):
            again.compose(rows(8))


def test_all_rewards_can_share_a_budget() -> None:
    """Every call of any of them counts."""
    with Composer({"a": Paid(), "b": Paid()}, budget=BudgetConfig(calls=4)) as composer:
        composer.compose(rows(0))
        composer.compose(rows(0))
        with pytest.raises(BudgetExceededError, match="the budget of the composition is spent: 4 of 4 calls"):
            composer.compose(rows(0))
        assert composer.state_dict()["spent"][""]["calls"] == 4


def test_attempts_count_as_calls() -> None:
    """A server charges for them too."""

    def flaky(prompts, completions):
        raise ConnectionError("down")

    execution = ExecutionConfig.model_validate({"retry": {"attempts": 9, "delay": 0.001}, "budget": {"calls": 3}})
    with (
        Composer({"flaky": Component(flaky, execution=execution)}) as composer,
        pytest.raises(BudgetExceededError, match="3 of 3 calls"),
    ):
        composer.compose(rows(0))


def test_calls_that_wait_for_their_turn_do_not_slip_past_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was left when they began to wait may be gone when they are let through."""
    monkeypatch.setattr(limits, "MINUTE", 0.1)
    calls = []

    async def judge(prompts, completions):
        calls.append(1)
        return [1.0]

    execution = ExecutionConfig.model_validate(
        {"chunk": 1, "concurrency": 8, "limits": {"requests_per_minute": 2}, "budget": {"calls": 3}}
    )
    with Composer({"judge": Component(judge, execution=execution)}) as composer:
        with pytest.raises(BudgetExceededError):
            composer.compose(rows(0, 8))
        assert composer.state_dict()["spent"]["judge"]["calls"] == 3
    assert len(calls) <= 3


def test_a_composer_without_budgets_keeps_its_state_as_it_is() -> None:
    """Nothing changes for those who do not ask."""
    with Composer({"a": Paid()}) as composer:
        assert "spent" not in composer.state_dict()


def test_a_budget_in_money_needs_a_reward_that_reports_it() -> None:
    """Otherwise it would never be spent."""
    with (
        composer_of(lambda prompts, completions: [1.0] * len(completions), cost=1.0) as composer,
        pytest.raises(ConfigError, match="does not report its usage"),
    ):
        composer.compose(rows(0))


@pytest.mark.parametrize("usage", [{"tokens": -1}, {"tokens": True}, {"cost": float("nan")}, {"cost": "1"}, 12])
def test_a_usage_that_is_no_number_is_a_failure(usage: object) -> None:
    """A broken report must not pass for nothing spent."""
    with pytest.raises(RewardOutputError, match="usage"):
        reported_usage([Score(1.0, details={"usage": usage})])


def test_usage_is_summed_over_scores_also_of_rows_that_failed() -> None:
    """A verdict that could not be read was paid for."""
    entries = [Score(1.0, details={"usage": {"tokens": 5}}), None, 2.0, Score.failed("unreadable", usage={"cost": 0.1})]
    assert reported_usage(entries) == CallUsage(0, 5.0, 0.1)
    assert reported_usage([1.0, None]) is None


def test_a_state_that_is_not_of_a_budget_is_refused() -> None:
    """It says what was found."""
    with pytest.raises(StateError, match="calls, tokens and cost; saved was"):
        Budget(BudgetConfig(), "x").load_state_dict({"calls": 1})


def test_the_error_is_one_of_the_sdk() -> None:
    """A caller can catch all of them."""
    assert issubclass(BudgetExceededError, RlaifError)
