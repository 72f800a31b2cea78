"""A sandbox of the user's: a command, such as ``podman run``, that starts a container for each program."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from rlaif_execution.command import CommandProcess

if TYPE_CHECKING:
    from rlaif_execution.policy import Policy

_END_SECONDS = 10.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ContainerProcess(CommandProcess):
    """A program in a container, under the same filter of system calls; how many threads it has is its engine's to limit.

    Engines hand on to it the SIGTERM that ends the command, which comes also when the thread that started it is no more.
    """

    def __init__(self, policy: Policy, part: str) -> None:
        mortal = ["setpriv", "--pdeathsig", "TERM", *policy.sandbox_command]
        clean = ["env", "-i", f"PATH={_PATH}", *(f"{name}={value}" for name, value in policy.environment.items())]
        program = policy.command(part, address_space=policy.memory)
        super().__init__([*mortal, *clean, *program], policy, start_new_session=True)

    def threads(self) -> int:
        """None that can be counted from here."""
        return 0

    def close(self) -> None:
        """End it by its engine."""
        self._process.terminate()
        with self._process:
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
