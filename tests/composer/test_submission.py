"""Scoring one batch while the next is made."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rlaif_sdk import BatchError, Composer, RewardBatch, RewardError
from rlaif_sdk.composer import Component, FailurePolicy
from rlaif_sdk.composer.normalizers import ZScore
from rlaif_sdk.composer.ordered_queue import OrderedQueue
from rlaif_sdk.exceptions import JudgeAuthError


def rows(*values: float) -> RewardBatch:
    return RewardBatch(["p"] * len(values), [str(value) for value in values])


def number(prompts, completions):
    return [float(completion) for completion in completions]


def test_scoring_overlaps_with_making_the_next_batch() -> None:
    """Four batches of 0.2 s, made in 0.2 s each, take a little more than five times 0.2 s."""

    def slow(prompts, completions):
        time.sleep(0.2)
        return number(prompts, completions)

    with Composer({"slow": slow}) as composer:
        began = time.monotonic()
        futures = []
        for value in range(4):
            time.sleep(0.2)
            futures.append(composer.submit(rows(value)))
        assert [future.result(10).totals.tolist() for future in futures] == [[0.0], [1.0], [2.0], [3.0]]
        assert time.monotonic() - began < 1.4


def test_a_fast_reward_goes_on_while_a_slow_one_still_scores_an_earlier_batch() -> None:
    """Rewards are pipelined: batches wait for a reward, not for each other."""
    seen: list[str] = []
    release = threading.Event()

    def fast(prompts, completions):
        seen.extend(completions)
        return [0.0] * len(completions)

    def slow(prompts, completions):
        release.wait(10)
        return [0.0] * len(completions)

    with Composer({"fast": fast, "slow": slow}) as composer:
        futures = [composer.submit(rows(value)) for value in range(3)]
        until = time.monotonic() + 5
        while len(seen) < 3 and time.monotonic() < until:
            time.sleep(0.01)
        assert seen == ["0", "1", "2"]
        assert not any(future.done() for future in futures)
        release.set()
        assert [future.result(10).totals.tolist() for future in futures] == [[0.0]] * 3


def test_statistics_learn_in_the_order_of_submission() -> None:
    """The same totals and state as composing one after another, however long each batch takes."""

    async def jittery(prompts, completions):
        await asyncio.sleep(random.uniform(0, 0.01))
        return number(prompts, completions)

    batches = [rows(*(random.gauss(0, 1) for _ in range(3))) for _ in range(30)]
    with Composer({"a": Component(number, normalizer=ZScore())}) as composer:
        expected = [composer.compose(batch).totals.tolist() for batch in batches]
        state = composer.state_dict()
    order: list[list[float]] = []
    with Composer(
        {"a": Component(jittery, normalizer=ZScore())}, observers=[lambda done: order.append(done.totals.tolist())]
    ) as composer:
        futures = [composer.submit(batch) for batch in batches[:-1]]
        last = composer.compose(batches[-1]).totals.tolist()
        assert [future.result(10).totals.tolist() for future in futures] == expected[:-1]
        assert last == expected[-1]
        assert composer.state_dict()["rewards"]["a"]["state"] == state["rewards"]["a"]["state"]
    assert sorted(order) == sorted(expected)


def test_a_batch_that_fails_does_not_hold_up_those_after_it() -> None:
    """Its future has the error; the next ones are composed."""

    def picky(prompts, completions):
        if "13.0" in completions:
            raise ValueError("unlucky")
        return number(prompts, completions)

    with Composer({"a": Component(picky, failure=FailurePolicy("raise"))}) as composer:
        futures = [composer.submit(rows(value)) for value in (1.0, 13.0, 2.0)]
        assert futures[2].result(10).totals.tolist() == [2.0]
        with pytest.raises(RewardError, match="unlucky"):
            futures[1].result(10)


def test_what_ends_the_run_reaches_the_future() -> None:
    """A refused key is not lost in a background thread."""

    def refused(prompts, completions):
        raise JudgeAuthError("the key is refused")

    with Composer({"a": refused}) as composer, pytest.raises(JudgeAuthError):
        composer.submit(rows(1)).result(10)


def test_a_malformed_batch_is_refused_at_once() -> None:
    """Not when its future is asked."""
    with (
        Composer({"a": lambda prompts, completions, answer: [0.0]}) as composer,
        pytest.raises(BatchError, match="needs the column 'answer'"),
    ):
        composer.submit(rows(1))


def test_a_cancelled_batch_is_given_up_and_the_next_one_is_composed() -> None:
    """Its calls are cancelled."""
    cancelled = threading.Event()

    async def slow(prompts, completions):
        try:
            await asyncio.sleep(0 if completions[0] == "2" else 20)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return number(prompts, completions)

    with Composer({"a": slow}) as composer:
        first, second = composer.submit(rows(1)), composer.submit(rows(2))
        time.sleep(0.1)
        assert first.cancel()
        assert cancelled.wait(5)
        assert second.result(10).totals.tolist() == [2.0]


class SlowToBegin(RewardBatch):
    """A batch whose rewards take a moment to be called, the later ones less, so that threads overtake each other."""

    def with_columns(self, renamed):
        time.sleep((50 - float(self.completions[0])) / 10_000)
        return super().with_columns(renamed)


def test_many_threads_can_submit_at_once() -> None:
    """Batches are queued in the order of their tickets: one that waited for a ticket behind it would wait for ever."""
    batches = [SlowToBegin(["p"], [str(value)]) for value in range(50)]
    with Composer({"number": number}) as composer, ThreadPoolExecutor(8) as pool:
        futures = list(pool.map(composer.submit, batches))
        totals = [future.result(20).totals.tolist() for future in futures]
    assert totals == [[float(value)] for value in range(50)]


def test_closing_gives_up_what_is_under_way() -> None:
    """It does not wait for the rewards' limits, and no future hangs."""

    async def slow(prompts, completions):
        await asyncio.sleep(20)
        return [0.0]

    composer = Composer({"a": slow})
    futures = [composer.submit(rows(value)) for value in range(3)]
    time.sleep(0.1)
    began = time.monotonic()
    composer.close()
    for future in futures:
        with pytest.raises(BaseException):  # noqa: B017 - cancelled, one way or the other
            future.result(5)
    assert time.monotonic() - began < 3


def test_acompose_can_score_several_batches_at_once() -> None:
    """As a server does."""

    async def main(composer: Composer) -> list[list[float]]:
        done = await asyncio.gather(*(composer.acompose(rows(value)) for value in range(20)))
        return [composition.totals.tolist() for composition in done]

    with Composer({"a": number}) as composer:
        assert asyncio.run(main(composer)) == [[float(value)] for value in range(20)]


def test_a_line_lets_through_in_order_also_when_one_leaves_early() -> None:
    """Who leaves without waiting does not let the next one overtake those before."""
    queue = OrderedQueue(lambda _: pytest.fail("nothing is submitted"))
    first, second, third = queue.ticket(), queue.ticket(), queue.ticket()
    passed = threading.Event()
    waiting = threading.Thread(target=lambda: (third.wait(), passed.set()))
    waiting.start()
    second.done()
    assert not passed.wait(0.1)
    first.done()
    assert passed.wait(5)
    waiting.join()
