"""The sandbox's end of the channel, and the locks that a process puts on itself before any other code runs."""

from __future__ import annotations

import ctypes
import os
import resource
from typing import Any

from rlaif_execution.inside import wire

_CAPABILITY_VERSION_3 = 0x20080522


class Channel:
    """Messages over the process's standard input and output."""

    def __init__(self) -> None:
        self._input = 0
        self._output = 1

    def move_away(self) -> None:
        """Use other descriptors, and let standard input and output lead nowhere."""
        self._input, self._output = os.dup(0), os.dup(1)
        nowhere = os.open("/dev/null", os.O_RDWR)
        os.dup2(nowhere, 0)
        os.dup2(nowhere, 1)

    def send(self, message: dict[str, Any]) -> None:
        """Send one message."""
        data = memoryview(wire.pack(message))
        while data:
            data = data[os.write(self._output, data) :]

    def receive(self) -> dict[str, Any]:
        """Wait for one message, and read not one byte more.

        Raises:
            EOFError: The other end is closed.
        """
        (length,) = wire.LENGTH.unpack(self._exactly(wire.LENGTH.size))
        return wire.unpack(self._exactly(length))

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = os.read(self._input, min(size, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def lock_down(memory: int, cpu_seconds: int) -> None:
    """Give up what root has beyond others, and cap what Landlock and seccomp do not.

    Args:
        memory: Bytes of address space, beside the limit that the sandbox itself keeps.
        cpu_seconds: Processor time after which the kernel ends the process, whoever else is still there to do so.

    Raises:
        OSError: The kernel refuses.
    """
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
    }
    for which, value in limits.items():
        resource.setrlimit(which, (value, value))
