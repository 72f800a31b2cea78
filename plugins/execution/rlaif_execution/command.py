"""A program in a sandbox that a command line makes."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

from rlaif_execution.endings import Ended

if TYPE_CHECKING:
    from rlaif_execution.policy import Policy

_BY_SIGNAL = 128


class CommandProcess:
    """A program that is confined by the command before its own.

    Raises:
        OSError: The command cannot be run.
    """

    def __init__(self, command: list[str], policy: Policy, **options: Any) -> None:
        self._memory = policy.memory
        piped: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self._process: subprocess.Popen[bytes] = subprocess.Popen(command, bufsize=0, **piped, **options)  # noqa: S603 - ours, or the config's
        self.pid = self._process.pid
        self.stdin, self.stdout, self.stderr = self._process.stdin, self._process.stdout, self._process.stderr

    def ended(self, seconds: float) -> Ended | None:
        """How it ended: None if it did so by itself with exit code 0."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return Ended("time", "it did not end")
        if code > _BY_SIGNAL:
            return Ended.by_signal(code - _BY_SIGNAL, self._memory)
        return Ended("crash", f"it ended with exit code {code}") if code else None
