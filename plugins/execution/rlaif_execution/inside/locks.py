"""The locks that a process in the sandbox puts on itself before it runs any other code."""

from __future__ import annotations

import ctypes
import resource

from rlaif_execution.inside.calls import refuse_other_calls

_CAPABILITY_VERSION_3 = 0x20080522
_SET_NO_NEW_PRIVILEGES = 38
_MOST_FILES = 64
"""What the kernel keeps in pipes and sockets counts for no limit of memory."""


def lock_down(memory: int, cpu_seconds: int) -> None:
    """Give up what root has beyond others, and close what Landlock and the sandbox's own filter leave open.

    No system call is left but those listed in `calls`.

    Args:
        memory: Bytes of address space, beside the limit that the sandbox itself keeps.
        cpu_seconds: Processor time after which the kernel ends the process, whoever else is still there to do so.

    Raises:
        OSError: The kernel refuses.
    """
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    # without it the kernel takes no filter from others than root
    if libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    refuse_other_calls()
    limits = {
        resource.RLIMIT_AS: (memory, memory),
        resource.RLIMIT_CPU: (cpu_seconds, cpu_seconds + 1),  # at the first SIGXCPU, which tells why; then SIGKILL
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_NOFILE: (_MOST_FILES, _MOST_FILES),
    }
    for which, soft_and_hard in limits.items():
        resource.setrlimit(which, soft_and_hard)
