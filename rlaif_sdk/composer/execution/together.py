"""Several rewards at once, begun and awaited as one call, since waking another thread costs more than a cheap reward."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from typing import TypeAlias, TypeVar

from rlaif_sdk.composer.execution.loops import control_loop
from rlaif_sdk.composer.execution.outcome import Outcome, Raised
from rlaif_sdk.composer.execution.runner import Runner
from rlaif_sdk.types import RewardBatch

T = TypeVar("T")
Outcomes: TypeAlias = dict[str, Outcome]
"""What came of each reward, by name."""


def start_all(runners: Mapping[str, Runner], batches: Mapping[str, RewardBatch]) -> Future[Outcomes]:
    """Begin to score each reward's batch; cancelling the future gives the calls up."""
    return asyncio.run_coroutine_threadsafe(_score_all(runners, batches), control_loop())


def wait_all(calls: Future[Outcomes]) -> Outcomes:
    """Wait until each reward has answered or passed its limit.

    Raises:
        RlaifError: A reward failed in a way that no policy covers (`FATAL`); the others are given up.
    """
    return _result(calls)


def run_all(runners: Mapping[str, Runner], batches: Mapping[str, RewardBatch]) -> Outcomes:
    """`start_all` and `wait_all`."""
    return wait_all(start_all(runners, batches))


def set_up_all(runners: Collection[Runner]) -> None:
    """Make rewards ready, all at once.

    Raises:
        RlaifError: One did not become ready; the error names it. The others are ready or have failed by then, so that
            they can be closed.
    """
    _result(asyncio.run_coroutine_threadsafe(_set_up_all(runners), control_loop()))


async def _set_up_all(runners: Collection[Runner]) -> None:
    for failure in await asyncio.gather(*(runner.set_up() for runner in runners), return_exceptions=True):
        if failure is not None:
            raise failure


def _result(call: Future[T]) -> T:
    try:
        return call.result()
    except Raised as raised:
        raise raised.cause from raised.cause.__cause__
    finally:
        call.cancel()


async def _score_all(runners: Mapping[str, Runner], batches: Mapping[str, RewardBatch]) -> Outcomes:
    calls = {name: asyncio.ensure_future(runner.score(batches[name])) for name, runner in runners.items()}
    try:
        return dict(zip(calls, await asyncio.gather(*calls.values()), strict=True))
    finally:
        for call in calls.values():
            call.cancel()
