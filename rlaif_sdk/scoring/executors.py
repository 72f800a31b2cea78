"""Executors: the places where calls of a reward are made, one at a time, each ended or given up at its limit."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import inspect
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeAlias

from rlaif_sdk.exceptions import RewardTimeoutError
from rlaif_sdk.io.forks import on_fork
from rlaif_sdk.rewards import FunctionReward, Reward, ScoreLike, unwrapped
from rlaif_sdk.scoring.checks import plain_scores
from rlaif_sdk.scoring.event_loops import leave_behind, resolve, reward_loop
from rlaif_sdk.scoring.factory import Recipe
from rlaif_sdk.scoring.processes import Worker
from rlaif_sdk.scoring.results import CallError
from rlaif_sdk.scoring.wire import encode_batch
from rlaif_sdk.types import RewardBatch, Score

DEFAULT_TIMEOUT = 300.0
"""Seconds that one call may take where ``timeout`` is ``auto``."""
CLOSE_LIMIT = 5.0
"""Seconds that a reward's ``close`` may take."""
KILL_GRACE = 1.0
_LAST_WAIT = 2.0
"""Seconds that the end of the process waits for the calls that are under way, all together."""


_Job: TypeAlias = tuple[Callable[[], Any], Callable[[Any, CallError | None], object]]


class DaemonThread:
    """One daemon thread that runs one job after another; it starts with the first and ends with this object.

    Whatever hangs in it does not hold up its caller, nor the end of the process by more than two seconds.
    """

    def __init__(self, name: str) -> None:
        self.job: asyncio.Future[Any] | None = None
        self._name = name
        self._queue: SimpleQueue[_Job | None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return self.job is not None and not self.job.done()

    def run(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Begin a job; the future is of the running loop, tells of the job even if nobody awaits it, raises `CallError`."""
        if self._queue is None:
            self._queue = SimpleQueue()
            threading.Thread(target=_work, args=(self._queue,), name=self._name, daemon=True).start()
            finalizer = weakref.finalize(self, self._queue.put, None)
            finalizer.atexit = False  # a composer that is closed when the process ends still needs the thread
        loop = asyncio.get_running_loop()
        job: asyncio.Future[Any] = loop.create_future()
        self.job = job
        self._queue.put((function, lambda value, error: loop.call_soon_threadsafe(resolve, job, value, error)))
        return job

    def stop(self) -> None:
        """End the thread after the present job."""
        if self._queue is not None:
            self._queue.put(None)
            self._queue = None


_working: set[int] = set()
"""The identifiers of the threads that run a job now."""


def _work(queue: SimpleQueue[_Job | None]) -> None:
    me = threading.get_ident()
    while (item := queue.get()) is not None:
        function, done = item
        value, error = None, None
        _working.add(me)
        try:
            value = function()
        except BaseException as raised:  # noqa: BLE001 - whatever a plugin raises is handed to its caller
            error = CallError(raised)
        _working.discard(me)
        done(value, error)
        del item, function, done, value, error


@atexit.register
def _end_calls() -> None:
    """Have the calls that are under way end before the interpreter does.

    Until 3.14 CPython ends a daemon thread that comes back from a library of C++ after the interpreter's end with
    ``pthread_exit``, which such a library takes for a fault: it aborts the process. So each thread is asked to leave
    at its next line of Python; one that hangs is left to its fate.
    """
    for thread in list(_working):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(SystemExit))
    until = time.monotonic() + _LAST_WAIT
    while _working and time.monotonic() < until:
        time.sleep(0.01)


def _forget_calls() -> None:
    """They are the parent's."""
    _working.clear()


on_fork(_forget_calls)


class RewardHandle:
    """A reward, the limits of its calls in seconds, and whether its setup was begun and is done in this process.

    Attributes:
        is_async: Whether ``score`` is a coroutine function, so that calling it blocks nobody.
        is_plain: Whether it is synchronous and has neither a setup nor a close of its own.
        is_called_here: Whether it may be called in any caller's thread: then one call waits for the other.
    """

    def __init__(self, name: str, reward: Reward, timeout: float | None, setup_timeout: float | None) -> None:
        self.name = name
        self.reward = reward
        self.timeout = timeout
        self.setup_timeout = setup_timeout
        self.is_async = _is_async(reward)
        self.is_plain = is_plain(reward)
        self.is_called_here = False
        self.begun = False
        self.ready = self.is_plain
        self.lock = threading.RLock()
        """Held while a reward is called that is called in any thread; a new one after a fork."""
        on_fork(self._unlock)

    def _unlock(self) -> None:
        self.lock = threading.RLock()

    def score(self, batch: RewardBatch) -> list[ScoreLike] | Awaitable[list[ScoreLike]]:
        """Call the reward, with rows of its own, and read what it returns; to be called where its limit holds.

        Raises:
            BaseException: What the reward raises.
            RewardOutputError: It returned something else than an entry a row.
        """
        answer = self.reward.score(batch.private())
        return _read(answer, len(batch)) if hasattr(answer, "__await__") else plain_scores(answer, len(batch))

    def score_alone(self, batch: RewardBatch) -> list[ScoreLike] | Awaitable[list[ScoreLike]]:
        """`score` from an executor's thread, alone where other threads may call the reward too."""
        if not self.is_called_here:
            return self.score(batch)
        with self.lock:
            return self.score(batch)


async def _read(answer: Awaitable[Any], rows: int) -> list[ScoreLike]:
    return plain_scores(await answer, rows)


def is_plain(reward: Reward) -> bool:
    """Whether a reward is synchronous and has neither a setup nor a close of its own."""
    return not _is_async(reward) and not _has_setup(reward)


def _is_async(reward: Reward) -> bool:
    return inspect.iscoroutinefunction(reward.function if isinstance(reward, FunctionReward) else reward.score)


def _has_setup(reward: Reward) -> bool:
    target = unwrapped(reward)
    methods = [(getattr(target, name, None), getattr(Reward, name)) for name in ("setup", "close")]
    return any(own is not None and getattr(own, "__func__", own) is not default for own, default in methods)


class Executor(ABC):
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
            CallError: The reward raised.
            RewardError: It did not become ready; a `RewardTimeoutError` if it took too long.
        """

    @abstractmethod
    async def score(self, batch: RewardBatch) -> list[ScoreLike]:
        """Call the reward, and return what it returns as `plain_scores` reads it.

        Raises:
            CallError: The reward raised.
            RewardError: There is no answer; a `RewardTimeoutError` if it took too long.
        """

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether a call is under way, or hangs."""

    @abstractmethod
    async def close(self) -> None:
        """Close the reward and release the executor, which is not busy."""

    @abstractmethod
    def abandon(self) -> None:
        """Release the executor, which may be busy, without waiting."""


class ThreadExecutor(Executor):
    """Calls in a daemon thread. One that hangs cannot be ended: the executor refuses further calls until it returns."""

    def __init__(self, handle: RewardHandle) -> None:
        self._handle = handle
        self._thread = DaemonThread(f"rlaif-reward-{handle.name}")
        self._late = False

    async def prepare(self) -> None:
        if not self._handle.ready:
            await self._run(self._set_up, "setup", self._handle.setup_timeout)

    def _set_up(self) -> None:
        if not self._handle.ready:
            self._handle.begun = True
            self._handle.reward.setup()
            self._handle.ready = True

    async def score(self, batch: RewardBatch) -> list[ScoreLike]:
        limit = self._handle.timeout
        began = asyncio.get_running_loop().time()
        answer = await self._run(partial(self._handle.score_alone, batch), "scoring", limit)
        if isinstance(answer, list):
            return answer
        left = None if limit is None else began + limit - asyncio.get_running_loop().time()
        scores: list[ScoreLike] = await on_reward_loop(lambda: answer, left, limit)
        return scores

    async def _run(self, function: Callable[[], Any], phase: str, limit: float | None) -> Any:
        if self._thread.busy and not self._late:
            await asyncio.wait({self._job}, timeout=limit)
        if self._thread.busy:
            self._late = True
            raise RewardTimeoutError("an earlier call passed its limit and has not returned")
        self._late = False
        result = self._thread.run(function)
        if not await _done(result, limit):
            self._late = True
            raise _timeout(phase, limit)
        return result.result()

    @property
    def _job(self) -> asyncio.Future[Any]:
        assert self._thread.job is not None
        return self._thread.job

    @property
    def busy(self) -> bool:
        return self._thread.busy

    async def close(self) -> None:
        try:
            if self._handle.begun:
                self._handle.begun = self._handle.ready = False
                await self._run(self._handle.reward.close, "closing", CLOSE_LIMIT)
        finally:
            self._thread.stop()

    def abandon(self) -> None:
        self._thread.stop()


class EventLoopExecutor(ThreadExecutor):
    """Calls on the event loop for async rewards; set up and closed in a thread."""

    async def score(self, batch: RewardBatch) -> list[ScoreLike]:
        limit = self._handle.timeout
        scores: list[ScoreLike] = await on_reward_loop(lambda: self._handle.score(batch), limit, limit)
        return scores


class ProcessExecutor(Executor):
    """Calls in a worker process, which is ended at the limit and made anew for the next call."""

    def __init__(self, handle: RewardHandle, recipe: Recipe) -> None:
        self._handle = handle
        self._recipe = recipe
        self._thread = DaemonThread(f"rlaif-process-{handle.name}")
        self._worker: Worker | None = None
        self._ended = False

    async def prepare(self) -> None:
        if self._worker is None or not self._worker.alive:
            await self._run(self._make, "setup", self._handle.setup_timeout)

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

    async def score(self, batch: RewardBatch) -> list[ScoreLike]:
        scores: list[ScoreLike] = await self._run(lambda: self._ask(batch), "scoring", self._handle.timeout)
        return scores

    def _ask(self, batch: RewardBatch) -> Any:
        assert self._worker is not None
        return self._worker.ask(encode_batch(batch, self._handle.reward.columns, self._handle.name))

    async def _run(self, function: Callable[[], Any], phase: str, limit: float | None) -> Any:
        if self._thread.busy:
            raise RewardTimeoutError("an earlier call was ended and has not returned")
        self._ended = False
        result = self._thread.run(function)
        try:
            if not await _done(result, limit):
                raise _timeout(phase, limit)
        except BaseException:
            self._ended = True
            if self._worker is not None:
                self._worker.kill()
            await asyncio.wait({result}, timeout=KILL_GRACE)
            raise
        return result.result()

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


async def on_reward_loop(function: Callable[[], Any], left: float | None, limit: float | None) -> Any:
    """Call a function on the event loop of async rewards, and await what it returns.

    Args:
        function: What to call.
        left: Seconds after which it is given up, or None.
        limit: The limit that an error states.

    Raises:
        CallError: It raised.
        RewardTimeoutError: It took too long.
    """
    thread = reward_loop()
    call = thread.start(function)
    try:
        if await _done(call.result, left):
            return call.result.result()
    finally:
        if not call.result.done():
            call.cancel()
    if await thread.responds():
        raise _timeout("scoring", limit)
    leave_behind(thread)
    error = _timeout("scoring", limit)
    error.hint = f"its event loop is blocked at {thread.position()}: await there, or make 'score' a plain function"
    raise error


async def _done(result: asyncio.Future[Any], limit: float | None) -> bool:
    done, _ = await asyncio.wait({result}, timeout=limit)
    return bool(done)


def _timeout(phase: str, limit: float | None) -> RewardTimeoutError:
    name = {"scoring": "timeout", "setup": "setup_timeout"}.get(phase)
    hint = f"raise its '{name}', or make it faster" if name else None
    return RewardTimeoutError(f"{phase} took longer than its limit of {limit:g} s", hint=hint)
