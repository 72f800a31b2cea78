"""Batches under way in a composer: scored at once, finished in the order in which they were begun."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from rlaif_sdk.composer.calls import StartedCalls
from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.io.forks import on_fork
from rlaif_sdk.types import RewardBatch


class Ticket:
    """A place in a queue."""

    def __init__(self, before: Ticket | None) -> None:
        self._before = before
        self._lock = threading.Lock()  # held until this place is left; an Event costs as much as a whole reward
        self._lock.acquire()

    def wait(self) -> None:
        """Wait until all before it are done."""
        ahead = self._before
        while ahead is not None:
            with ahead._lock:  # noqa: SLF001 - another of the same class
                ahead = ahead._before  # noqa: SLF001
        self._before = None

    def done(self) -> None:
        """Leave the queue, whether or not those before have; once."""
        self._lock.release()


@dataclass(frozen=True, slots=True)
class Pending:
    """A batch whose rewards are being called."""

    batch: RewardBatch
    ticket: Ticket
    calls: StartedCalls


class OrderedQueue:
    """Hands out tickets, and finishes submitted batches one after another in a daemon thread; empty after a fork.

    Args:
        finish: Makes the composition of a batch, waiting for its ticket.
    """

    def __init__(self, finish: Callable[[Pending], Composition]) -> None:
        self._finish = finish
        self._empty()
        on_fork(self._empty)

    def _empty(self) -> None:
        self._tickets_lock, self._submit_lock = threading.Lock(), threading.Lock()
        self._last: Ticket | None = None
        self._queue: SimpleQueue[tuple[Pending, Future[Composition]] | None] = SimpleQueue()
        self._works = False

    def ticket(self) -> Ticket:
        """The next place in the queue."""
        with self._tickets_lock:
            self._last = Ticket(self._last)
            return self._last

    def submit(self, begin: Callable[[], Pending]) -> Future[Composition]:
        """Begin a batch and finish it; cancelling the future before it is finished gives its calls up.

        Batches are queued in the order of their tickets, whichever threads submit them: one that waited for a ticket
        behind it in the queue would wait for ever.
        """
        future: Future[Composition] = Future()
        with self._submit_lock:
            pending = begin()
            if not self._works:
                self._works, self._queue = True, SimpleQueue()
                threading.Thread(target=self._work, args=(self._queue,), name="rlaif-composer", daemon=True).start()
            self._queue.put((pending, future))
        future.add_done_callback(lambda done: pending.calls.cancel() if done.cancelled() else None)
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
