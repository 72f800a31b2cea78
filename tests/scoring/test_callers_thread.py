"""Plain synchronous rewards are called in the caller's thread; whatever a limit, a retry or a cache is asked of is not."""

from __future__ import annotations

import asyncio
import functools
import math
import os
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif_sdk import Composer, ConfigError, Reward, RewardBatch, Score
from rlaif_sdk.composer import Component, Ledger
from rlaif_sdk.config import BudgetConfig, ExecutionConfig
from rlaif_sdk.exceptions import JudgeAuthError
from rlaif_sdk.scoring import runner
from tests.patient import patient

BATCH = RewardBatch(["p", "p"], ["a", "b"])


class Seen:
    """A plain function that notes the threads in which it is called."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def __call__(self, completions: list[str]) -> list[float]:
        self.threads.append(threading.get_ident())
        return [1.0] * len(completions)

    @property
    def in_callers_thread(self) -> bool:
        return set(self.threads) == {threading.get_ident()}


class Plain(Reward):
    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def score(self, batch: RewardBatch) -> list[float]:
        return self.seen(list(batch.completion_texts))


class WithSetup(Plain):
    def setup(self) -> None:
        """Loads something."""


class Duck:
    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def score(self, batch: RewardBatch) -> list[float]:
        return self.seen(list(batch.completion_texts))


class DuckWithClose(Duck):
    def close(self) -> None:
        """Releases something."""


@pytest.mark.parametrize("kind", [lambda seen: seen, Plain, Duck, lambda seen: functools.partial(Seen.__call__, seen)])
@pytest.mark.parametrize("timeout", ["auto", None])
def test_a_plain_reward_is_called_in_the_callers_thread(kind: Any, timeout: Any) -> None:
    """A function, a partial, a class and an object alike, whether it is said that there is no limit or nothing is."""
    seen = Seen()
    with Composer({"one": Component(kind(seen), timeout=timeout)}) as composer:
        assert composer.compose(BATCH).totals.tolist() == [1.0, 1.0]
    assert seen.in_callers_thread


@pytest.mark.parametrize(
    "part",
    [
        lambda seen: Component(seen, timeout=60.0),
        lambda seen: Component(WithSetup(seen)),
        lambda seen: Component(DuckWithClose(seen)),
        lambda seen: Component(seen, execution=ExecutionConfig(chunk=1)),
        lambda seen: Component(seen, execution=ExecutionConfig(deadline=60.0)),
        lambda seen: Component(seen, execution=ExecutionConfig.model_validate({"retry": {"attempts": 2}})),
        lambda seen: Component(seen, execution=ExecutionConfig.model_validate({"breaker": {}})),
        lambda seen: Component(seen, execution=ExecutionConfig.model_validate({"limits": {"requests_per_minute": 99}})),
        lambda seen: Component(seen, execution=ExecutionConfig.model_validate({"budget": {"calls": 99}})),
    ],
)
def test_a_reward_of_which_more_is_asked_has_a_thread_of_its_own(part: Any) -> None:
    """A limit of time, a setup or a close of its own, chunks, retries, a breaker, rate limits, a budget."""
    seen = Seen()
    with Composer({"one": part(seen)}) as composer:
        assert composer.compose(BATCH).totals.tolist() == [1.0, 1.0]
    assert threading.get_ident() not in seen.threads


def test_a_common_budget_sends_a_plain_reward_to_a_thread_of_its_own() -> None:
    """It is asked before every call."""
    seen = Seen()
    with Composer({"one": seen}, budget=BudgetConfig(calls=9)) as composer:
        composer.compose(BATCH)
    assert threading.get_ident() not in seen.threads


@pytest.mark.parametrize("cache", [True, False])
def test_a_plain_reward_that_a_ledger_caches_has_a_thread_of_its_own(tmp_path: Path, *, cache: bool) -> None:
    """The ledger is asked before it; one that is not cached is called here."""
    seen = Seen()

    def one(prompts: list[str], completions: list[str]) -> list[float]:
        threads.append(threading.get_ident())
        return [1.0] * len(completions)

    threads = seen.threads
    with Composer({"one": Component(one, cache=cache)}, ledger=Ledger(tmp_path / "l.sqlite")) as composer:
        composer.compose(BATCH)
    assert seen.in_callers_thread != cache


def test_within_a_running_event_loop_nothing_blocks_it() -> None:
    """A reward may call asyncio.run, as it may in a notebook, and `compose` in a coroutine gives the same."""

    def runs_a_loop(completions: list[str]) -> list[float]:
        return asyncio.run(asyncio.sleep(0, [2.0] * len(completions)))

    async def main() -> list[float]:
        return composer.compose(BATCH).totals.tolist()

    with Composer({"one": runs_a_loop}) as composer:
        assert asyncio.run(main()) == composer.compose(BATCH).totals.tolist() == [2.0, 2.0]


def test_submit_returns_at_once() -> None:
    """A submitted batch is scored elsewhere, whatever its rewards are."""
    release = threading.Event()

    def waits(completions: list[str]) -> list[float]:
        release.wait(10)
        return [1.0] * len(completions)

    with Composer({"one": patient(waits)}) as composer:
        future = composer.submit(BATCH)
        assert not future.done()
        release.set()
        assert future.result().totals.tolist() == [1.0, 1.0]


def test_async_and_limited_rewards_are_begun_first() -> None:
    """They run while the plain ones are called, one after another."""
    begun = {"async": threading.Event(), "limited": threading.Event()}

    async def slow(completions: list[str]) -> list[float]:
        begun["async"].set()
        await asyncio.sleep(0.1)
        return [1.0] * len(completions)

    def limited(completions: list[str]) -> list[float]:
        begun["limited"].set()
        return [1.0] * len(completions)

    def plain(completions: list[str]) -> list[float]:
        return [float(all(event.wait(10) for event in begun.values()))] * len(completions)

    rewards = {"plain": plain, "slow": slow, "limited": Component(limited, timeout=60.0)}
    with Composer(rewards) as composer:
        composition = composer.compose(BATCH)
    assert composition.totals.tolist() == [3.0, 3.0]
    assert list(composition.rewards) == ["plain", "slow", "limited"]


def test_the_deepest_call_has_at_most_six_frames_of_ours_and_no_other_thread() -> None:
    """From `compose` to the function, so that a traceback fits on a screen."""
    home = str(Path(runner.__file__).parents[1])
    depth = 0

    def deep(completions: list[str]) -> list[float]:
        nonlocal depth
        frame: Any = sys._getframe()
        while frame is not None:
            depth += frame.f_code.co_filename.startswith(home)
            frame = frame.f_back
        return [0.0] * len(completions)

    threads = threading.active_count()
    with Composer({"one": deep}) as composer:
        composer.compose(BATCH)
        assert threading.active_count() <= threads
    assert 1 <= depth <= 6


def test_a_slow_plain_reward_is_told_what_to_set_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing runs beside it and nothing ends it; who said that it may take long is not told."""
    monkeypatch.setattr(runner, "SLOW_CALL", 0.01)

    def slow(completions: list[str]) -> list[float]:
        time.sleep(0.02)
        return [1.0] * len(completions)

    with Composer({"slow": slow}) as composer:
        with pytest.warns(UserWarning, match=r"reward 'slow' took .* for 2 rows in the caller's thread.*'timeout'"):
            composer.compose(BATCH)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            composer.compose(BATCH)
    with warnings.catch_warnings(), Composer({"slow": Component(slow, timeout=None)}) as composer:
        warnings.simplefilter("error")
        composer.compose(BATCH)


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), SystemExit(3), StopIteration(), asyncio.CancelledError(), GeneratorExit(), MemoryError()],
)
def test_whatever_a_plain_reward_raises_is_its_failure(error: BaseException) -> None:
    """The policy decides, the error names the reward, and its cause is kept."""

    def raises(completions: list[str]) -> list[float]:
        raise error

    with Composer({"bad": patient(raises), "good": lambda completions: [1.0] * len(completions)}) as composer:
        composition = composer.compose(BATCH)
    assert composition.totals.tolist() == [2.0, 2.0]
    assert type(error).__name__ in composition.rewards["bad"].failures[0]
    assert composition.rewards["bad"].error.__cause__ is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), JudgeAuthError("no key"), ConfigError("wrong")])
def test_what_no_policy_covers_ends_the_run_and_gives_the_others_up(error: BaseException) -> None:
    """The error names the reward; coroutines under way are cancelled."""
    cancelled = threading.Event()
    begun = threading.Event()

    async def other(completions: list[str]) -> list[float]:
        try:
            begun.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return [1.0] * len(completions)

    def fatal(completions: list[str]) -> list[float]:
        begun.wait(10)
        raise error

    with Composer({"fatal": fatal, "other": other}) as composer:
        with pytest.raises(type(error)) as raised:
            composer.compose(BATCH)
        assert "in reward 'fatal'" in raised.value.__notes__
        assert cancelled.wait(10)


def test_a_plain_callable_that_returns_a_coroutine_is_awaited_and_then_begun_first() -> None:
    """Nothing tells it from a plain function before it is called."""
    threads = []

    class Late:
        def __call__(self, completions: list[str]) -> Any:
            threads.append(threading.get_ident())
            return self.later(completions)

        async def later(self, completions: list[str]) -> list[float]:
            if completions == ["bad"]:
                raise ValueError("no")
            return [1.0] * len(completions)

    with Composer({"one": patient(Late())}) as composer:
        assert composer.compose(RewardBatch(["p"], ["bad"])).rewards["one"].failures == {0: "raised ValueError: no"}
        assert composer.compose(BATCH).totals.tolist() == [1.0, 1.0]
    assert threads[0] == threading.get_ident() != threads[1]


def test_a_plain_reward_is_called_by_one_thread_at_a_time() -> None:
    """`compose` and `submit` from several threads do not call it at once, as before."""
    inside, most = 0, 0

    def counts(completions: list[str]) -> list[float]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.001)
        inside -= 1
        return [float(text) for text in completions]

    def work(number: int) -> list[float]:
        batch = RewardBatch(["p"], [str(number)])
        composition = composer.submit(batch).result() if number % 3 == 0 else composer.compose(batch)
        return composition.totals.tolist()

    with Composer({"one": counts}) as composer, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(60))) == [[float(number)] for number in range(60)]
    assert most == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_while_another_thread_scores_leaves_the_child_free_to_score() -> None:
    """The lock that the other thread holds is not the child's."""
    entered, release = threading.Event(), threading.Event()

    def waits(completions: list[str]) -> list[float]:
        if completions == ["wait"]:
            entered.set()
            release.wait(10)
        return [1.0] * len(completions)

    with Composer({"one": patient(waits)}) as composer:
        thread = threading.Thread(target=composer.compose, args=(RewardBatch(["p"], ["wait"]),))
        thread.start()
        entered.wait(10)
        child = os.fork()
        if child == 0:
            os._exit(0 if composer.compose(BATCH).totals.tolist() == [1.0, 1.0] else 1)
        deadline = time.monotonic() + 20
        status = (0, 0)
        while status[0] == 0 and time.monotonic() < deadline:
            status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.01)
        release.set()
        thread.join()
    assert status == (child, 0)


scores = st.one_of(
    st.floats(),
    st.sampled_from([math.nan, math.inf, -math.inf]),
    st.none(),
    st.booleans(),
    st.text(max_size=2),
    st.builds(Score, st.floats(-3, 3)),
    st.just(Score.failed("x")),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(scores, min_size=3, max_size=3), st.lists(scores, max_size=4))
def test_where_a_reward_is_called_changes_nothing(first: list[Any], second: list[Any]) -> None:
    """Values, failures and totals are those of a call in a thread of its own."""
    batch = RewardBatch(["p"] * 3, ["a", "b", "c"], group=[0, 0, 1])
    results = []
    for timeout in ("auto", 60.0):
        rewards = {"a": lambda completions: first, "b": lambda completions: second, "c": lambda completions: [1, 2, 3]}
        with Composer({name: patient(one, timeout=timeout) for name, one in rewards.items()}) as composer:
            composition = composer.compose(batch)
        results.append(
            (
                list(map(repr, composition.totals)),
                [(column.failures, list(map(repr, column.weighted))) for column in composition.rewards.values()],
                [str(composition.explain(row)) for row in range(3)],
            )
        )
    assert results[0] == results[1]
