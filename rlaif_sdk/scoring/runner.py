"""Calls rewards: each within its own limits, all of a composition at once."""

from __future__ import annotations

import asyncio
import random
import time
import warnings
from collections.abc import Awaitable, Collection, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from itertools import count
from typing import Any, Literal, Protocol, TypeVar

from rlaif_sdk.config import ExecutionConfig
from rlaif_sdk.exceptions import ConfigError, RewardError, RewardTimeoutError, exception_text
from rlaif_sdk.io.forks import leave_to_parent, on_fork
from rlaif_sdk.rewards import Reward, Scope, ScoreLike
from rlaif_sdk.scoring.event_loops import control_loop
from rlaif_sdk.scoring.executors import (
    DEFAULT_TIMEOUT,
    EventLoopExecutor,
    Executor,
    ProcessExecutor,
    RewardHandle,
    ThreadExecutor,
    on_reward_loop,
)
from rlaif_sdk.scoring.factory import Recipe
from rlaif_sdk.scoring.limits import Budget, CallLimits
from rlaif_sdk.scoring.results import CallError, CallResult, attributed, described, is_fatal, is_retryable, spread
from rlaif_sdk.statistics.arrays import encode_groups
from rlaif_sdk.statistics.groups import parts_of_groups
from rlaif_sdk.types import RewardBatch, Score

_MISSING = object()
_AS_IT_IS = ExecutionConfig()
CLOSE_WAIT = 10.0
"""Seconds after which `Runner.close` no longer waits."""
SLOW_CALL = 1.0
"""Seconds after which a call in the caller's thread is warned of."""
T = TypeVar("T")


class KnownRows(Protocol):
    """What a cache knows of a batch.

    Attributes:
        missing: The rows to score.
    """

    @property
    def missing(self) -> Sequence[int]: ...


KnownT = TypeVar("KnownT", bound=KnownRows)


class RewardCache(Protocol[KnownT]):
    """One reward's scores that need not be asked for again; `rlaif_sdk.composer.ledger` has one."""

    @property
    def is_identified(self) -> bool:
        """Whether it is known which reward this is."""

    def identify(self, stated: Mapping[str, str] | None) -> None:
        """Note what the reward states of itself after its setup; None asks the object in this process."""

    def get(self, batch: RewardBatch) -> KnownT | None:
        """What is known of the rows of a batch; None if they cannot be compared."""

    def put(self, known: KnownT, result: CallResult) -> CallResult:
        """The result for all rows, given that for the missing ones, whose scores are kept."""


class Runner:
    """Scores batches with one reward, one batch after another.

    Args:
        name: The reward's name in the composition.
        reward: The reward.
        timeout: Seconds that one call may take, or None; ``auto`` is `DEFAULT_TIMEOUT`, and no limit where the reward
            is called in the caller's thread.
        setup_timeout: Seconds that its setup may take, or None.
        execution: Everything else about how it is called.
        recipe: How a worker process makes the reward; needed where ``execution.isolation`` is ``process``.
        budgets: Budgets that it shares with others.
        cache: Keeps its scores: rows that it knows are not scored.

    Raises:
        ConfigError: It is to run in a process, and there is no recipe.
    """

    def __init__(
        self,
        name: str,
        reward: Reward,
        *,
        timeout: float | Literal["auto"] | None,
        setup_timeout: float | None,
        execution: ExecutionConfig | None = None,
        recipe: Recipe | None = None,
        budgets: Sequence[Budget] = (),
        cache: RewardCache[Any] | None = None,
    ) -> None:
        self.name = name
        self.reward = reward
        self.execution = execution or ExecutionConfig()
        if self.execution.isolation == "process" and recipe is None:
            raise ConfigError(
                "a worker process must be told how to make the reward",
                key=f"rewards.{name}.execution.isolation",
                hint="build the composer from a config, or give the component a Recipe",
            )
        self.recipe = recipe
        self._cache = cache
        self._limits = CallLimits(name, self.execution, budgets)
        self.budget = self._limits.budget
        limit = DEFAULT_TIMEOUT if timeout == "auto" else timeout
        self._handle = RewardHandle(name, reward, limit, setup_timeout)
        self._handle.is_called_here = (
            timeout in {"auto", None}
            and cache is None
            and self.execution == _AS_IT_IS
            and not any(budget.is_limited for budget in budgets)
            and self._handle.is_plain
        )
        self._is_expected_slow = timeout is None
        on_fork(self._leave_to_parent)
        self._executors: list[Executor] = []
        self._batch_lock = asyncio.Lock()
        self._limit_lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def keeps_scores(self) -> bool:
        """Whether it has a cache."""
        return self._cache is not None

    @property
    def is_short(self) -> bool:
        """Whether `score_here` may be called: a plain synchronous reward of which no limit, retry or cache is asked.

        A coroutine may not block its event loop, and an earlier call that hangs would block this one.
        """
        return (
            self._handle.is_called_here
            and asyncio._get_running_loop() is None  # noqa: SLF001 - asking without an exception
            and not any(executor.busy for executor in self._executors)
        )

    def score_here(self, batch: RewardBatch) -> CallResult:
        """Score a batch in the caller's thread, after those before it.

        Raises:
            BaseException: The reward raised what no policy covers (`FATAL`), or the user interrupted it.
        """
        asked = self._rows_in_company(batch)
        if asked is not None:
            result = self.score_here(batch.select(asked)) if asked else CallResult(0.0, answer=[])
            return _with_lone_rows(result, asked, batch)
        with self._handle.lock:
            began = time.perf_counter()
            try:
                answer = self._handle.score(batch)
            except BaseException as error:
                failure = self._attributed(error)
                if isinstance(failure, CallError):
                    raise
                return CallResult(time.perf_counter() - began, error=failure)
            seconds = time.perf_counter() - began
        if not isinstance(answer, list):
            self._handle.is_called_here = False
            return wait(start(self._awaited(answer)))
        if seconds > SLOW_CALL and not self._is_expected_slow:
            self._is_expected_slow = True
            warnings.warn(
                f"reward {self.name!r} took {seconds:.1f} s for {len(batch)} rows in the caller's thread, where the other "
                "rewards wait for it and no limit of time holds; give it a 'timeout' to run it in a thread of its own, "
                "or 'execution: {isolation: process}' if it may hang; 'timeout: null' says that it may take long",
                stacklevel=5,
            )
        return CallResult(seconds, answer)

    def _rows_in_company(self, batch: RewardBatch) -> list[int] | None:
        """The rows that a reward of groups is asked about: those that are not alone in theirs; None where that is all."""
        if self.reward.scope == "row":
            return None
        asked = [row for rows in batch.groups() if len(rows) > 1 for row in rows]
        return None if len(asked) == len(batch) else sorted(asked)

    async def _awaited(self, answer: Awaitable[Any]) -> CallResult:
        """The result of a plain function that turns out to return a coroutine."""
        began = time.perf_counter()
        try:
            scores = await on_reward_loop(lambda: answer, self._handle.timeout, self._handle.timeout)
        except (CallError, RewardError) as error:
            failure = self._attributed(error)
            if isinstance(failure, CallError):
                raise failure from failure.__cause__
            return CallResult(time.perf_counter() - began, error=failure)
        return CallResult(time.perf_counter() - began, scores)

    async def score(self, batch: RewardBatch) -> CallResult:
        """Score a batch, after those before it; cancelling gives its calls up. To be awaited on the control loop.

        Raises:
            CallError: The reward failed in a way that no policy covers (`FATAL`).
        """
        self._begin()
        raised: Exception
        async with self._batch_lock:
            try:
                asked = self._rows_in_company(batch)
                if asked is None:
                    return await self._score_batch(batch)
                result = await self._score_batch(batch.select(asked)) if asked else CallResult(0.0, answer=[])
                return _with_lone_rows(result, asked, batch)
            except Exception as error:  # noqa: BLE001 - the caller gets it
                raised = error
        failure = self._attributed(raised)
        if isinstance(failure, CallError):
            raise failure
        return CallResult(0.0, error=failure)

    async def _score_batch(self, batch: RewardBatch) -> CallResult:
        return await (self._score(batch) if self._cache is None else self._score_unknown(batch, self._cache))

    def _attributed(self, raised: BaseException) -> CallError | RewardError:
        """The error with the reward's name; `CallError` where no policy covers it."""
        cause = raised.cause if isinstance(raised, CallError) else raised
        if is_fatal(cause):
            cause.add_note(f"in reward {self.name!r}")
            return raised if isinstance(raised, CallError) else CallError(cause)
        return attributed(raised, self.name)

    @property
    def stated(self) -> Mapping[str, str] | None:
        """What the reward states of itself after its setup where it is an object of another process, else None."""
        return self._executors[0].stated if self._executors else None

    async def set_up(self) -> None:
        """Make the reward ready before its first batch. To be awaited on the control loop.

        Raises:
            CallError: It failed in a way that no policy covers (`FATAL`).
            RewardError: It did not become ready.
        """
        self._begin()
        async with self._batch_lock:
            for executor in self._free_executors():
                try:
                    await self._set_up(executor)
                except (CallError, RewardError) as error:
                    failure = self._attributed(error)
                    raise failure from failure.__cause__

    def _begin(self) -> None:
        """Let `close` know of the task that begins here."""
        self._belong_to_this_process()
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _leave_to_parent(self) -> None:
        """In a forked child: the executors' threads and workers are the parent's."""
        leave_to_parent(self._executors)
        self._executors = []

    def _belong_to_this_process(self) -> None:
        """Make the executors, where there are none yet or none since a fork."""
        if self._executors:
            return
        self._batch_lock, self._limit_lock, self._tasks = asyncio.Lock(), asyncio.Lock(), set()
        size = self.execution.concurrency
        if self.execution.isolation == "process":
            assert self.recipe is not None
            self._executors = [ProcessExecutor(self._handle, self.recipe) for _ in range(size)]
        else:
            kind = EventLoopExecutor if self._handle.is_async else ThreadExecutor
            self._executors = [kind(self._handle) for _ in range(size)]

    def _free_executors(self) -> list[Executor]:
        return [executor for executor in self._executors if not executor.busy] or self._executors[:1]

    async def _score_unknown(self, batch: RewardBatch, cache: RewardCache[Any]) -> CallResult:
        """Score the rows that the ledger does not know."""
        if not cache.is_identified:
            executor = self._free_executors()[0]
            await self._set_up(executor)
            cache.identify(executor.stated)
        known = await asyncio.to_thread(cache.get, batch)
        if known is None:
            return await self._score(batch)
        result = await self._score(batch.select(known.missing)) if known.missing else CallResult(0.0, answer=[])
        return await asyncio.to_thread(cache.put, known, result)

    async def _score(self, batch: RewardBatch) -> CallResult:
        executors = self._free_executors()
        await self._set_up(executors[0])
        began = time.monotonic()
        parts = _parts(batch, self.execution.chunk, self.reward.scope)
        chunks = [batch] if len(parts) == 1 else [batch.select(rows) for rows in parts]
        results: list[Any] = [_MISSING] * len(chunks)
        waiting = iter(enumerate(chunks))
        problem = "an earlier call passed its limit and has not returned"
        if len(chunks) == 1 and self.execution.deadline is None:
            await self._work(executors[0], waiting, results)
        elif await self._work_together(executors[: len(chunks)], waiting, results):
            problem = f"the batch took longer than its deadline of {self.execution.deadline:g} s"
        missing = RewardTimeoutError(problem, reward=self.name)
        results = [missing if result is _MISSING else result for result in results]
        return _merged(results, parts, time.monotonic() - began)

    async def _work_together(
        self, executors: Sequence[Executor], waiting: Iterator[tuple[int, RewardBatch]], results: list[Any]
    ) -> bool:
        """Score chunks in several executors at once; True if the deadline came first."""
        tasks = [asyncio.ensure_future(self._work(executor, waiting, results)) for executor in executors]
        try:
            _, pending = await asyncio.wait(tasks, timeout=self.execution.deadline, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
        if pending:
            await asyncio.wait(pending)
        for error in [task.exception() for task in tasks if not task.cancelled()]:
            if error is not None:
                raise error
        return bool(pending)

    async def _work(self, executor: Executor, waiting: Iterator[tuple[int, RewardBatch]], results: list[Any]) -> None:
        """Score chunks in a executor until there are no more, or a call hangs in it."""
        for index, chunk in waiting:
            try:
                results[index] = await self._call(executor, chunk)
            except RewardError as error:
                results[index] = error
                if executor.busy:
                    return

    async def _call(self, executor: Executor, batch: RewardBatch) -> Any:
        """One call, made again after errors that may pass.

        Raises:
            RewardError: It failed.
            CallError: It failed in a way that ends the run.
        """
        retry = self.execution.retry
        for attempt in count(1):
            try:
                return await self._attempt(executor, batch)
            except (CallError, RewardError) as error:
                cause = error.cause if isinstance(error, CallError) else error
                if is_fatal(cause):
                    raise
                if attempt == retry.attempts or not is_retryable(cause, retry.errors):
                    failure = attributed(error, self.name, attempts=attempt)
                    raise failure from failure.__cause__
            await asyncio.sleep(backoff(attempt, retry.delay, retry.max_delay))
        raise AssertionError

    async def _attempt(self, executor: Executor, batch: RewardBatch) -> Any:
        await self._set_up(executor)
        call = await self._limits.admit(batch, self._limit_lock)
        try:
            answer = await executor.score(batch)
            self._limits.answered(call, answer)
        except (CallError, RewardError) as error:
            self._limits.failed(error)
            raise
        return answer

    async def _set_up(self, executor: Executor) -> None:
        self._limits.check()
        try:
            await executor.prepare()
        except (CallError, RewardError) as error:
            self._limits.failed(error)
            raise

    def close(self) -> None:
        """Close the reward, if it was set up and no call of it hangs, and end its threads and processes.

        What goes wrong meanwhile is a warning, so that the other rewards are closed too.
        """
        if self._executors:
            closing = asyncio.run_coroutine_threadsafe(self._close(), control_loop())
            try:
                closing.result(timeout=CLOSE_WAIT)
            except (TimeoutError, CancelledError, CallError, RewardError) as error:
                text = error.text if isinstance(error, CallError) else exception_text(error)
                warnings.warn(f"reward {self.name!r}: close failed: {text}", stacklevel=2)

    async def _close(self) -> None:
        if self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        executors, self._executors = self._executors, []
        hangs = any(executor.busy for executor in executors)
        for executor in executors:
            if hangs:
                executor.abandon()
            else:
                await executor.close()


def _with_lone_rows(result: CallResult, asked: Sequence[int], batch: RewardBatch) -> CallResult:
    """The result for all rows, given that for those that a reward of groups was asked about."""
    unknown = "nothing tells which other completions answer its prompt"
    why = unknown if batch.group is None else "alone in its group: there is nothing to compare it with"
    return spread(result, asked, [Score(None, why)] * len(batch))


def _parts(batch: RewardBatch, size: int | None, scope: Scope) -> list[Sequence[int]]:
    """The rows of a batch in parts of so many at most; more where a reward of groups would get a part of one."""
    rows = range(len(batch))
    if size is None or len(batch) <= size:
        return [rows]
    if scope == "group" and batch.group is not None:
        return [*parts_of_groups(encode_groups(batch.group), size)]
    return [rows[first : first + size] for first in rows[::size]]


def _merged(results: Sequence[Any], parts: Sequence[Sequence[int]], seconds: float) -> CallResult:
    """One result of the answers to all chunks; the rows of a chunk that failed have failed."""
    if len(results) == 1:
        result = results[0]
        return (
            CallResult(seconds, error=result) if isinstance(result, RewardError) else CallResult(seconds, answer=result)
        )
    entries: list[ScoreLike] = [None] * sum(map(len, parts))
    first_error: RewardError | None = None
    failed = 0
    for result, rows in zip(results, parts, strict=True):
        answer = result
        if isinstance(result, RewardError):
            first_error = first_error or result
            failed += 1
            answer = [Score.failed(described(result))] * len(rows)
        for row, entry in zip(rows, answer, strict=True):
            entries[row] = entry
    return CallResult(seconds, None if failed == len(results) else entries, first_error)


def start(calls: Coroutine[Any, Any, T]) -> Future[T]:
    """Begin calls of rewards on the control loop; cancelling the future gives them up."""
    return asyncio.run_coroutine_threadsafe(calls, control_loop())


def wait(calls: Future[T]) -> T:
    """Wait until calls have been answered or have passed their limits.

    Raises:
        RlaifError: A reward failed in a way that no policy covers (`FATAL`); the others are given up.
    """
    try:
        return calls.result()
    except CallError as raised:
        raise raised.cause from raised.cause.__cause__
    finally:
        calls.cancel()


async def together(calls: Mapping[str, Awaitable[T]]) -> dict[str, T]:
    """What came of calls that are made at once; where one raises, the others are given up."""
    tasks = [asyncio.ensure_future(call) for call in calls.values()]
    try:
        return dict(zip(calls, await asyncio.gather(*tasks), strict=True))
    finally:
        for task in tasks:
            task.cancel()


def set_up_all(runners: Collection[Runner]) -> None:
    """Make rewards ready, all at once.

    Raises:
        RlaifError: One did not become ready; the error names it. The others are ready or have failed by then, so that
            they can be closed.
    """
    wait(start(_set_up_all(runners)))


async def _set_up_all(runners: Collection[Runner]) -> None:
    for failure in await asyncio.gather(*(runner.set_up() for runner in runners), return_exceptions=True):
        if failure is not None:
            raise failure


def backoff(attempt: int, delay: float, max_delay: float) -> float:
    """Seconds to wait after the failed attempt ``attempt`` (1 is the first).

    Uniform between 0 and ``min(max_delay, delay * 2 ** (attempt - 1))``: exponential back-off with full jitter, so that
    calls that failed together do not return together (Brooker, "Exponential Backoff and Jitter", AWS Architecture
    Blog, 2015).
    """
    ceiling = min(max_delay, delay * 2.0 ** min(attempt - 1, 60))
    return random.uniform(0.0, ceiling)  # noqa: S311 - jitter, not cryptography
