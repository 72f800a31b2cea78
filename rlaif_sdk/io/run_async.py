"""Runs a coroutine from plain code, also where an event loop runs already, as in a notebook's cell."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")


def run_async(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine; within a running event loop a thread of its own runs another one, and this waits for it.

    Whatever interrupts the wait cancels the coroutine first.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = Future()

    async def noted() -> T:
        begun.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        return await coroutine

    with ThreadPoolExecutor(1, thread_name_prefix="rlaif-run-async") as pool:
        call = pool.submit(copy_context().run, asyncio.run, noted())
        try:
            return call.result()
        finally:
            if not call.done():
                loop, task = begun.result()
                with suppress(RuntimeError):  # it has ended meanwhile
                    loop.call_soon_threadsafe(task.cancel if task else loop.stop)
