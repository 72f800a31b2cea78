"""A reward with its limits: batches in, outcomes out, each in time."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from itertools import count
from typing import TYPE_CHECKING, Any

from rlaif_sdk.composer.execution.budget import Budget
from rlaif_sdk.composer.execution.chunks import cut, merged
from rlaif_sdk.composer.execution.guard import Guard
from rlaif_sdk.composer.execution.loops import control_loop
from rlaif_sdk.composer.execution.outcome import Outcome, Raised, attributed, is_fatal, may_pass
from rlaif_sdk.composer.execution.processes import Recipe
from rlaif_sdk.composer.execution.retry import backoff
from rlaif_sdk.composer.execution.slots import Held, LoopSlot, ProcessSlot, Slot, ThreadSlot
from rlaif_sdk.config import ExecutionConfig
from rlaif_sdk.exceptions import ConfigError, RewardError, RewardTimeoutError
from rlaif_sdk.io.forks import leave_to_parent, on_fork
from rlaif_sdk.rewards import Reward
from rlaif_sdk.types import RewardBatch

if TYPE_CHECKING:
    from rlaif_sdk.composer.ledger.recall import Recall

_MISSING = object()
CLOSE_WAIT = 10.0
"""Seconds after which `Runner.close` no longer waits."""


class Runner:
    """Scores batches with one reward, one batch after another.

    Args:
        name: The reward's name in the composition.
        reward: The reward.
        timeout: Seconds that one call may take, or None.
        setup_timeout: Seconds that its setup may take, or None.
        execution: Everything else about how it is called.
        recipe: How a worker process makes the reward; needed where ``execution.isolation`` is ``process``.
        budgets: Budgets that it shares with others.
        recall: Its scores in a ledger: rows that it knows are not scored.

    Raises:
        ConfigError: It is to run in a process, and there is no recipe.
    """

    def __init__(
        self,
        name: str,
        reward: Reward,
        *,
        timeout: float | None,
        setup_timeout: float | None,
        execution: ExecutionConfig | None = None,
        recipe: Recipe | None = None,
        budgets: Sequence[Budget] = (),
        recall: Recall | None = None,
    ) -> None:
        self.name = name
        self.reward = reward
        self.execution = execution or ExecutionConfig()
        if self.execution.isolation == "process" and recipe is None:
            raise ConfigError(
                "a worker process must be told how to make the reward",
                key=f"rewards.{name}.execution.isolation",
                hint="build the composer from a config, or give the component a Recipe",
            )
        self.recipe = recipe
        self._recall = recall
        self._guard = Guard(name, self.execution, budgets)
        self.budget = self._guard.budget
        self._held = Held(name, reward, timeout, setup_timeout)
        on_fork(self._leave_to_parent)
        self._slots: list[Slot] = []
        self._turn = asyncio.Lock()
        self._limit_turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def score(self, batch: RewardBatch) -> Outcome:
        """Score a batch, after those before it; cancelling gives its calls up. To be awaited on the control loop.

        Raises:
            Raised: The reward failed in a way that no policy covers (`FATAL`).
        """
        self._begin()
        cause: BaseException
        async with self._turn:
            try:
                return await (self._score(batch) if self._recall is None else self._score_unknown(batch, self._recall))
            except Raised as raised:
                cause = raised.cause
            except Exception as error:  # noqa: BLE001 - the caller gets it
                cause = error
        failure = self._attributed(cause)
        if isinstance(failure, Raised):
            raise failure
        return Outcome(0.0, error=failure)

    def _attributed(self, cause: BaseException) -> Raised | RewardError:
        """The error with the reward's name; `Raised` where no policy covers it."""
        if is_fatal(cause):
            cause.add_note(f"in reward {self.name!r}")
            return Raised(cause)
        return attributed(cause, self.name)

    async def set_up(self) -> None:
        """Make the reward ready before its first batch. To be awaited on the control loop.

        Raises:
            Raised: It failed in a way that no policy covers (`FATAL`).
            RewardError: It did not become ready.
        """
        self._begin()
        async with self._turn:
            for slot in self._free_slots():
                try:
                    await self._set_up(slot)
                except (Raised, RewardError) as error:
                    failure = self._attributed(error.cause if isinstance(error, Raised) else error)
                    raise failure from failure.__cause__

    def _begin(self) -> None:
        """Let `close` know of the task that begins here."""
        self._belong_to_this_process()
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _leave_to_parent(self) -> None:
        """In a forked child: the slots' threads and workers are the parent's."""
        leave_to_parent(self._slots)
        self._slots = []

    def _belong_to_this_process(self) -> None:
        """Make the slots, where there are none yet or none since a fork."""
        if self._slots:
            return
        self._turn, self._limit_turn, self._tasks = asyncio.Lock(), asyncio.Lock(), set()
        size = self.execution.concurrency
        if self.execution.isolation == "process":
            assert self.recipe is not None
            self._slots = [ProcessSlot(self._held, self.recipe) for _ in range(size)]
        else:
            kind = LoopSlot if self._held.is_async else ThreadSlot
            self._slots = [kind(self._held) for _ in range(size)]

    def _free_slots(self) -> list[Slot]:
        return [slot for slot in self._slots if not slot.busy] or self._slots[:1]

    async def _score_unknown(self, batch: RewardBatch, recall: Recall) -> Outcome:
        """Score the rows that the ledger does not know."""
        if not recall.is_identified:
            slot = self._free_slots()[0]
            await self._set_up(slot)
            recall.identify(slot.stated)
        known = await asyncio.to_thread(recall.look_up, batch)
        if known is None:
            return await self._score(batch)
        outcome = await self._score(batch.select(known.missing)) if known.missing else Outcome(0.0, answer=[])
        return await asyncio.to_thread(recall.complete, known, outcome)

    async def _score(self, batch: RewardBatch) -> Outcome:
        slots = self._free_slots()
        await self._set_up(slots[0])
        began = time.monotonic()
        chunks = cut(batch, self.execution.chunk)
        results: list[Any] = [_MISSING] * len(chunks)
        waiting = iter(enumerate(chunks))
        problem = "an earlier call passed its limit and has not returned"
        if len(chunks) == 1 and self.execution.deadline is None:
            await self._work(slots[0], waiting, results)
        elif await self._work_together(slots[: len(chunks)], waiting, results):
            problem = f"the batch took longer than its deadline of {self.execution.deadline:g} s"
        missing = RewardTimeoutError(problem, reward=self.name)
        results = [missing if result is _MISSING else result for result in results]
        return merged(results, [len(chunk) for chunk in chunks], time.monotonic() - began)

    async def _work_together(
        self, slots: Sequence[Slot], waiting: Iterator[tuple[int, RewardBatch]], results: list[Any]
    ) -> bool:
        """Score chunks in several slots at once; True if the deadline came first."""
        tasks = [asyncio.ensure_future(self._work(slot, waiting, results)) for slot in slots]
        try:
            _, pending = await asyncio.wait(tasks, timeout=self.execution.deadline, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
        if pending:
            await asyncio.wait(pending)
        for error in [task.exception() for task in tasks if not task.cancelled()]:
            if error is not None:
                raise error
        return bool(pending)

    async def _work(self, slot: Slot, waiting: Iterator[tuple[int, RewardBatch]], results: list[Any]) -> None:
        """Score chunks in a slot until there are no more, or a call hangs in it."""
        for index, chunk in waiting:
            try:
                results[index] = await self._call(slot, chunk)
            except RewardError as error:
                results[index] = error
                if slot.busy:
                    return

    async def _call(self, slot: Slot, batch: RewardBatch) -> Any:
        """One call, made again after errors that may pass.

        Raises:
            RewardError: It failed.
            Raised: It failed in a way that ends the run.
        """
        retry = self.execution.retry
        for attempt in count(1):
            try:
                return await self._attempt(slot, batch)
            except (Raised, RewardError) as error:
                cause = error.cause if isinstance(error, Raised) else error
                if is_fatal(cause):
                    raise
                if attempt == retry.attempts or not may_pass(cause, retry.errors):
                    failure = attributed(cause, self.name, attempts=attempt)
                    raise failure from failure.__cause__
            await asyncio.sleep(backoff(attempt, retry.delay, retry.max_delay))
        raise AssertionError

    async def _attempt(self, slot: Slot, batch: RewardBatch) -> Any:
        await self._set_up(slot)
        call = await self._guard.admit(batch, self._limit_turn)
        try:
            answer = await slot.score(batch)
            self._guard.answered(call, answer)
        except (Raised, RewardError) as error:
            self._guard.failed(error)
            raise
        return answer

    async def _set_up(self, slot: Slot) -> None:
        self._guard.check()
        try:
            await slot.prepare()
        except (Raised, RewardError) as error:
            self._guard.failed(error)
            raise

    def close(self) -> None:
        """Close the reward, if it was set up and no call of it hangs, and end its threads and processes.

        What goes wrong meanwhile is a warning, so that the other rewards are closed too.
        """
        if self._slots:
            closing = asyncio.run_coroutine_threadsafe(self._close(), control_loop())
            try:
                closing.result(timeout=CLOSE_WAIT)
            except (TimeoutError, CancelledError, Raised, RewardError) as error:
                cause = error.cause if isinstance(error, Raised) else error
                warnings.warn(f"reward {self.name!r}: close failed: {type(cause).__name__}: {cause}", stacklevel=2)

    async def _close(self) -> None:
        if self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        slots, self._slots = self._slots, []
        hangs = any(slot.busy for slot in slots)
        for slot in slots:
            if hangs:
                slot.abandon()
            else:
                await slot.close()
