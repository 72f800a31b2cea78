"""The composer that a server answers with: requests are scored together, given up when their client leaves."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from fastapi import HTTPException, Request

from rlaif_sdk.composer import Composer, Composition
from rlaif_sdk.exceptions import BatchError, ConfigError
from rlaif_sdk.integrations.coalescing import Coalescer
from rlaif_sdk.integrations.rowwise import check_rowwise
from rlaif_sdk.integrations.samples import Sample, Scored, alike
from rlaif_sdk.serving.admission import Queue
from rlaif_sdk.serving.metrics import Metrics
from rlaif_sdk.serving.settings import ServeSettings
from rlaif_sdk.types import RESERVED_COLUMNS, RewardBatch

_STACK = "a request to the reward server"


class Service:
    """Scores the samples of requests.

    Args:
        composer: What scores them.
        settings: The limits.
        restored: Whether the composer goes on from a saved state.

    Raises:
        ConfigError: A number would depend on what else is scored at the moment, or before.
    """

    def __init__(self, composer: Composer, settings: ServeSettings, *, restored: bool = False) -> None:
        check_rowwise(composer, _STACK, grouped=True, stepped=False, restored=restored)
        self.composer = composer
        self.settings = settings
        self.queue = Queue(settings.max_queue)
        self.metrics = Metrics(lambda: self.queue.rows)
        self._needs_groups = _needs_groups(composer)
        self._serial = itertools.count()
        self._coalescer = Coalescer(self._submit, max_rows=settings.max_batch, in_flight=settings.in_flight)

    def _submit(self, batch: RewardBatch) -> Future[Composition]:
        composing = self.composer.submit(batch)
        composing.add_done_callback(self.metrics.composed)
        return composing

    async def score(self, request: Request, samples: Sequence[Sample]) -> list[Scored]:
        """Score the samples of a request, in order; those of a group are scored together.

        Raises:
            BatchError: The rows cannot be scored as they are.
            HTTPException: 413, there are too many; 429, the queue is full; 503, it took too long.
        """
        self._check(samples)
        serial = next(self._serial)  # a group's label holds within its request
        samples = [
            one if one.group is None else replace(one, group=(serial, type(one.group).__name__, one.group))
            for one in samples
        ]
        with self.queue.holding(len(samples)):
            parts = alike(samples)
            asked = [self._coalescer.score([samples[place] for place in places]) for places in parts]
            leaving = asyncio.ensure_future(_left(request.receive))
            leaving.add_done_callback(lambda _: _cancel(asked))
            try:
                _, late = await asyncio.wait(asked, timeout=self.settings.timeout)
            finally:
                leaving.cancel()
                _cancel(asked)
            if late:
                detail = f"not scored within {self.settings.timeout:g} s"
                raise HTTPException(503, detail, headers=self.queue.retry_after)
            scored = dict(zip(itertools.chain(*parts), itertools.chain(*_results(asked)), strict=True))
        in_order = [scored[place] for place in range(len(samples))]
        unscored = sum(one.total is None for one in in_order)
        self.metrics.rows(len(in_order) - unscored, unscored)
        return in_order

    def _check(self, samples: Sequence[Sample]) -> None:
        if len(samples) > self.settings.max_rows:
            raise HTTPException(413, f"{len(samples)} rows, and a request has {self.settings.max_rows} at most")
        reserved = RESERVED_COLUMNS & {name for sample in samples for name in sample.columns}
        if reserved:
            raise BatchError(f"the column {min(reserved)!r} has a reserved name", hint="rename it")
        grouped = any(sample.group is not None for sample in samples)
        if grouped and len({frozenset(sample.columns) for sample in samples}) > 1:
            raise BatchError("rows that have a group must have the same columns", hint="send null where there is none")
        if self._needs_groups and any(sample.group is None for sample in samples):
            raise BatchError(
                "the composition compares the completions to one prompt", hint="give each row a 'group' at /v1/score"
            )


def _needs_groups(composer: Composer) -> bool:
    try:
        check_rowwise(composer, _STACK, grouped=False, stepped=True, restored=True)
    except ConfigError:
        return True
    return False


def _cancel(asked: Sequence[asyncio.Future[list[Scored]]]) -> None:
    for part in asked:
        part.cancel()


def _results(asked: Sequence[asyncio.Future[list[Scored]]]) -> list[list[Scored]]:
    """What came of the parts of a request, all of which are done.

    Raises:
        HTTPException: They are cancelled, because the client left.
        RlaifError: One cannot be scored.
    """
    if any(part.cancelled() for part in asked):
        raise HTTPException(499, "the client left")
    for error in [part.exception() for part in asked]:
        if error:
            raise error
    return [part.result() for part in asked]


async def _left(receive: Callable[[], Awaitable[MutableMapping[str, Any]]]) -> None:
    """Return when the client closes its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
