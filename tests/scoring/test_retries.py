"""Calls made again, circuit breakers, and fallbacks."""

from __future__ import annotations

import json
import math
import pkgutil
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk import Composer, ConfigError, RewardBatch, RewardError, Score
from rlaif_sdk.composer import Component, FailurePolicy
from rlaif_sdk.config import ExecutionConfig
from rlaif_sdk.exceptions import JudgeAuthError, JudgeConnectionError, RewardTimeoutError
from rlaif_sdk.scoring.limits import Breaker
from rlaif_sdk.scoring.runner import backoff
from rlaif_sdk.testing import FailingReward, FixedReward
from tests.patient import PATIENT, patient

QUICK = {"attempts": 3, "delay": 0.01}


def rows(count: int = 2) -> RewardBatch:
    return RewardBatch(["p"] * count, [str(row) for row in range(count)])


def part(reward, *, timeout: float = 10.0, fallback: str | None = None, **execution) -> Component:
    return patient(reward, timeout=timeout, fallback=fallback, execution=ExecutionConfig.model_validate(execution))


class Flaky:
    """Raises each of some errors in turn, then scores."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    def score(self, batch: RewardBatch) -> list[float]:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return [1.0] * len(batch)


@pytest.mark.parametrize("error", [JudgeConnectionError("reset"), ConnectionResetError("reset"), TimeoutError("slow")])
def test_an_error_that_may_pass_is_tried_again(error: BaseException) -> None:
    """Two failures and then a score are a score."""
    flaky = Flaky(error, error)
    with Composer({"mine": part(flaky, retry=QUICK)}) as composer:
        assert composer.compose(rows()).totals.tolist() == [1.0, 1.0]
    assert flaky.calls == 3


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("aiohttp.ServerDisconnectedError", "aiohttp.client_exceptions:ServerDisconnectedError"),
        ("json.JSONDecodeError", "json.decoder:JSONDecodeError"),
        ("json:JSONDecodeError", "json.decoder:JSONDecodeError"),
        ("socket.timeout", "builtins:TimeoutError"),
        ("IOError", "builtins:ConnectionResetError"),
    ],
)
def test_an_error_may_be_named_as_it_is_imported(name: str, error: str) -> None:
    """With its package, or by another name that the package gives it."""
    kind = pkgutil.resolve_name(error)
    raised = kind("text", "text", 0) if kind is json.JSONDecodeError else kind("text")
    with Composer({"mine": part(Flaky(raised), retry={**QUICK, "errors": [name]})}) as composer:
        assert composer.compose(rows()).totals.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "name", ["aiohttp.ConectError", "no_such_package.Error", "os.path", "print", "Connection Error", ""]
)
def test_a_name_that_no_error_can_have_is_refused(name: str) -> None:
    """It would never match, and the call would never be made again."""
    with pytest.raises(ValueError, match="such as ConnectionError"):
        ExecutionConfig.model_validate({"retry": {"errors": [name]}})


def test_attempts_are_limited_and_counted_in_the_message() -> None:
    """The last error is the failure."""
    flaky = Flaky(*[ConnectionError(f"number {number}") for number in range(9)])
    with Composer({"mine": part(flaky, retry=QUICK)}) as composer:
        assert composer.compose(rows()).rewards["mine"].failures[0] == "raised ConnectionError: number 2 (attempt 3)"
    assert flaky.calls == 3


@pytest.mark.parametrize("error", [ValueError("a bug"), RewardTimeoutError("too slow"), JudgeAuthError("refused")])
def test_other_errors_are_not_tried_again(error: BaseException) -> None:
    """A bug, a call that passed its limit, and what ends the run."""
    flaky = Flaky(error)
    with Composer({"mine": part(flaky, retry=QUICK)}) as composer:
        if isinstance(error, JudgeAuthError):
            with pytest.raises(JudgeAuthError):
                composer.compose(rows())
        else:
            assert composer.compose(rows()).rewards["mine"].failures
    assert flaky.calls == 1


def test_what_may_pass_can_be_named_by_class_or_base() -> None:
    """Also an error that no base of Python's tells, and a fatal one never."""

    class ReadError(Exception):
        """As HTTP clients have."""

    flaky = Flaky(ReadError("x"), JudgeAuthError("refused"))
    retry = QUICK | {"errors": ["ReadError", "JudgeAuthError"]}
    with Composer({"mine": part(flaky, retry=retry)}) as composer, pytest.raises(JudgeAuthError):
        composer.compose(rows())
    assert flaky.calls == 2


def test_a_call_that_passes_its_limit_is_tried_again_where_that_is_asked_for() -> None:
    """The coroutine is cancelled, and the next attempt has the whole limit again."""
    calls = []

    async def slow_once(prompts, completions):
        import asyncio

        calls.append(1)
        await asyncio.sleep(20 if len(calls) == 1 else 0)
        return [1.0] * len(completions)

    retry = QUICK | {"errors": ["RewardTimeoutError"]}
    with Composer({"mine": part(slow_once, timeout=0.2, retry=retry)}) as composer:
        assert composer.compose(rows()).totals.tolist() == [1.0, 1.0]


@given(st.integers(1, 2000), st.floats(0.01, 10), st.floats(0.01, 100))
def test_waits_stay_below_a_ceiling_that_doubles(attempt: int, delay: float, longest: float) -> None:
    """Never negative, never above the longest wait."""
    wait = backoff(attempt, delay, longest)
    assert 0.0 <= wait <= min(longest, delay * 2.0 ** min(attempt - 1, 60))


def test_waits_are_spread_over_their_whole_range() -> None:
    """So that calls that failed together do not return together."""
    waits = np.array([backoff(3, 1.0, 30.0) for _ in range(4000)])
    assert waits.mean() == pytest.approx(2.0, abs=0.15)
    assert waits.std() == pytest.approx(4.0 / math.sqrt(12), abs=0.1)


def test_a_breaker_opens_after_failures_in_a_row_and_tries_one_call_after_the_cool_down() -> None:
    """A success in between begins the count anew; the trial decides."""
    breaker = Breaker(failures=2, cooldown=10.0)
    breaker.failed("a", 0.0)
    breaker.succeeded()
    breaker.failed("b", 1.0)
    breaker.admit(1.0)
    breaker.failed("c", 2.0)
    with pytest.raises(RewardError, match="its breaker is open for another 7 s after 2 failures in a row, the last: c"):
        breaker.check(5.0)
    breaker.admit(12.0)
    with pytest.raises(RewardError):
        breaker.admit(12.1)
    breaker.failed("d", 13.0)
    with pytest.raises(RewardError, match="after 3 failures in a row, the last: d"):
        breaker.admit(22.9)
    breaker.admit(23.0)
    breaker.succeeded()
    breaker.admit(23.1)


def test_a_trial_that_never_comes_back_does_not_keep_the_breaker_open_for_ever() -> None:
    """After another cool-down there is another trial."""
    breaker = Breaker(failures=1, cooldown=10.0)
    breaker.failed("a", 0.0)
    breaker.admit(10.0)
    breaker.admit(20.0)


def test_a_reward_that_keeps_failing_is_not_called_for_a_while() -> None:
    """An outage of a slow server does not cost every row its time limit."""
    flaky = Flaky(*[ConnectionError("down")] * 3)
    breaker = {"failures": 3, "cooldown": 0.3}
    with Composer({"mine": part(flaky, chunk=1, breaker=breaker)}) as composer:
        composer.compose(rows(10))
        failures = composer.compose(rows(10)).rewards["mine"].failures
        assert flaky.calls == 3
        assert failures[9].startswith(
            "its breaker is open for another 0 s after 3 failures in a row, the last: ConnectionError"
        )
        time.sleep(0.35)
        assert composer.compose(rows(10)).totals.tolist() == [1.0] * 10


def test_after_the_cool_down_one_call_alone_is_let_through() -> None:
    """A server that is still down is not met by all calls at once."""
    calls = []

    async def down(prompts, completions):
        calls.append(1)
        raise ConnectionError("down")

    execution = {"chunk": 1, "concurrency": 4, "breaker": {"failures": 1, "cooldown": 0.2}}
    with Composer({"mine": part(down, **execution)}) as composer:
        composer.compose(rows(4))
        before = len(calls)
        time.sleep(0.25)
        composer.compose(rows(4))
    assert len(calls) == before + 1


def test_a_batch_in_which_every_row_failed_counts_as_a_failure() -> None:
    """Judges report an outage row by row."""
    calls = []

    def judge(prompts, completions):
        calls.append(1)
        return [Score.failed("down")] * len(completions)

    with Composer({"mine": part(judge, breaker={"failures": 2, "cooldown": 60.0})}) as composer:
        failures = [composer.compose(rows()).rewards["mine"].failures[0] for _ in range(4)]
    assert len(calls) == 2
    assert "the last: down" in failures[3]


def composer_with_fallback(reward, other, policy: FailurePolicy | None = None, **execution) -> Composer:
    component = Component(
        reward, failure=policy or PATIENT, fallback="spare", execution=ExecutionConfig.model_validate(execution)
    )
    return Composer({"mine": component}, fallbacks={"spare": other})


def test_a_fallback_scores_the_rows_that_failed_and_no_others() -> None:
    """Its use is seen in the status, the reason and the metrics."""
    seen: list[str] = []

    def spare(prompts, completions):
        seen.extend(completions)
        return [Score(9.0, reason="by rule")] * len(completions)

    judge = FixedReward([1.0, Score.failed("down"), None, Score.failed("down")])
    with composer_with_fallback(judge, spare) as composer:
        composition = composer.compose(rows(4))
        assert composer.compose(rows(4)).metrics()["reward/mine/fallback"] == 2.0
    column = composition.rewards["mine"]
    assert seen[:2] == ["1", "3"]
    assert [column.status(row) for row in range(4)] == ["scored", "fallback", "abstained", "fallback"]
    assert column.reason(1) == "fallback 'spare': down"
    assert column.score(1).reason == "by rule"
    assert composition.to_list() == [1.0, 9.0, None, 9.0]
    assert composition.metrics()["reward/mine/failed"] == 0.0
    assert "fallback" in str(composition.explain(1))


def test_a_fallback_is_not_called_while_all_is_well() -> None:
    """Nor set up: it may be dear."""
    with composer_with_fallback(FixedReward(1.0), FailingReward(AssertionError("called"))) as composer:
        composition = composer.compose(rows())
    assert composition.totals.tolist() == [1.0, 1.0]
    assert composition.metrics()["reward/mine/fallback"] == 0.0


def test_a_fallback_is_asked_when_the_reward_fails_altogether() -> None:
    """Also under the policy `raise`, and while the breaker keeps the reward from being called."""
    down = FailingReward(ConnectionError("down"))
    breaker = {"failures": 1, "cooldown": 60.0}
    with composer_with_fallback(down, FixedReward(2.0), FailurePolicy("raise"), breaker=breaker) as composer:
        assert composer.compose(rows()).totals.tolist() == [2.0, 2.0]
        assert "its breaker is open" in composer.compose(rows()).rewards["mine"].reason(0)


def test_when_the_fallback_fails_too_both_problems_are_told() -> None:
    """The failure policy then applies."""
    with composer_with_fallback(FailingReward(ConnectionError("down")), FailingReward(ValueError("bug"))) as composer:
        composition = composer.compose(rows())
    assert composition.to_list() == [None, None]
    assert composition.rewards["mine"].failures[1] == (
        "raised ConnectionError: down; its fallback 'spare': raised ValueError: bug"
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Composer({"a": part(FixedReward(), fallback="nobody")}), "there is no fallback 'nobody'"),
        (lambda: Composer({"a": FixedReward()}, fallbacks={"b": FixedReward()}), "no reward names this fallback"),
        (
            lambda: Composer({"a": part(FixedReward(range=(0, 1)), fallback="b")}, fallbacks={"b": FixedReward()}),
            "the range .* and that of its fallback",
        ),
        (
            lambda: Composer({"a": part(FixedReward(), fallback="a")}, fallbacks={"a": FixedReward()}),
            "a reward has the same name",
        ),
    ],
)
def test_a_fallback_that_cannot_be_one_is_refused(make: Callable[[], Composer], message: str) -> None:
    """Missing, unused, of other units, or ambiguous."""
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_config_names_its_fallbacks(write) -> None:
    """The section `fallbacks` holds them; a wrong name is refused with its line."""
    write(
        "mine.py",
        """
        def down(prompts, completions):
            raise ConnectionError("down")

        def spare(prompts, completions, *, value: float = 0.0):
            return [value] * len(completions)
        """,
    )
    path = write(
        "rewards.yaml",
        """
        rewards:
          mine:
            use: ./mine.py:down
            fallback: spare
        fallbacks:
          spare:
            use: ./mine.py:spare
            params: {value: 3.0}
        """,
    )
    with Composer.from_config(path) as composer:
        assert composer.compose(rows()).totals.tolist() == [3.0, 3.0]
    path.write_text(path.read_text().replace("fallback: spare", "fallback: spar"))
    with pytest.raises(ConfigError, match=r"rewards\.yaml:5: rewards\.mine\.fallback: there is no fallback 'spar'"):
        Composer.from_config(path)
    path.write_text(path.read_text().replace("value: 3.0", "valu: 3.0"))
    with pytest.raises(ConfigError, match=r"rewards\.yaml:9: fallbacks\.spare\.params\.valu: unknown key"):
        Composer.from_config(path)
