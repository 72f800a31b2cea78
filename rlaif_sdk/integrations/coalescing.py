"""Samples that are scored together, because other stacks ask for a few at a time and many at once."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from rlaif_sdk.composer import Composition
from rlaif_sdk.exceptions import RewardError, RewardTimeoutError
from rlaif_sdk.integrations.samples import Sample, Scored, batch_of
from rlaif_sdk.types import RewardBatch


@dataclass(frozen=True, slots=True)
class _Call:
    """Samples that somebody asks for, which stay together.

    Attributes:
        alone: Whether it is scored in a batch of its own, because a reward failed on the batch that it was in.
    """

    samples: Sequence[Sample]
    future: Future[list[Scored]]
    alone: bool = False

    def goes_with(self, other: _Call) -> bool:
        """Whether both may be in one batch: none may get the other's columns, or be taken for its group."""
        kinds = [(call.samples[0].columns.keys(), call.samples[0].group is None) for call in (self, other)]
        return not self.alone and not other.alone and kinds[0] == kinds[1]


class Coalescer:
    """Scores samples as they come, and those that come while it is busy together.

    There is no waiting time: a call that finds fewer than ``in_flight`` batches under way is scored at once, alone.
    Where a reward fails on a batch of several calls as a whole, each is scored again by itself, so that no caller's
    samples are unscored for another's; not so where the reward ran out of time.

    Args:
        submit: Begins to score a batch; `rlaif_sdk.Composer.submit`.
        max_rows: Rows in a batch at most; a call of more is a batch by itself.
        in_flight: Batches under way at most.
    """

    def __init__(
        self, submit: Callable[[RewardBatch], Future[Composition]], *, max_rows: int = 256, in_flight: int = 4
    ) -> None:
        self._submit = submit
        self._max_rows = max_rows
        self._free = in_flight
        self._waiting: deque[_Call] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Samples that wait."""
        with self._lock:
            return sum(len(call.samples) for call in self._waiting if not call.future.cancelled())

    def score(self, samples: Sequence[Sample]) -> Future[list[Scored]]:
        """Begin to score samples, one or more, that have the same columns and all a group or none.

        Cancelling the future gives them up, and their batch if all in it are given up.
        """
        future: Future[list[Scored]] = Future()
        self._enqueue([_Call(samples, future)])
        return future

    def _enqueue(self, calls: Sequence[_Call]) -> None:
        with self._lock:
            self._waiting.extend(calls)
        self._begin()

    def _begin(self) -> None:
        """Begin as many batches as may be under way."""
        while taken := self._take():
            try:
                composing = self._submit(batch_of([sample for call in taken for sample in call.samples]))
            except BaseException as error:  # noqa: BLE001 - the callers get it
                self._leave()
                self._fail(taken, error)
                continue
            _give_up_together([call.future for call in taken], composing)
            composing.add_done_callback(functools.partial(self._deliver, taken))

    def _take(self) -> list[_Call]:
        """Calls for a batch: the longest waiting one, and those after it that go with it and fit."""
        with self._lock:
            if not self._free:
                return []
            taken: list[_Call] = []
            left: deque[_Call] = deque()
            rows = 0
            for call in self._waiting:
                if call.future.cancelled():
                    continue
                fits = not taken or (rows + len(call.samples) <= self._max_rows and call.goes_with(taken[0]))
                (taken if fits else left).append(call)
                rows += len(call.samples) if fits else 0
            self._waiting = left
            self._free -= bool(taken)
            return taken

    def _leave(self) -> None:
        with self._lock:
            self._free += 1

    def _deliver(self, taken: list[_Call], done: Future[Composition]) -> None:
        self._leave()
        if not done.cancelled():
            error = done.exception()
            causes = [error] if error else [column.error for column in done.result().rewards.values()]
            if len(taken) > 1 and any(map(_may_be_anothers, causes)):
                self._enqueue([replace(call, alone=True) for call in taken])
            elif error:
                self._fail(taken, error)
            else:
                self._hand_over(taken, done.result())
        self._begin()

    @staticmethod
    def _hand_over(taken: list[_Call], composition: Composition) -> None:
        row = 0
        for call in taken:
            rows = range(row, row + len(call.samples))
            if call.future.set_running_or_notify_cancel():
                call.future.set_result([Scored(composition, row) for row in rows])
            row = rows.stop

    @staticmethod
    def _fail(taken: list[_Call], error: BaseException) -> None:
        for call in taken:
            if call.future.set_running_or_notify_cancel():
                call.future.set_exception(error)


def _may_be_anothers(error: BaseException | None) -> bool:
    """Whether one call's samples may have made a reward fail on all."""
    return isinstance(error, RewardError) and not isinstance(error, RewardTimeoutError)


def _give_up_together(futures: list[Future[list[Scored]]], composing: Future[Composition]) -> None:
    """Cancel what composes when the last of those who wait for it has left."""
    left = len(futures)
    lock = threading.Lock()

    def note(future: Future[list[Scored]]) -> None:
        nonlocal left
        if future.cancelled():
            with lock:
                left -= 1
            if not left:
                composing.cancel()

    for future in futures:
        future.add_done_callback(note)
