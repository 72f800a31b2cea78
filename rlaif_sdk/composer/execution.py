"""Runs all rewards of a composition at once, each within its own time limit.

Each reward has one daemon thread, in which it is set up and called, one call after another. What it returns may be
awaitable: it is then awaited on one event loop shared by the process. A call that passes its limit is given up: a
coroutine is cancelled; a thread cannot be, so the reward is failed at once until the old call returns.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from rlaif_sdk.exceptions import (
    BatchError,
    ConfigError,
    JudgeAuthError,
    JudgeQuotaError,
    MissingExtraError,
    PluginError,
    RewardError,
    RewardTimeoutError,
    StateError,
)
from rlaif_sdk.rewards import Reward, Scores
from rlaif_sdk.types import RewardBatch

FATAL = (BatchError, ConfigError, JudgeAuthError, JudgeQuotaError, MissingExtraError, PluginError, StateError)
"""Errors that no failure policy covers: every later call would fail in the same way."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one call: an answer or an error, and the seconds that scoring took."""

    seconds: float
    answer: Scores | None = None
    error: RewardError | None = None


class Call:
    """One call of one reward, under way."""

    def __init__(self, runner: Runner, batch: RewardBatch) -> None:
        self.runner = runner
        self.batch = batch
        self.future: Future[Scores] = Future()
        self.setup_since: float | None = None
        self.score_since: float | None = None
        self.score_until: float | None = None
        self.abandoned = False
        self._task: Future[Scores] | None = None
        self._started = time.monotonic()

    def run(self) -> None:
        """Set the reward up if need be, and score; in the reward's thread."""
        try:
            if not self.runner.ready:
                self.setup_since = time.monotonic()
                self.runner.reward.setup()
                self.runner.ready = True
            self.score_since = time.monotonic()
            answer = self.runner.reward.score(self.batch)
        except BaseException as error:  # noqa: BLE001 - whatever a plugin raises is handed to its caller
            self._finish(error=error)
            return
        if inspect.isawaitable(answer):
            self._task = asyncio.run_coroutine_threadsafe(_await(answer), event_loop())
            self._task.add_done_callback(self._task_done)
        else:
            self._finish(answer=answer)

    def _task_done(self, task: Future[Scores]) -> None:
        if task.cancelled():
            self._finish(error=asyncio.CancelledError("cancelled"))
        elif (error := task.exception()) is not None:
            self._finish(error=error)
        else:
            self._finish(answer=task.result())

    def _finish(self, *, answer: Any = None, error: BaseException | None = None) -> None:
        self.score_until = time.monotonic()
        if self.future.done():
            return
        if error is None:
            self.future.set_result(answer)
        else:
            self.future.set_exception(error)

    @property
    def deadline(self) -> float:
        """When this call is given up, on the monotonic clock."""
        if self.score_since is not None:
            return _after(self.score_since, self.runner.timeout)
        if self.setup_since is None and (ahead := self.runner.busy_with(self)):
            return ahead.deadline
        return _after(self.setup_since or self._started, self.runner.setup_timeout)

    def earliest_deadline(self, now: float) -> float:
        """The soonest that `deadline` can fall: while the setup runs, scoring may begin at any moment."""
        return self.deadline if self.score_since else min(self.deadline, _after(now, self.runner.timeout))

    def cancel(self) -> None:
        """Cancel the coroutine, if there is one; a thread cannot be cancelled."""
        if self._task is not None:
            self._task.cancel()

    def give_up(self) -> Outcome:
        """Stop waiting."""
        if self.setup_since is None and self.runner.busy_with(self):
            self.abandoned = True
            return Outcome(seconds=0.0, error=self.runner.stuck_error())
        phase, limit = ("scoring", self.runner.timeout)
        if self.score_since is None:
            phase, limit = ("setup", self.runner.setup_timeout)
        self.cancel()
        error = RewardTimeoutError(
            f"{phase} took longer than its limit of {limit:g} s",
            reward=self.runner.name,
            hint=f"raise its '{'timeout' if phase == 'scoring' else 'setup_timeout'}', or make it faster",
        )
        return Outcome(seconds=limit or 0.0, error=error)

    def outcome(self) -> Outcome:
        """What came of a finished call.

        Raises:
            RlaifError: One of `FATAL`, with a note that names the reward.
        """
        seconds = (self.score_until or 0.0) - (self.score_since or self.score_until or 0.0)
        cause = self.future.exception()
        if cause is None:
            return Outcome(seconds=seconds, answer=self.future.result())
        if isinstance(cause, (*FATAL, KeyboardInterrupt)):
            cause.add_note(f"in reward {self.runner.name!r}")
            raise cause
        if isinstance(cause, RewardError):
            cause.reward = cause.reward or self.runner.name
            return Outcome(seconds=seconds, error=cause)
        error = RewardError(f"raised {type(cause).__name__}: {cause}", reward=self.runner.name)
        error.__cause__ = cause
        return Outcome(seconds=seconds, error=error)


class Runner:
    """A reward with its thread and its limits.

    Args:
        name: The reward's name in the composition.
        reward: The reward.
        timeout: Seconds that one call may take, or None.
        setup_timeout: Seconds that its setup may take, or None.
    """

    def __init__(self, name: str, reward: Reward, *, timeout: float | None, setup_timeout: float | None) -> None:
        self.name = name
        self.reward = reward
        self.timeout = timeout
        self.setup_timeout = setup_timeout
        self.ready = False
        self._thread: threading.Thread | None = None
        self._queue: SimpleQueue[Call | None] = SimpleQueue()
        self._pid = os.getpid()
        self._current: Call | None = None

    def start(self, batch: RewardBatch) -> Call:
        """Begin a call."""
        call = Call(self, batch)
        if self._thread is None or self._pid != os.getpid():
            self._pid, self._queue, self._current = os.getpid(), SimpleQueue(), None
            self._thread = threading.Thread(
                target=self._work, args=(self._queue,), name=f"rlaif-reward-{self.name}", daemon=True
            )
            self._thread.start()
        if (ahead := self.busy_with(call)) and ahead.deadline <= time.monotonic():
            call.future.set_exception(self.stuck_error())
        else:
            self._queue.put(call)
        return call

    def busy_with(self, call: Call) -> Call | None:
        """The other call that occupies the thread, if there is one."""
        current = self._current
        return None if current is None or current is call or current.future.done() else current

    def stuck_error(self) -> RewardTimeoutError:
        """What a call gets that would have to wait for one that passed its limit."""
        return RewardTimeoutError("an earlier call passed its limit and has not returned", reward=self.name)

    def _work(self, queue: SimpleQueue[Call | None]) -> None:
        while (call := queue.get()) is not None:
            if not call.abandoned:
                self._current = call
                call.run()
                self._current = None

    def close(self) -> None:
        """End the thread and close the reward; a thread that hangs is left behind, as a daemon."""
        if self._thread is None:
            return
        self._queue.put(None)
        self._thread = None
        current = self._current
        if current is None or current.future.done():
            self.ready = False
            self.reward.close()


def run_all(runners: Mapping[str, Runner], batches: Mapping[str, RewardBatch]) -> dict[str, Outcome]:
    """Call every reward at once and wait for each until its limit.

    Raises:
        RlaifError: A reward failed in a way that no policy covers (`FATAL`).
    """
    calls = {name: runner.start(batches[name]) for name, runner in runners.items()}
    outcomes: dict[str, Outcome] = {}
    pending = {call.future: name for name, call in calls.items()}
    try:
        while pending:
            now = time.monotonic()
            for future, name in list(pending.items()):
                if not future.done() and calls[name].deadline <= now:
                    outcomes[name] = calls[name].give_up()
                    del pending[future]
            if not pending:
                break
            soonest = min(calls[name].earliest_deadline(now) for name in pending.values())
            limit = None if soonest == math.inf else max(soonest - now, 0.0)
            for future in wait(pending, timeout=limit, return_when=FIRST_COMPLETED).done:
                name = pending.pop(future)
                outcomes[name] = calls[name].outcome()
    finally:
        for name in pending.values():
            calls[name].cancel()
    return {name: outcomes[name] for name in runners}


async def _await(answer: Any) -> Scores:
    result: Scores = await answer
    return result


def _after(since: float, limit: float | None) -> float:
    return math.inf if limit is None else since + limit


_loop_lock = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}


def event_loop() -> asyncio.AbstractEventLoop:
    """The event loop for async rewards, running in a daemon thread; one a process, made anew after a fork."""
    with _loop_lock:
        loop = _loops.get(os.getpid())
        if loop is None:
            _loops.clear()
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="rlaif-event-loop", daemon=True).start()
        return loop
