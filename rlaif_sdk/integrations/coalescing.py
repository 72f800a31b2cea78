"""Single samples that are scored together, because other stacks ask for one at a time and many at once."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from rlaif_sdk.composer import Composition
from rlaif_sdk.integrations.samples import Sample, Scored, batch_of
from rlaif_sdk.types import RewardBatch

_Waiting = tuple[Sample, "Future[Scored]"]


class Coalescer:
    """Scores samples as they come, and those that come while it is busy together.

    There is no waiting time: a sample that finds fewer than ``in_flight`` batches under way is scored at once, alone.

    Args:
        submit: Begins to score a batch; `rlaif_sdk.Composer.submit`.
        max_rows: Rows in a batch at most.
        in_flight: Batches under way at most.
    """

    def __init__(
        self, submit: Callable[[RewardBatch], Future[Composition]], *, max_rows: int = 256, in_flight: int = 4
    ) -> None:
        self._submit = submit
        self._max_rows = max_rows
        self._free = in_flight
        self._waiting: deque[_Waiting] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Samples that wait."""
        return len(self._waiting)

    def score(self, sample: Sample) -> Future[Scored]:
        """Begin to score a sample. Cancelling the future gives it up, and its batch if all in it are given up."""
        future: Future[Scored] = Future()
        with self._lock:
            self._waiting.append((sample, future))
        self._begin()
        return future

    def _begin(self) -> None:
        """Begin as many batches as may be under way."""
        while taken := self._take():
            try:
                composing = self._submit(batch_of([sample for sample, _ in taken]))
            except BaseException as error:  # noqa: BLE001 - the callers get it
                self._fail(taken, error)
                self._leave()
                continue
            _give_up_together([future for _, future in taken], composing)
            composing.add_done_callback(functools.partial(self._deliver, taken))

    def _take(self) -> list[_Waiting]:
        """Samples for a batch: the longest waiting one, and those after it that have the same columns."""
        with self._lock:
            while self._waiting and self._waiting[0][1].cancelled():
                self._waiting.popleft()
            if not self._waiting or not self._free:
                return []
            columns = self._waiting[0][0].columns.keys()
            taken: list[_Waiting] = []
            left: deque[_Waiting] = deque()
            while self._waiting and len(taken) < self._max_rows:
                entry = self._waiting.popleft()
                (taken if entry[0].columns.keys() == columns else left).append(entry)
            self._waiting.extendleft(reversed(left))
            self._free -= 1
            return taken

    def _leave(self) -> None:
        with self._lock:
            self._free += 1

    def _deliver(self, taken: list[_Waiting], done: Future[Composition]) -> None:
        self._leave()
        error = None if done.cancelled() else done.exception()
        if error is not None:
            self._fail(taken, error)
        elif not done.cancelled():
            composition = done.result()
            for row, (_, future) in enumerate(taken):
                if future.set_running_or_notify_cancel():
                    future.set_result(Scored(composition, row))
        self._begin()

    @staticmethod
    def _fail(taken: list[_Waiting], error: BaseException) -> None:
        for _, future in taken:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)


def _give_up_together(futures: list[Future[Scored]], composing: Future[Composition]) -> None:
    """Cancel what composes when the last of those who wait for it has left."""
    left = len(futures)
    lock = threading.Lock()

    def note(future: Future[Scored]) -> None:
        nonlocal left
        if future.cancelled():
            with lock:
                left -= 1
            if not left:
                composing.cancel()

    for future in futures:
        future.add_done_callback(note)
