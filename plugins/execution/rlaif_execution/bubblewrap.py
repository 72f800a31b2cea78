"""The second sandbox: bubblewrap, which hides what Landlock would forbid."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif_execution.command import CommandProcess
from rlaif_execution.endings import SandboxFailedError

if TYPE_CHECKING:
    from rlaif_execution.policy import Policy


class BubblewrapProcess(CommandProcess):
    """A program in namespaces of its own, which hold Python and its libraries, unwritable, and nothing else.

    Its memory is limited by the kernel, so that an allocation fails where Landlock's sandbox would end the program.

    Raises:
        SandboxFailedError: bubblewrap cannot make them.
        OSError: This process has no descriptor left, or the kernel does not tell the children of a process.
    """

    def __init__(self, policy: Policy, part: str) -> None:
        said, says = os.pipe()
        try:
            whole = [*command(policy, says), *policy.command(part, address_space=policy.memory)]
            super().__init__(whole, policy, pass_fds=(says,), env=policy.environment)
        finally:
            os.close(says)
        self._first = -1
        with os.fdopen(said, "rb") as information:
            found = information.read()
        try:
            if not found:
                raise SandboxFailedError(self.stderr.read().decode(errors="replace").strip())  # type: ignore[union-attr]
            first = int(json.loads(found)["child-pid"])
            self._first = os.pidfd_open(first)
            self._children = Path(f"/proc/{first}/task/{first}/children")
            self._children.read_bytes()
        except BaseException:
            self.close()
            raise

    def threads(self) -> int:
        """How many threads it has."""
        return sum(1 for child in self._children.read_text().split() for _ in Path(f"/proc/{child}/task").iterdir())

    def close(self) -> None:
        """End the first process of its namespace, with which the kernel ends all others."""
        if self._first >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first, signal.SIGKILL)
            os.close(self._first)
            self._first = -1
        else:
            self._process.kill()
        with self._process:
            pass


def is_installed() -> bool:
    """Whether there is a program of that name."""
    return _program() is not None


def _program() -> str | None:
    return shutil.which("bwrap")


def command(policy: Policy, information: int) -> list[str]:
    """The command line that makes the namespaces, before that of the program.

    Args:
        policy: What the program may read.
        information: The descriptor to which bubblewrap writes what it has started.
    """
    shown = [part for place in policy.readable for part in ("--ro-bind", place, place)]
    hidden = [part for place in policy.unreadable for part in ("--tmpfs", place, "--remount-ro", place)]
    own = ["--dev-bind", "/dev/null", "/dev/null", "--remount-ro", "/", "--chdir", "/"]
    kept = ["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--info-fd", str(information)]
    return [_program() or "bwrap", *kept, *shown, *hidden, *own, "--"]
