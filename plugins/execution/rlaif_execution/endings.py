"""How a confined program ended."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

Kind: TypeAlias = Literal["time", "memory", "output", "threads", "syscall", "crash", "protocol"]


@dataclass
class Ended(Exception):  # noqa: N818 - not an error of ours
    """The program ran into a limit, or ended by itself before its answer."""

    kind: Kind
    message: str

    def __str__(self) -> str:
        return self.message

    @classmethod
    def by_signal(cls, number: int, memory: int) -> Self:
        """How a program ended that a signal ended.

        Args:
            number: The signal.
            memory: The program's limit, in bytes.
        """
        if number == signal.SIGSYS:
            return cls("syscall", "it made a system call that the sandbox forbids")
        if number == signal.SIGXCPU:
            return cls("time", "it took more processor time than its limit")
        if number == signal.SIGKILL:
            return cls("memory", f"it was killed, as programs are that take more than {memory / 2**20:g} MiB")
        return cls("crash", f"it was ended by signal {number}")


class SandboxFailedError(Exception):
    """The sandbox itself did not work, which says nothing of the program."""
