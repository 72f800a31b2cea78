"""Daemon threads for what blocks: whatever hangs in one neither holds up its caller nor the end of the process."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeAlias

from rlaif_sdk.composer.execution.loops import settle
from rlaif_sdk.composer.execution.outcome import Returned

Job: TypeAlias = tuple[Callable[[], Any], Callable[[Returned], None]]


class DaemonThread:
    """One thread that runs one job after another; it starts with the first and ends with this object."""

    def __init__(self, name: str) -> None:
        self.job: asyncio.Future[Returned] | None = None
        self._name = name
        self._queue: SimpleQueue[Job | None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return self.job is not None and not self.job.done()

    def run(self, function: Callable[[], Any]) -> asyncio.Future[Returned]:
        """Begin a job; the future is of the running loop, and tells of the job even if nobody awaits it."""
        if self._queue is None:
            self._queue = SimpleQueue()
            threading.Thread(target=_work, args=(self._queue,), name=self._name, daemon=True).start()
            finalizer = weakref.finalize(self, self._queue.put, None)
            finalizer.atexit = False  # a composer that is closed when the process ends still needs the thread
        loop = asyncio.get_running_loop()
        job: asyncio.Future[Returned] = loop.create_future()
        self.job = job
        self._queue.put((function, lambda returned: _hand_over(loop, job, returned)))
        return job

    def stop(self) -> None:
        """End the thread after the present job."""
        if self._queue is not None:
            self._queue.put(None)
            self._queue = None


def _work(queue: SimpleQueue[Job | None]) -> None:
    while (item := queue.get()) is not None:
        function, done = item
        try:
            returned = Returned(function())
        except BaseException as error:  # noqa: BLE001 - whatever a plugin raises is handed to its caller
            returned = Returned(error=error)
        done(returned)
        del item, function, done, returned


def _hand_over(loop: asyncio.AbstractEventLoop, job: asyncio.Future[Returned], returned: Returned) -> None:
    loop.call_soon_threadsafe(settle, job, returned)
