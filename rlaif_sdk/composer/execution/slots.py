"""Slots: the places where calls of a reward are made, one at a time, each ended or given up at its limit."""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rlaif_sdk.composer.execution.loops import leave_behind, reward_loop
from rlaif_sdk.composer.execution.outcome import Returned
from rlaif_sdk.composer.execution.processes import Recipe, Worker
from rlaif_sdk.composer.execution.threads import DaemonThread
from rlaif_sdk.composer.execution.wire import encode_batch
from rlaif_sdk.exceptions import RewardTimeoutError
from rlaif_sdk.rewards import FunctionReward, Reward
from rlaif_sdk.types import RewardBatch, Score

CLOSE_LIMIT = 5.0
"""Seconds that a reward's ``close`` may take."""
KILL_GRACE = 1.0


@dataclass(slots=True)
class Held:
    """A reward, the limits of its calls in seconds, and whether its setup was begun and is done in this process."""

    name: str
    reward: Reward
    timeout: float | None
    setup_timeout: float | None
    begun: bool = False
    ready: bool = False

    @property
    def is_async(self) -> bool:
        """Whether ``score`` is a coroutine function, so that calling it blocks nobody."""
        inner = self.reward.function if isinstance(self.reward, FunctionReward) else self.reward.score
        return inspect.iscoroutinefunction(inner)


class Slot(ABC):
    """A place for one call at a time. Its coroutines run on the control loop.

    Attributes:
        stated: What the reward states of itself after `prepare`, where it is an object of another process; see
            `rlaif_sdk.rewards.stated_by`.
    """

    stated: Mapping[str, str] | None = None

    @abstractmethod
    async def prepare(self) -> None:
        """Set the reward up, if it is not.

        Raises:
            Raised: The reward raised.
            RewardError: It did not become ready; a `RewardTimeoutError` if it took too long.
        """

    @abstractmethod
    async def score(self, batch: RewardBatch) -> Any:
        """Call the reward, and return what it returns.

        Raises:
            Raised: The reward raised.
            RewardError: There is no answer; a `RewardTimeoutError` if it took too long.
        """

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether a call is under way, or hangs."""

    @abstractmethod
    async def close(self) -> None:
        """Close the reward and release the slot, which is not busy."""

    @abstractmethod
    def abandon(self) -> None:
        """Release the slot, which may be busy, without waiting."""


class ThreadSlot(Slot):
    """Calls in a daemon thread. One that hangs cannot be ended: the slot refuses further calls until it returns."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._thread = DaemonThread(f"rlaif-reward-{held.name}")
        self._late = False

    async def prepare(self) -> None:
        if not self._held.ready:
            await self._run(self._set_up, "setup", self._held.setup_timeout)

    def _set_up(self) -> None:
        if not self._held.ready:
            self._held.begun = True
            self._held.reward.setup()
            self._held.ready = True

    async def score(self, batch: RewardBatch) -> Any:
        limit = self._held.timeout
        began = asyncio.get_running_loop().time()
        answer = await self._run(lambda: self._held.reward.score(batch), "scoring", limit)
        if not inspect.isawaitable(answer):
            return answer
        left = None if limit is None else began + limit - asyncio.get_running_loop().time()
        return await _on_reward_loop(lambda: answer, left, limit)

    async def _run(self, function: Callable[[], Any], phase: str, limit: float | None) -> Any:
        if self._thread.busy and not self._late:
            await asyncio.wait({self._job}, timeout=limit)
        if self._thread.busy:
            self._late = True
            raise RewardTimeoutError("an earlier call passed its limit and has not returned")
        self._late = False
        returned = self._thread.run(function)
        if not await _done(returned, limit):
            self._late = True
            raise _timeout(phase, limit)
        return returned.result().unwrap()

    @property
    def _job(self) -> asyncio.Future[Returned]:
        assert self._thread.job is not None
        return self._thread.job

    @property
    def busy(self) -> bool:
        return self._thread.busy

    async def close(self) -> None:
        try:
            if self._held.begun:
                self._held.begun = self._held.ready = False
                await self._run(self._held.reward.close, "closing", CLOSE_LIMIT)
        finally:
            self._thread.stop()

    def abandon(self) -> None:
        self._thread.stop()


class LoopSlot(ThreadSlot):
    """Calls on the event loop for async rewards; set up and closed in a thread."""

    async def score(self, batch: RewardBatch) -> Any:
        limit = self._held.timeout
        return await _on_reward_loop(lambda: self._held.reward.score(batch), limit, limit)


class ProcessSlot(Slot):
    """Calls in a worker process, which is ended at the limit and made anew for the next call."""

    def __init__(self, held: Held, recipe: Recipe) -> None:
        self._held = held
        self._recipe = recipe
        self._thread = DaemonThread(f"rlaif-process-{held.name}")
        self._worker: Worker | None = None
        self._ended = False

    async def prepare(self) -> None:
        if self._worker is None or not self._worker.alive:
            await self._run(self._make, "setup", self._held.setup_timeout)

    def _make(self) -> None:
        if self._worker is not None:
            self._worker.end()
        worker = self._worker = Worker()
        if self._ended:
            worker.end()
        try:
            (made,) = worker.ask(self._recipe.message())
            assert isinstance(made, Score)
            self.stated = made.details
        except BaseException:
            worker.end()
            raise

    async def score(self, batch: RewardBatch) -> Any:
        return await self._run(lambda: self._ask(batch), "scoring", self._held.timeout)

    def _ask(self, batch: RewardBatch) -> Any:
        assert self._worker is not None
        return self._worker.ask(encode_batch(batch, self._held.reward.columns, self._held.name))

    async def _run(self, function: Callable[[], Any], phase: str, limit: float | None) -> Any:
        if self._thread.busy:
            raise RewardTimeoutError("an earlier call was ended and has not returned")
        self._ended = False
        returned = self._thread.run(function)
        try:
            if not await _done(returned, limit):
                raise _timeout(phase, limit)
        except BaseException:
            self._ended = True
            if self._worker is not None:
                self._worker.kill()
            await asyncio.wait({returned}, timeout=KILL_GRACE)
            raise
        return returned.result().unwrap()

    @property
    def busy(self) -> bool:
        return self._thread.busy

    async def close(self) -> None:
        if self._worker is not None:
            worker, self._worker = self._worker, None
            await asyncio.wait({self._thread.run(worker.close)})
        self._thread.stop()

    def abandon(self) -> None:
        self._ended = True
        if self._worker is not None:
            self._worker.kill()
        self._thread.stop()


async def _on_reward_loop(function: Callable[[], Any], left: float | None, limit: float | None) -> Any:
    thread = reward_loop()
    call = thread.start(function)
    try:
        if await _done(call.returned, left):
            return call.returned.result().unwrap()
    finally:
        if not call.returned.done():
            call.cancel()
    if await thread.responds():
        raise _timeout("scoring", limit)
    leave_behind(thread)
    error = _timeout("scoring", limit)
    error.hint = f"its event loop is blocked at {thread.position()}: await there, or make 'score' a plain function"
    raise error


async def _done(returned: asyncio.Future[Returned], limit: float | None) -> bool:
    done, _ = await asyncio.wait({returned}, timeout=limit)
    return bool(done)


def _timeout(phase: str, limit: float | None) -> RewardTimeoutError:
    name = {"scoring": "timeout", "setup": "setup_timeout"}.get(phase)
    hint = f"raise its '{name}', or make it faster" if name else None
    return RewardTimeoutError(f"{phase} took longer than its limit of {limit:g} s", hint=hint)
