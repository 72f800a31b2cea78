"""Samples that are scored together, because other stacks ask for a few at a time and many at once."""

from __future__ import annotations

import asyncio
import contextlib
import functools
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
    future: asyncio.Future[list[Scored]]
    alone: bool = False

    def goes_with(self, other: _Call) -> bool:
        """Whether both may be in one batch: none may get the other's columns, or be taken for its group."""
        kinds = [(call.samples[0].columns.keys(), call.samples[0].group is None) for call in (self, other)]
        return not self.alone and not other.alone and kinds[0] == kinds[1]


class Coalescer:
    """Scores samples as they come on one event loop, and those that come while it is busy together.

    There is no waiting time: what is asked for in one turn of the loop goes together, and is begun at once if fewer than
    ``in_flight`` batches are under way. Where a reward fails on a batch of several calls as a whole, each is scored again
    by itself, so that no caller's samples are unscored for another's; not so where the reward ran out of time.

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
        self._will_begin = False

    def __len__(self) -> int:
        """Samples that wait."""
        return sum(len(call.samples) for call in self._waiting if not call.future.cancelled())

    def score(self, samples: Sequence[Sample]) -> asyncio.Future[list[Scored]]:
        """Begin to score samples, one or more, that have the same columns and all a group or none.

        Cancelling the future gives them up, and their batch if all in it are given up.
        """
        future: asyncio.Future[list[Scored]] = asyncio.get_running_loop().create_future()
        self._enqueue([_Call(samples, future)])
        return future

    def _enqueue(self, calls: Sequence[_Call]) -> None:
        self._waiting.extend(calls)
        if not self._will_begin:
            self._will_begin = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        """Begin as many batches as may be under way."""
        self._will_begin = False
        loop = asyncio.get_running_loop()
        while taken := self._take():
            try:
                composing = self._submit(batch_of([sample for call in taken for sample in call.samples]))
            except Exception as error:  # noqa: BLE001 - the callers get it
                self._free += 1
                _fail(taken, error)
                continue
            for call in taken:
                call.future.add_done_callback(functools.partial(_give_up, taken, composing))
            composing.add_done_callback(functools.partial(self._hand_to, loop, taken))

    def _take(self) -> list[_Call]:
        """Calls for a batch: the longest waiting one, and those after it that go with it and fit."""
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

    def _hand_to(self, loop: asyncio.AbstractEventLoop, taken: list[_Call], done: Future[Composition]) -> None:
        """Wake the loop once for a whole batch, from the composer's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(self._deliver, taken, done)

    def _deliver(self, taken: list[_Call], done: Future[Composition]) -> None:
        self._free += 1
        if not done.cancelled():
            error = done.exception()
            causes = [error] if error else [column.error for column in done.result().rewards.values()]
            if len(taken) > 1 and any(map(_may_be_anothers, causes)):
                self._waiting.extend(replace(call, alone=True) for call in taken)
            elif error:
                _fail(taken, error)
            else:
                _hand_over(taken, done.result())
        self._begin()


def _hand_over(taken: list[_Call], composition: Composition) -> None:
    row = 0
    for call in taken:
        rows = range(row, row + len(call.samples))
        if not call.future.done():
            call.future.set_result([Scored(composition, row) for row in rows])
        row = rows.stop


def _fail(taken: list[_Call], error: BaseException) -> None:
    for call in taken:
        if not call.future.done():
            call.future.set_exception(error)


def _may_be_anothers(error: BaseException | None) -> bool:
    """Whether one call's samples may have made a reward fail on all."""
    return isinstance(error, RewardError) and not isinstance(error, RewardTimeoutError)


def _give_up(taken: list[_Call], composing: Future[Composition], given_up: asyncio.Future[list[Scored]]) -> None:
    """Cancel what composes when the last of those who wait for it has left."""
    if given_up.cancelled() and all(call.future.cancelled() for call in taken):
        composing.cancel()
