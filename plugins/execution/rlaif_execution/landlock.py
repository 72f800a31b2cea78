"""The first sandbox: sandlock, by Landlock and seccomp."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlaif_execution.endings import Ended, SandboxFailedError

if TYPE_CHECKING:
    from sandlock import Sandbox

    from rlaif_execution.policy import Policy


class LandlockProcess:
    """A program that reads Python and its libraries, writes nothing, has no network, and is one process.

    Raises:
        SandboxFailedError: sandlock cannot start it.
    """

    def __init__(self, policy: Policy, part: str) -> None:
        from sandlock.sandbox import StdioMode

        self._memory = policy.memory
        piped = dict.fromkeys(("stdin", "stdout", "stderr"), StdioMode.PIPED)
        try:
            self._process = sandbox(policy).popen(policy.command(part, address_space=2 * policy.memory), **piped)
        except (RuntimeError, OSError, ValueError) as error:
            raise SandboxFailedError(str(error)) from error
        self.pid = self._process.pid
        self.stdin, self.stdout, self.stderr = self._process.stdin, self._process.stdout, self._process.stderr

    def threads(self) -> int:
        """How many threads it has."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/task").iterdir())

    def ended(self, seconds: float) -> Ended | None:
        """How it ended: None if it did so by itself with exit code 0.

        Raises:
            SandboxFailedError: sandlock cannot say.
        """
        from sandlock import ExitReason

        result = self._process.wait(seconds)
        if result.reason is ExitReason.EXITED:
            return Ended("crash", f"it ended with exit code {result.exit_code}") if result.exit_code else None
        if result.reason is ExitReason.TIMEOUT:
            return Ended("time", "it did not end")
        if result.reason is ExitReason.SIGNALED:
            return Ended.by_signal(result.signal, self._memory)
        if result.reason is ExitReason.KILLED:
            return Ended.by_signal(9, self._memory)
        raise SandboxFailedError(f"the sandbox cannot say how its program ended: {result.error or result.reason}")

    def close(self) -> None:
        """End it."""
        self._process.__exit__(None, None, None)


def sandbox(policy: Policy) -> Sandbox:
    """One sandbox of sandlock's."""
    from sandlock import Sandbox

    return Sandbox(
        fs_readable=policy.readable,
        fs_denied=policy.unreadable,
        fs_writable=["/dev/null"],
        clean_env=True,
        env=policy.environment,
        cwd="/",
        max_memory=policy.memory,
        max_processes=1,
        max_open_files=64,
    )
