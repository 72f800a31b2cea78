"""The event loops of a process, each in a daemon thread: one that conducts, one on which async rewards run.

Only the SDK's own code runs on the conducting loop, so limits hold even while a reward blocks the other one; a blocked
loop is then left behind, and later calls run on a new one. After a fork both are made anew.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from rlaif_sdk.io.forks import on_fork
from rlaif_sdk.scoring.results import CallError

RESPONSE_TIME = 0.5
"""Seconds within which a loop that is not blocked answers."""


class LoopThread:
    """An event loop that runs in a daemon thread of its own."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def start(self, function: Callable[[], Any]) -> LoopCall:
        """Call a function on this loop, from another one, and await what it returns if that is awaitable."""
        return LoopCall(self, function)

    async def responds(self) -> bool:
        """Whether this loop still runs what it is given; asked from another loop."""
        here = asyncio.get_running_loop()
        answered: asyncio.Future[None] = here.create_future()
        self.loop.call_soon_threadsafe(lambda: here.call_soon_threadsafe(resolve, answered, None))
        done, _ = await asyncio.wait({answered}, timeout=RESPONSE_TIME)
        return bool(done)

    def position(self) -> str:
        """Where this loop's thread is, as ``file:line, in function``."""
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - the way to another thread's stack
        if frame is None:
            return "an unknown place"
        top = traceback.extract_stack(frame)[-1]
        return f"{top.filename}:{top.lineno}, in {top.name}"


class LoopCall:
    """A call under way on a loop; ``result`` is a future of the loop that made it, and raises `CallError`."""

    def __init__(self, thread: LoopThread, function: Callable[[], Any]) -> None:
        self.result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._function = function
        self._home = asyncio.get_running_loop()
        self._away = thread.loop
        self._task: asyncio.Task[None] | None = None
        self._away.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        self._task = self._away.create_task(self._run())

    async def _run(self) -> None:
        value, error = None, None
        try:
            value = self._function()
            if hasattr(value, "__await__"):
                value = await value
        except BaseException as raised:  # noqa: BLE001 - whatever a plugin raises is handed to its caller
            error = CallError(raised)
        self._home.call_soon_threadsafe(resolve, self.result, value, error)

    def cancel(self) -> None:
        """Cancel the coroutine, without waiting for it."""
        self._away.call_soon_threadsafe(lambda: self._task and self._task.cancel())


def resolve(future: asyncio.Future[Any], value: Any, error: CallError | None = None) -> None:
    """Set a future to a value, or to the `CallError` of what a plugin raised, unless nobody waits for it any more."""
    if future.done():
        return
    if error is None:
        future.set_result(value)
        return
    error.__cause__ = error.cause
    future.set_exception(error)
    future.exception()  # seen: that a call which was given up raises later is no news


_lock = threading.Lock()
_threads: dict[str, LoopThread] = {}
_left_behind: list[LoopThread] = []


def control_loop() -> asyncio.AbstractEventLoop:
    """The loop that conducts all calls; no plugin's code runs on it."""
    return _loop_thread("rlaif-control").loop


def reward_loop() -> LoopThread:
    """The loop on which async rewards run."""
    return _loop_thread("rlaif-event-loop")


def leave_behind(thread: LoopThread) -> None:
    """Let later calls run on a new loop, because this one is blocked."""
    with _lock:
        for name, current in list(_threads.items()):
            if current is thread:
                _left_behind.append(_threads.pop(name))


def _loop_thread(name: str) -> LoopThread:
    with _lock:
        if name not in _threads:
            _threads[name] = LoopThread(name)
        return _threads[name]


def _forget() -> None:
    """In a forked child, where the threads do not exist; the loops are kept, since closing them would disturb the parent."""
    global _lock  # noqa: PLW0603 - the parent may have held it
    _lock = threading.Lock()
    _left_behind.extend(_threads.values())
    _threads.clear()


on_fork(_forget)
