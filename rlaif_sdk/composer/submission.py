"""Batches under way in a composer: scored at once, finished in the order in which they were begun."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.composer.execution import Outcomes
from rlaif_sdk.io.forks import on_fork
from rlaif_sdk.types import RewardBatch


class Turn:
    """A place in a line."""

    def __init__(self, before: Turn | None) -> None:
        self._before = before
        self._done = threading.Event()

    def wait(self) -> None:
        """Wait until all before it are done."""
        ahead = self._before
        while ahead is not None:
            ahead._done.wait()  # noqa: SLF001 - another of the same class
            ahead = ahead._before  # noqa: SLF001
        self._before = None

    def done(self) -> None:
        """Leave the line, whether or not those before have."""
        self._done.set()


class Turns:
    """Hands out places in a line, which is empty again after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: Turn | None = None
        on_fork(self._begin_anew)

    def _begin_anew(self) -> None:
        self._lock, self._last = threading.Lock(), None

    def take(self) -> Turn:
        """The next place."""
        with self._lock:
            self._last = Turn(self._last)
            return self._last


@dataclass(frozen=True, slots=True)
class Pending:
    """A batch whose rewards are being called."""

    batch: RewardBatch
    turn: Turn
    calls: Future[Outcomes]

    def cancel(self) -> None:
        """Give the calls up."""
        self.calls.cancel()


class Finisher:
    """A daemon thread that finishes batches, one after another."""

    def __init__(self, finish: Callable[[Pending], Composition]) -> None:
        self._finish = finish
        self._begin_anew()
        on_fork(self._begin_anew)

    def _begin_anew(self) -> None:
        self._queue: SimpleQueue[tuple[Pending, Future[Composition]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._works = False

    def submit(self, begin: Callable[[], Pending]) -> Future[Composition]:
        """Begin a batch and finish it; cancelling the future before it is finished gives its calls up.

        Batches are queued in the order of their turns, whichever threads submit them: one that waited for a turn behind
        it in the queue would wait for ever.
        """
        future: Future[Composition] = Future()
        with self._lock:
            pending = begin()
            if not self._works:
                self._works, self._queue = True, SimpleQueue()
                threading.Thread(target=self._work, args=(self._queue,), name="rlaif-composer", daemon=True).start()
            self._queue.put((pending, future))
        future.add_done_callback(lambda done: pending.cancel() if done.cancelled() else None)
        return future

    def _work(self, queue: SimpleQueue[Any]) -> None:
        while (item := queue.get()) is not None:
            pending, future = item
            error: BaseException | None = None
            try:
                composition = self._finish(pending)
            except BaseException as raised:  # noqa: BLE001 - the caller gets it
                error = raised
            if not future.set_running_or_notify_cancel():
                pass
            elif error is not None:
                future.set_exception(error)
            else:
                future.set_result(composition)
            del item, pending, future, error

    def stop(self) -> None:
        """End the thread when all that was submitted is finished."""
        self._queue.put(None)
        self._works = False
