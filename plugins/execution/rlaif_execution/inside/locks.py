"""The locks that a process in the sandbox puts on itself before it runs any other code."""

from __future__ import annotations

import ctypes
import os
import resource

_CAPABILITY_VERSION_3 = 0x20080522
_SET_MODE_FILTER = 1
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_REFUSE, _ALLOW = 0x00050000 | 1, 0x7FFF0000
_NUMBERS = {  # of seccomp, and of socket, execve and execveat
    "x86_64": (317, (41, 59, 322)),
    "aarch64": (277, (198, 221, 281)),
}


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def lock_down(memory: int, cpu_seconds: int) -> None:
    """Give up what root has beyond others, and close what Landlock and the sandbox's own filter leave open.

    No socket of any family is made any more, but for pairs; no other program takes this one's place.

    Args:
        memory: Bytes of address space, beside the limit that the sandbox itself keeps.
        cpu_seconds: Processor time after which the kernel ends the process, whoever else is still there to do so.

    Raises:
        OSError: The kernel refuses.
    """
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    _refuse_calls()
    limits = {
        resource.RLIMIT_AS: (memory, memory),
        resource.RLIMIT_CPU: (cpu_seconds, cpu_seconds + 1),  # at the first SIGXCPU, which tells why; then SIGKILL
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_FSIZE: (0, 0),
    }
    for which, soft_and_hard in limits.items():
        resource.setrlimit(which, soft_and_hard)


def _refuse_calls() -> None:
    """Add a filter of system calls; calls of another architecture end the process by the sandbox's own."""
    machine = os.uname().machine
    if machine not in _NUMBERS:
        raise OSError(f"no numbers of system calls are known for {machine}")
    seccomp, refused = _NUMBERS[machine]
    jumps = [(_JUMP_IF_EQUAL, len(refused) - index, 0, number) for index, number in enumerate(refused)]
    program = [(_LOAD, 0, 0, 0), *jumps, (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    instructions = (_Instruction * len(program))(*(_Instruction(*entry) for entry in program))
    added = _Filter(len(program), instructions)
    if ctypes.CDLL(None, use_errno=True).syscall(seccomp, _SET_MODE_FILTER, 0, ctypes.byref(added)) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")
