"""How a confined program ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from sandlock import Result

Kind: TypeAlias = Literal["time", "memory", "output", "threads", "syscall", "crash", "protocol"]

_SIGXCPU = 24
_SIGSYS = 31


@dataclass
class Ended(Exception):  # noqa: N818 - not an error of ours
    """The program ran into a limit, or ended by itself before its answer."""

    kind: Kind
    message: str


class SandboxFailedError(Exception):
    """The sandbox itself did not work, which says nothing of the program."""


def ending(result: Result, memory: int) -> Ended | None:
    """How a process ended that was not ended by its limits outside the kernel: None for exit code 0.

    Args:
        result: What sandlock says.
        memory: The process's limit, in bytes.

    Raises:
        SandboxFailedError: sandlock cannot say.
    """
    from sandlock import ExitReason

    if result.reason is ExitReason.EXITED:
        return Ended("crash", f"it ended with exit code {result.exit_code}") if result.exit_code else None
    if result.reason is ExitReason.TIMEOUT:
        return Ended("time", "it did not end")
    if result.reason is ExitReason.SIGNALED:
        known = {
            _SIGSYS: Ended("syscall", "it made a system call that the sandbox forbids"),
            _SIGXCPU: Ended("time", "it took more processor time than its limit"),
        }
        return known.get(result.signal, Ended("crash", f"it was ended by signal {result.signal}"))
    if result.reason is not ExitReason.KILLED:
        raise SandboxFailedError(f"the sandbox cannot say how its program ended: {result.error or result.reason}")
    return Ended("memory", f"it was killed, as programs are that take more than {memory / 2**20:g} MiB")
