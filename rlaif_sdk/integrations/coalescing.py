"""Samples that are scored together, because other stacks ask for a few at a time and many at once."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from rlaif_sdk.composer import Composition
from rlaif_sdk.exceptions import RewardError, RewardTimeoutError
from rlaif_sdk.integrations.samples import Sample, Scored, batch_of
from rlaif_sdk.types import Progress, RewardBatch

_GiveUp = Callable[[asyncio.Future[list[Scored]]], None]
PATIENCE = 0.02
"""Seconds that a batch waits to be filled while others are under way, where one more may be."""


@dataclass(eq=False, slots=True)
class _Call:
    """Samples that somebody asks for, which stay together.

    Attributes:
        since: When they were asked for, by the loop's clock.
        progress: How far training is.
        training: Whether running statistics learn from them.
        alone: Whether it is scored in a batch of its own: what it teaches must not depend on what else is asked for, or a
            reward failed on the batch that it was in.
        kind: What must be alike in a batch.
    """

    samples: Sequence[Sample]
    future: asyncio.Future[list[Scored]]
    since: float
    progress: Progress
    training: bool
    alone: bool
    kind: tuple[Any, ...] = field(init=False)

    def __post_init__(self) -> None:
        first = self.samples[0]
        has = (first.group is None, first.completion_ids is None, first.turn_spans is None)
        self.kind = first.columns.keys(), has, self.progress, self.training

    def goes_with(self, other: _Call) -> bool:
        """Whether both may be in one batch: none may get the other's columns, be taken for its group, or lose its tokens."""
        return not self.alone and not other.alone and self.kind == other.kind


class Coalescer:
    """Scores samples as they come on one event loop, and those that come while it is busy together.

    What is asked for in one turn of the loop goes together, and is begun at once if nothing is under way. Beside other
    batches a full one is begun at once, and another when it has waited for `PATIENCE`: many small batches cost more
    than a few that fill while one is scored. When ``in_flight`` batches are under way none is begun until one of them
    ends, however long that takes. Where a reward fails on a batch of several calls as a whole, each is scored again by
    itself, so that no caller's samples are unscored for another's; not so where the reward ran out of time.

    Args:
        submit: Begins to score a batch; `rlaif_sdk.Composer.submit`.
        max_rows: Rows in a batch at most; a call of more is a batch by itself.
        in_flight: Batches under way at most.
        scored: Called with each composition that callers get their scores from, not with one whose calls are scored again.
    """

    def __init__(
        self,
        submit: Callable[[RewardBatch], Future[Composition]],
        *,
        max_rows: int = 256,
        in_flight: int = 4,
        scored: Callable[[Composition], None] = lambda _: None,
    ) -> None:
        self._submit = submit
        self._scored = scored
        self._max_rows = max_rows
        self._in_flight = in_flight
        self._under_way = 0
        self._waiting: deque[_Call] = deque()
        self._rows = 0
        self._will_begin = False
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Samples that wait."""
        return sum(len(call.samples) for call in self._waiting if not call.future.cancelled())

    def score(
        self,
        samples: Sequence[Sample],
        *,
        progress: Progress | None = None,
        training: bool = False,
        alone: bool = False,
    ) -> asyncio.Future[list[Scored]]:
        """Begin to score samples, one or more, that have the same columns and all a group or none.

        Cancelling the future gives them up, and their batch if all in it are given up.

        Args:
            samples: The samples.
            progress: How far training is; samples at another step are in another batch.
            training: Whether running statistics learn from them.
            alone: Whether they are a batch of their own.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Scored]] = loop.create_future()
        self._waiting.append(_Call(samples, future, loop.time(), progress or Progress(), training, alone))
        self._rows += len(samples)
        if not self._will_begin:
            self._will_begin = True
            loop.call_soon(self._begin)
        return future

    def _begin(self) -> None:
        """Begin as many batches as may be under way, and as are due."""
        self._will_begin = False
        loop = asyncio.get_running_loop()
        while self._is_due(loop) and (taken := self._take()):
            try:
                samples = [sample for call in taken for sample in call.samples]
                composing = self._submit(batch_of(samples, taken[0].progress, training=taken[0].training))
            except Exception as error:  # noqa: BLE001 - the callers get it
                _fail(taken, error)
                continue
            self._under_way += 1
            give_up = functools.partial(_give_up, taken, composing)
            for call in taken:
                call.future.add_done_callback(give_up)
            composing.add_done_callback(functools.partial(self._hand_to, loop, taken, give_up))

    def _is_due(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether a batch may be begun now; if it may be later, by a timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting or self._under_way >= self._in_flight:
            return False
        due = self._waiting[0].since + PATIENCE
        if not self._under_way or self._rows >= self._max_rows or due <= loop.time():
            return True
        self._timer = loop.call_at(due, self._begin)
        return False

    def _take(self) -> list[_Call]:
        """Calls for a batch: the longest waiting one, and those after it that go with it and fit."""
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
        self._rows = sum(len(call.samples) for call in left)
        return taken

    def _hand_to(
        self, loop: asyncio.AbstractEventLoop, taken: list[_Call], give_up: _GiveUp, done: Future[Composition]
    ) -> None:
        """Wake the loop once for a whole batch, from the composer's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(self._deliver, taken, give_up, done)

    def _deliver(self, taken: list[_Call], give_up: _GiveUp, done: Future[Composition]) -> None:
        self._under_way -= 1
        for call in taken:
            call.future.remove_done_callback(give_up)  # which would be one more turn of the loop for each
        if not done.cancelled():
            error = done.exception()
            causes = [error] if error else [column.error for column in done.result().rewards.values()]
            if len(taken) > 1 and any(map(_may_be_anothers, causes)):
                self._waiting.extend(replace(call, alone=True) for call in taken)
                self._rows += sum(len(call.samples) for call in taken)
            elif error:
                _fail(taken, error)
            else:
                self._scored(done.result())
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
