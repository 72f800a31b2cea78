"""The service behind the routes: scores requests together, admits no more than its queue holds, and counts.

What a request asks for is given up when its client leaves.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import itertools
import math
import operator
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

from fastapi import HTTPException, Request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from rlaif_sdk.composer import Composer, Composition
from rlaif_sdk.exceptions import BatchError, ConfigError
from rlaif_sdk.integrations.coalescing import Coalescer
from rlaif_sdk.integrations.cohorts import Cohorts, Outcome
from rlaif_sdk.integrations.host import check_rowwise, follows_steps, learns, refuse_alarm
from rlaif_sdk.integrations.samples import Sample, Scored, alike
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.serving.protocol import description
from rlaif_sdk.serving.settings import ServeSettings
from rlaif_sdk.types import RESERVED_COLUMNS, Progress, RewardBatch


def carries_key(authorization: str, key: str) -> bool:
    """Whether an ``Authorization`` header carries the key, as ``Bearer KEY`` or as the password of ``Basic``.

    Basic is what trainers send whose only setting is an address: ``http://any:KEY@host``. The comparison takes the
    same time wherever the key and the header differ.
    """
    scheme, _, credentials = authorization.strip().partition(" ")
    given = b""
    if scheme.lower() == "bearer":
        given = credentials.strip().encode("utf-8", "surrogateescape")
    elif scheme.lower() == "basic":
        try:
            given = base64.b64decode(credentials.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            given = b""
    return hmac.compare_digest(given, key.encode())


BODIES = 16
"""How many of the longest bodies are held at once."""


class Queue:
    """Counts the rows, the requests and their bytes that are under way, and refuses more than it holds.

    Used on one event loop.
    """

    def __init__(self, places: int, room: int) -> None:
        self._places = places
        self._room = room
        self._bytes = 0
        self._requests = 0
        self._seconds = 0.0
        self.rows = 0

    @contextmanager
    def request(self) -> Iterator[Callable[[int], None]]:
        """Hold a place while a request is read and answered.

        Yields:
            What is to be called with the number of bytes that are about to be kept; it raises an `HTTPException`, 503,
            where there is no room for them.

        Raises:
            HTTPException: 429, there is no place.
        """
        if self._requests >= self._places or self.rows >= self._places:
            raise self._full()
        self._requests += 1
        since = time.monotonic()
        kept = 0

        def keep(more: int) -> None:
            nonlocal kept
            if self._bytes + more > self._room:
                detail = f"requests of {self._room} bytes together are read already"
                raise HTTPException(503, detail, headers=self.retry_after | {"Connection": "close"})
            kept += more
            self._bytes += more

        try:
            yield keep
        finally:
            self._requests -= 1
            self._bytes -= kept
            self._seconds += 0.2 * (time.monotonic() - since - self._seconds)

    def hold(self, rows: int) -> None:
        """Hold places for the rows of a request while they are scored, until `leave`.

        Raises:
            HTTPException: 429, there are not enough.
        """
        if self.rows + rows > self._places:
            raise self._full()
        self.rows += rows

    def leave(self, rows: int) -> None:
        """Give back places that `hold` gave."""
        self.rows -= rows

    @property
    def retry_after(self) -> dict[str, str]:
        """The header that says when to come again: after about the time that a request takes now."""
        return {"Retry-After": str(min(30, max(1, math.ceil(self._seconds))))}

    def _full(self) -> HTTPException:
        detail = f"{self.rows} rows wait already, and the queue holds {self._places}"
        return HTTPException(429, detail, headers=self.retry_after)


_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters of one application, in a registry of its own."""

    def __init__(self, waiting: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("rlaif_requests", "Requests.", ["route", "status"], registry=self.registry)
        self._latency = Histogram(
            "rlaif_request_seconds", "Time of a request.", ["route"], buckets=_SECONDS, registry=self.registry
        )
        self._rows = Counter("rlaif_rows", "Rows that were scored, or not.", ["outcome"], registry=self.registry)
        self._batch = Histogram("rlaif_batch_rows", "Rows of a batch.", buckets=_ROWS, registry=self.registry)
        self._failures = Counter("rlaif_reward_failures", "Rows that failed.", ["reward"], registry=self.registry)
        self._time = Histogram(
            "rlaif_reward_seconds", "Time of a batch.", ["reward"], buckets=_SECONDS, registry=self.registry
        )
        self._groups = Counter(
            "rlaif_groups",
            "Groups that were gathered, and members apart from theirs.",
            ["outcome"],
            registry=self.registry,
        )
        self._no_variance = Counter(
            "rlaif_groups_without_variance", "Groups whose scores are all the same.", ["of"], registry=self.registry
        )
        # found once: to look a label up costs as much as a whole reward
        self._requests_of, self._latency_of = cache(self._requests.labels), cache(self._latency.labels)
        self._scored, self._unscored = self._rows.labels("scored"), self._rows.labels("unscored")
        queue = Gauge("rlaif_queue_rows", "Rows that wait or are scored.", registry=self.registry)
        queue.set_function(waiting)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests_of(route, str(status)).inc()
        self._latency_of(route).observe(seconds)

    def rows(self, scored: int, unscored: int) -> None:
        """Count the rows of a request."""
        self._scored.inc(scored)
        self._unscored.inc(unscored)

    def group(self, outcome: Outcome) -> None:
        """Count what became of a group, or of a member."""
        self._groups.labels(outcome).inc()

    def composed(self, done: Future[Composition]) -> None:
        """Count a batch, as a callback of what composes it."""
        if done.cancelled() or done.exception() is not None:
            return
        composition = done.result()
        self._batch.observe(len(composition))
        for name, column in composition.rewards.items():
            self._time.labels(name).observe(column.seconds)

    def handed_over(self, composition: Composition) -> None:
        """Count what callers are told: each reward's failures, and the groups whose scores are all the same."""
        for name, column in composition.rewards.items():
            self._failures.labels(name).inc(len(column.failures))
        if composition.batch.group is None:
            return
        rows = [*{label: row for row, label in enumerate(composition.batch.group)}.values()]  # one of each group
        for of, reward in (("total", None), *((name, name) for name in composition.rewards)):
            self._no_variance.labels(of).inc(int(composition.no_variance(reward)[rows].sum()))

    def text(self) -> bytes:
        """All of it, in Prometheus' format."""
        return generate_latest(self.registry)


_STACK = "a request to the reward server"


class Service:
    """Scores the samples of requests.

    Args:
        composer: What scores them.
        settings: The limits.
        restored: Whether the composer resumes from a saved state.
        groups: How many groups it has scored before, where it resumes.

    Raises:
        ConfigError: A number would depend on what else is scored at the moment, or before.
    """

    def __init__(self, composer: Composer, settings: ServeSettings, *, restored: bool = False, groups: int = 0) -> None:
        if not settings.cohort:
            refuse_alarm(composer, _STACK)
        check_rowwise(composer, _STACK, grouped=True, stepped=settings.cohort, restored=restored or settings.cohort)
        self.composer = composer
        self.settings = settings
        self.queue = Queue(settings.max_queue, BODIES * settings.max_body)
        self.metrics = Metrics(lambda: self.queue.rows)
        self._needs_groups = _needs_groups(composer)
        self._needs_step = follows_steps(composer) and settings.groups_per_step is None
        self._learns = settings.cohort and learns(composer)
        self._groups = groups
        self.description: dict[str, Any] | None = None
        """What the composition is made of, once something is scored."""
        self._serial = itertools.count()
        self._coalescer = Coalescer(
            self._submit, max_rows=settings.max_batch, in_flight=settings.in_flight, scored=self._scored
        )
        self._cohorts = Cohorts(
            self._coalescer,
            tuple(composer.components),
            deadline=settings.cohort_deadline,
            alone=self._learns,
            count=self.metrics.group,
        )

    def _submit(self, batch: RewardBatch) -> Future[Composition]:
        composing = self.composer.submit(batch)
        composing.add_done_callback(self.metrics.composed)
        return composing

    def _scored(self, composition: Composition) -> None:
        """Count the groups whose members get these scores; a batch that is scored again is counted then."""
        batch = composition.batch
        if batch.training:
            self._groups += len(batch) if batch.group is None else len({*batch.group})
        self.metrics.handed_over(composition)
        if self.description is None:
            self.description = description(composition)

    def check_key(self, authorization: str) -> None:
        """Refuse a request whose ``Authorization`` header lacks the server's key, where there is one.

        Raises:
            HTTPException: 401, it does.
        """
        key = self.settings.api_key
        if key is not None and not carries_key(authorization, key):
            raise HTTPException(401, "the key is missing or wrong", headers={"WWW-Authenticate": "Bearer"})

    def learned(self) -> dict[str, Any]:
        """The composer's state, and how many groups it has scored, as JSON values."""
        return {**self.composer.state_dict(), "groups_scored": self._groups}

    async def score(
        self, request: Request, samples: Sequence[Sample], *, step: int | None = None, training: bool = True
    ) -> list[Scored]:
        """Score the samples of a request, in order; those of a group are scored together.

        Args:
            request: The request, whose client may leave.
            samples: Its rows.
            step: The training step, where it tells one.
            training: Whether a composer that gathers groups learns from them.

        Raises:
            BatchError: The rows cannot be scored as they are.
            HTTPException: 413, there are too many; 429, the queue is full; 503, it took too long.
        """
        settings, serial = self.settings, next(self._serial)
        samples = [self._labelled(one, serial) for one in samples]
        gathers = any(one.group_size is not None for one in samples)
        self._check(samples, step, gathers=gathers)
        self.queue.hold(len(samples))
        try:
            places, asked = self._ask(samples, self._progress(step), training=training and settings.cohort)
            patience = settings.timeout + gathers * settings.cohort_deadline
            if not await _answered(asked, request.receive, patience):
                detail = f"not scored within {patience:g} s"
                raise HTTPException(503, detail, headers=self.queue.retry_after)
        finally:
            self.queue.leave(len(samples))
        scored = _results(asked)
        if len(asked) > 1:
            scored = [one for _, one in sorted(zip(places, scored, strict=True), key=operator.itemgetter(0))]
        unscored = sum(one.total is None for one in scored)
        self.metrics.rows(len(scored) - unscored, unscored)
        return scored

    def _labelled(self, sample: Sample, serial: int) -> Sample:
        """A sample whose group has the label by which it is known here."""
        size = self.settings.cohort_size
        if sample.group_size is not None:
            return sample
        if sample.group is not None:  # it holds within its request
            return replace(sample, group=(serial, type(sample.group).__name__, sample.group))
        if size is not None:
            return replace(sample, group=("prompt", json_digest(sample.prompt)), group_size=size)
        return sample

    def _progress(self, step: int | None) -> Progress:
        if step is not None:
            return Progress(step)
        return Progress(self._groups // (self.settings.groups_per_step or sys.maxsize))

    def _ask(
        self, samples: Sequence[Sample], progress: Progress, *, training: bool
    ) -> tuple[list[int], list[asyncio.Future[Any]]]:
        """Begin to score samples, and say in which order: several together, or each with its own group.

        Raises:
            BatchError: One does not fit its group; nobody waits for the others then, of which named ones keep their place.
        """
        alone = [place for place, one in enumerate(samples) if one.group_size is not None]
        together = [place for place, one in enumerate(samples) if one.group_size is None]
        parts = [[together[place] for place in part] for part in alike([samples[place] for place in together])]
        asked: list[asyncio.Future[Any]] = []
        try:
            asked.extend(self._cohorts.score(samples[place], progress=progress, training=training) for place in alone)
        except BatchError:
            _cancel(asked)
            raise
        for part in parts:
            rows = [samples[place] for place in part]
            asked.append(
                self._coalescer.score(rows, progress=progress, training=training, alone=training and self._learns)
            )
        return [*alone, *itertools.chain(*parts)], asked

    def _check(self, samples: Sequence[Sample], step: int | None, *, gathers: bool) -> None:
        if len(samples) > self.settings.max_rows:
            raise HTTPException(413, f"{len(samples)} rows, and a request has {self.settings.max_rows} at most")
        reserved = RESERVED_COLUMNS & {name for sample in samples for name in sample.columns}
        if reserved:
            raise BatchError(f"the column {min(reserved)!r} has a reserved name", hint="rename it")
        if gathers and not self.settings.cohort:
            raise BatchError(
                "this server gathers no groups over several requests",
                hint="start it with --cohort, or send whole groups and no 'group_size'",
            )
        if self._needs_groups and any(sample.group is None for sample in samples):
            raise BatchError(
                "the composition compares the completions to one prompt",
                hint="give each row a 'group' at /v1/score, or start the server with --cohort --cohort-size N",
            )
        if self._needs_step and step is None:
            raise BatchError(
                "a weight of the composition follows the training step",
                hint="give a 'step' at /v1/score, or start the server with --groups-per-step N",
            )


def _needs_groups(composer: Composer) -> bool:
    try:
        check_rowwise(composer, _STACK, grouped=False, stepped=True, restored=True)
    except ConfigError:
        return True
    return False


def _cancel(asked: Sequence[asyncio.Future[Any]]) -> None:
    for part in asked:
        part.cancel()


def _results(asked: Sequence[asyncio.Future[Any]]) -> list[Scored]:
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
    results = [part.result() for part in asked]
    return [one for said in results for one in (said if isinstance(said, list) else [said])]


WATCHED_AFTER = 0.2
"""Seconds after which a client is watched for its leaving: most have their answer by then, and a watch takes as long as all
else that a small request costs on the event loop."""


async def _answered(
    asked: Sequence[asyncio.Future[Any]],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    patience: float,
) -> bool:
    """Wait until all is answered, or given up because the client leaves; False where it takes longer than it may.

    What is not answered then is given up, whatever ends the wait.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    missing, late = len(asked), False
    leaving: list[asyncio.Task[None]] = []

    def one_less(_: asyncio.Future[Any]) -> None:
        nonlocal missing
        missing -= 1
        if not missing and not done.done():
            done.set_result(None)

    def watch() -> None:
        leaving.append(loop.create_task(_left(receive)))
        leaving[0].add_done_callback(lambda _: _cancel(asked))

    def give_up() -> None:
        nonlocal late
        late = True
        _cancel(asked)

    for part in asked:
        part.add_done_callback(one_less)
    timers = [loop.call_later(WATCHED_AFTER, watch), loop.call_later(patience, give_up)]
    try:
        await done
    finally:
        for timer in timers:
            timer.cancel()
        _cancel([*leaving, *asked])
    return not late


async def _left(receive: Callable[[], Awaitable[MutableMapping[str, Any]]]) -> None:
    """Return when the client closes its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
