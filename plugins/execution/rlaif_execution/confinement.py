"""One process in a sandbox: messages to and from it under limits, and its certain end."""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from rlaif_execution.endings import Ended, SandboxFailedError
from rlaif_execution.inside import wire
from rlaif_execution.policy import Policy, find_sandbox

_START_SECONDS = 30.0
_REAP_SECONDS = 10.0
_POLL_SECONDS = 0.02
_MOST_THREADS = 32
_STDERR_KEPT = 8192
_STARTING = threading.Lock()


def _renew_lock() -> None:
    """A thread of the parent may hold it at a fork, and would never give it back in the child."""
    global _STARTING  # noqa: PLW0603 - the lock is the process's
    _STARTING = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


class Cancelled(Exception):  # noqa: N818 - not an error of ours
    """The one who asked no longer waits."""


class Confined:
    """A part of `rlaif_execution.inside` that runs in a sandbox of its own.

    A sandbox ends with the thread that started it: start, use and close it in one thread.

    Raises:
        SandboxFailedError: It cannot be started.
        OSError: This process has no descriptor left for it.
    """

    def __init__(self, policy: Policy, part: str, stop: threading.Event) -> None:
        self._policy = policy
        self._stop = stop
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._written = 0
        self._open = True
        self._end = -1
        start = find_sandbox(policy)
        try:
            with _STARTING:
                self._process = start(policy, part)
        except SandboxFailedError as error:
            raise SandboxFailedError(f"the sandbox did not start: {error}") from error
        try:
            self._end = os.pidfd_open(self._process.pid)
            for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
                os.set_blocking(stream.fileno(), False)
            self.exchange(None, _START_SECONDS)
        except Ended as ended:
            self.close()
            said = self.stderr.strip().rpartition("\n")[2]
            raise SandboxFailedError(f"the sandbox did not start: {ended.message} {said}".rstrip()) from None
        except BaseException:
            self.close()
            raise

    @property
    def stderr(self) -> str:
        """The end of what it wrote to standard error."""
        return self._stderr.decode(errors="replace")

    def exchange(self, message: dict[str, Any] | None, seconds: float) -> dict[str, Any]:
        """Send a message, if there is one, and wait for the next.

        Raises:
            Ended: There is no message within its limits.
            SandboxFailedError: The sandbox cannot say how it ended.
        """
        try:
            outgoing = wire.pack(message) if message is not None else b""
        except wire.WireError as error:
            raise Ended("protocol", f"it was sent {error}") from None
        self._pump(outgoing, time.monotonic() + seconds, self._has_frame)
        if not self._has_frame():
            raise self._how_it_ended() or Ended("crash", "it ended its own process")
        end = wire.LENGTH.size + self._frame_length()
        body = bytes(self._stdout[wire.LENGTH.size : end])
        del self._stdout[:end]
        if self._stdout:
            raise Ended("protocol", "it wrote to the channel of the results")
        try:
            return wire.unpack(body)
        except wire.WireError as error:
            raise Ended("protocol", f"it wrote to the channel of the results: {error}") from None

    def run(self, message: dict[str, Any], text: bytes, seconds: float) -> bytes:
        """Send a message and then the text as standard input, and wait until the program ends by itself.

        Returns:
            What it wrote to standard output.

        Raises:
            Ended: It did not end with code 0 within its limits.
            SandboxFailedError: The sandbox cannot say how it ended.
        """
        self._pump(wire.pack(message) + text, time.monotonic() + seconds, lambda: False, last=True)
        if (ended := self._how_it_ended()) is not None:
            raise ended
        return bytes(self._stdout)

    def close(self) -> None:
        """End it, whatever it does."""
        if self._open:
            self._open = False
            self._process.close()
            if self._end >= 0:
                os.close(self._end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pump(self, outgoing: bytes, deadline: float, enough: Callable[[], bool], *, last: bool = False) -> None:
        """Write what goes out and read what comes, until it is enough or the process has ended."""
        self._written = 0
        self._pending = memoryview(outgoing)
        process = self._process
        with selectors.DefaultSelector() as selector:
            readables: tuple[Any, ...] = (process.stdout, process.stderr, self._end)
            for readable in readables:
                selector.register(readable, selectors.EVENT_READ)
            if outgoing:
                selector.register(process.stdin, selectors.EVENT_WRITE)
            checked = 0.0
            while not enough():
                now = time.monotonic()
                if now - checked >= _POLL_SECONDS:
                    self._check(now, deadline)
                    checked = now
                for key, _ in selector.select(min(_POLL_SECONDS, max(0.0, deadline - now))):
                    stream: Any = key.fileobj
                    if stream is self._end:
                        self._read_the_rest()
                        return
                    goes_on = self._write() if stream is process.stdin else self._read(stream) is not False
                    if not goes_on:
                        selector.unregister(stream)
                        if last and stream is process.stdin:
                            stream.close()

    def _check(self, now: float, deadline: float) -> None:
        if self._stop.is_set():
            raise Cancelled
        if now >= deadline:
            raise Ended("time", "it took longer than its time limit")
        if self._threads() > _MOST_THREADS:
            raise Ended("threads", f"it had more than {_MOST_THREADS} threads")

    def _threads(self) -> int:
        with contextlib.suppress(OSError):
            return self._process.threads()
        return 0

    def _write(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            try:
                written = os.write(self._process.stdin.fileno(), self._pending[: 1 << 20])
            except BrokenPipeError:  # it ended, or does not want to know; what it wrote tells
                written = len(self._pending)
            self._pending = self._pending[written:]
        return bool(self._pending)

    def _read_the_rest(self) -> None:
        for stream in (self._process.stdout, self._process.stderr):
            while self._read(stream):
                pass

    def _read(self, stream: Any) -> bool | None:
        """Read once: False at the end, and None where nothing is there now."""
        try:
            data = os.read(stream.fileno(), 1 << 16)
        except BlockingIOError:
            return None
        self._written += len(data)
        if self._written > self._policy.output:
            raise Ended("output", f"it wrote more than {self._policy.output / 2**20:g} MiB")
        if stream is self._process.stdout:
            self._stdout += data
        else:
            self._stderr = (self._stderr + data)[-_STDERR_KEPT:]
        return bool(data)

    def _frame_length(self) -> int:
        length: int = wire.LENGTH.unpack_from(self._stdout)[0]
        if length > self._policy.output:
            raise Ended("output", f"it wrote more than {self._policy.output / 2**20:g} MiB")
        return length

    def _has_frame(self) -> bool:
        head = wire.LENGTH.size
        return len(self._stdout) >= head and len(self._stdout) >= head + self._frame_length()

    def _how_it_ended(self) -> Ended | None:
        """How a process that is no more ended: None if it did so by itself with exit code 0."""
        return self._process.ended(_REAP_SECONDS)
