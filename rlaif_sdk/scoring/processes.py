"""Worker processes: rewards that may hang or crash, ended for real at their limit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Literal

from rlaif_sdk.exceptions import RewardError, RewardOutputError
from rlaif_sdk.io.forks import on_fork
from rlaif_sdk.rewards import ScoreLike
from rlaif_sdk.scoring import wire

CLOSE_TIME = 2.0
"""Seconds that a worker has to close its reward before it is ended."""
_PROBE = 0.1
_START = """
import json, sys
sys.path[:] = json.loads(sys.argv[3])
from rlaif_sdk.scoring.worker import main
main(int(sys.argv[1]), int(sys.argv[2]))
"""


class Worker:
    """One worker process. `ask` blocks; `kill` may be called meanwhile from another thread.

    The process leads a session of its own, and is ended by the kernel when this process, which holds its lifeline, is
    gone.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        lifeline_read, lifeline_write = os.pipe()
        _lifelines.add(lifeline_write)
        try:
            paths = json.dumps([path or str(Path.cwd()) for path in sys.path])
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, with our own arguments
                [sys.executable, "-c", _START, str(theirs.fileno()), str(lifeline_read), paths],
                pass_fds=(theirs.fileno(), lifeline_read),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            _cut(lifeline_write)
            raise
        finally:
            theirs.close()
            os.close(lifeline_read)
        self.pid = self._process.pid
        self._connection = ours
        self._connection.settimeout(_PROBE)
        self._channel = wire.Channel(ours, self._has_ended)
        self._lock = threading.Lock()
        self._asked = 0
        self._finalizer = weakref.finalize(self, _end, self._process, ours, lifeline_write, self._lock)
        on_fork(self._leave_to_parent)

    def _leave_to_parent(self) -> None:
        """In a forked child, which must neither end the worker nor keep it alive."""
        self._finalizer.detach()

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return self._finalizer.alive and not self._has_ended()

    def _has_ended(self) -> bool:
        return _has_ended(self._process)

    def ask(self, request: bytes) -> list[ScoreLike]:
        """Send a request and wait for the answer, without limit: `kill` ends the wait.

        Raises:
            RewardError: The process ended; the message says how.
            RewardOutputError: It answered with what is no answer, or too much; it is ended.
            RlaifError: The reward raised it.
        """
        try:
            reply = self._answer(request)
        except RewardOutputError:
            self.end()
            raise
        if reply is None:
            raise RewardError(f"its worker process {self._ending()}")
        return wire.decode_reply(reply)

    def _answer(self, request: bytes) -> bytes | None:
        """The answer to a request, by its number; None if the process has ended."""
        self._asked += 1
        if not self._channel.send(wire.Frame(self._asked, request)):
            return None
        while (frame := self._channel.receive(wire.MAX_REPLY)) is not None:
            if frame.number == self._asked:
                return frame.message
        return None

    def _ending(self) -> str:
        """How the process ended, in words; it is ended if it has not."""
        ended_itself = _ended_within(self._process, 1.0)
        self.end()
        code = self._process.returncode
        if not ended_itself or code is None:
            return "closed its connection, and was ended"
        if code < 0:
            note = ": the system may be out of memory" if -code == signal.SIGKILL else ""
            return f"was ended by {signal.Signals(-code).name}{note}"
        return f"ended by itself with exit status {code}"

    def close(self) -> None:
        """Let the reward close, for `CLOSE_TIME` at most, and end the process."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
        _ended_within(self._process, CLOSE_TIME)
        self.end()

    def kill(self) -> None:
        """Kill the process and all that it started, without waiting; `ask` then returns."""
        _kill(self._process, self._lock)

    def end(self) -> None:
        """Kill the process and all that it started, and release what belongs to it."""
        self._finalizer()


def _end(process: subprocess.Popen[bytes], connection: socket.socket, lifeline: int, lock: threading.Lock) -> None:
    _kill(process, lock)
    with lock, contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=1.0)
    connection.close()
    _cut(lifeline)


_lifelines: set[int] = set()


def _cut(lifeline: int) -> None:
    _lifelines.discard(lifeline)
    os.close(lifeline)


def _cut_all() -> None:
    """In a forked child, which must not keep the workers of its parent alive."""
    while _lifelines:
        os.close(_lifelines.pop())


on_fork(_cut_all)


def _kill(process: subprocess.Popen[bytes], lock: threading.Lock) -> None:
    with lock:
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGSTOP)
            kill_descendants(process.pid)
            os.killpg(process.pid, signal.SIGKILL)


def kill_descendants(pid: int | Literal["self"]) -> None:
    """Kill what a process started, and what that started; of what it has left behind, what it is the subreaper of."""
    known: set[int] = set()
    while new := _descendants(pid) - known:
        for child in new:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        known |= new


def _descendants(pid: int | Literal["self"]) -> set[int]:
    found: set[int] = set()
    ahead: list[int | Literal["self"]] = [pid]
    while ahead:
        for children in Path(f"/proc/{ahead.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                new = {int(child) for child in children.read_text().split()} - found
                found |= new
                ahead.extend(new)
    return found


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process has ended; it is left unreaped, so that its id stays its own until its group is ended."""
    if process.returncode is not None:
        return True
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _ended_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not _has_ended(process):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True
