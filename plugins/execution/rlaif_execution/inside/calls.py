"""The system calls of a program in the sandbox: those listed here, and no other."""

from __future__ import annotations

import ctypes
import os

_SET_MODE_FILTER = 1
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _JUMP_IF_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_REFUSE, _UNKNOWN, _END, _ALLOW = 0x00050000 | 1, 0x00050000 | 38, 0x80000000, 0x7FFF0000
"""EPERM; ENOSYS; the end of the process; nothing."""
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""The column of `_CALLS` and the architecture that the kernel tells a filter."""
_SECCOMP = (317, 277)
_CALLS = {  # numbers on x86_64 and aarch64; None where the machine has no such call
    # reading and writing what is open, and opening what Landlock allows
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "preadv": (295, 69),
    "pwritev": (296, 70),
    "preadv2": (327, 286),
    "pwritev2": (328, 287),
    "lseek": (8, 62),
    "open": (2, None),
    "openat": (257, 56),
    "openat2": (437, 437),
    "close": (3, 57),
    "close_range": (436, 436),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "fcntl": (72, 25),
    "ioctl": (16, 29),
    "pipe": (22, None),
    "pipe2": (293, 59),
    "getdents": (78, None),
    "getdents64": (217, 61),
    "fadvise64": (221, 223),
    # what is there; Landlock cannot hide it
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getcwd": (79, 17),
    "chdir": (80, 49),
    "fchdir": (81, 50),
    # memory of its own
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "membarrier": (324, 283),
    # waiting, and time
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "epoll_create": (213, None),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "epoll_pwait2": (441, 441),
    "eventfd2": (290, 19),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "alarm": (37, None),
    "pause": (34, None),
    "getitimer": (36, 102),
    "setitimer": (38, 103),
    "timer_create": (222, 107),
    "timer_settime": (223, 110),
    "timer_gettime": (224, 108),
    "timer_getoverrun": (225, 109),
    "timer_delete": (226, 111),
    # threads, and locks between them
    "clone": (56, 220),
    "set_robust_list": (273, 99),
    "set_tid_address": (218, 96),
    "rseq": (334, 293),
    "arch_prctl": (158, None),
    "futex": (202, 98),
    "futex_waitv": (449, 449),
    "sched_yield": (24, 124),
    "getcpu": (309, 168),
    "sched_getaffinity": (204, 123),
    "exit": (60, 93),
    "exit_group": (231, 94),
    # signals of its own
    "kill": (62, 129),
    "tgkill": (234, 131),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137),
    "rt_sigsuspend": (130, 133),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    # what it is
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getpgrp": (111, None),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getresuid": (118, 148),
    "getresgid": (120, 150),
    "getgroups": (115, 158),
    "umask": (95, 166),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "getrusage": (98, 165),
    "getrlimit": (97, 163),
    "setrlimit": (160, 164),
    "prlimit64": (302, 261),
    "getrandom": (318, 278),
    # pairs of sockets
    "socketpair": (53, 199),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "shutdown": (48, 210),
    "getsockopt": (55, 209),
    "setsockopt": (54, 208),
    "getsockname": (51, 204),
    "getpeername": (52, 205),
}
_CLONE_3 = 435
"""Its flags lie in memory, where a filter cannot look; the C library takes `clone` where there is none."""
_CLONE_THREAD = 0x00010000
_X32 = 0x40000000
_DESCRIPTORS = (0, 1, 2, 3, 4, 1030, 1032)  # fcntl: copies and flags of descriptors; no locks, leases, owners, notices
_TERMINALS = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # ioctl: isatty, and flags of descriptors


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def refuse_other_calls() -> None:
    """Add a filter that refuses (EPERM) every system call that is not listed, and ends a program at the kernel's other entries.

    Where a call names a process, it can only name its own, and what it starts can only be a thread of its own.

    Raises:
        OSError: The kernel refuses the filter, or the numbers of this machine are not known.
    """
    machine = os.uname().machine
    if machine not in _MACHINES:
        raise OSError(f"no numbers of system calls are known for {machine}")
    column, architecture = _MACHINES[machine]
    program = _program(column, architecture, os.getpid())
    instructions = (_Instruction * len(program))(*(_Instruction(*entry) for entry in program))
    added = _Filter(len(program), instructions)
    if ctypes.CDLL(None, use_errno=True).syscall(_SECCOMP[column], _SET_MODE_FILTER, 0, ctypes.byref(added)) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def _program(column: int, architecture: int, own: int) -> list[tuple[int, int, int, int]]:
    limits: dict[
        str, dict[int, tuple[int, ...]]
    ] = {  # the 32-bit words of the arguments that are looked at, and what they may be
        "prlimit64": {0: (0, own)},
        "sched_getaffinity": {0: (0, own)},
        "kill": {0: (own,)},
        "tgkill": {0: (own,)},
        "fcntl": {2: _DESCRIPTORS},
        "ioctl": {2: _TERMINALS},
        "sendto": {8: (0,), 9: (0,)},  # no address: what is sent stays in the pair
    }
    program = [
        (_LOAD, 0, 0, 4),
        (_JUMP_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _END),
        (_LOAD, 0, 0, 0),
        (_JUMP_IF_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _END),
        (_JUMP_IF_EQUAL, 0, 1, _CLONE_3),
        (_RETURN, 0, 0, _UNKNOWN),
    ]
    for name, numbers in _CALLS.items():
        if (number := numbers[column]) is not None:
            rules = [rule for word, values in limits.get(name, {}).items() for rule in _one_of(word, values)]
            if name == "clone":
                rules = [(_LOAD, 0, 0, 16), (_JUMP_IF_SET, 1, 0, _CLONE_THREAD), (_RETURN, 0, 0, _REFUSE)]
            program += [(_JUMP_IF_EQUAL, 0, len(rules) + 1, number), *rules, (_RETURN, 0, 0, _ALLOW)]
    return [*program, (_RETURN, 0, 0, _REFUSE)]


def _one_of(word: int, values: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """Refuse the call unless a word of its arguments has one of these values."""
    checks = [(_JUMP_IF_EQUAL, len(values) - index, 0, value) for index, value in enumerate(values)]
    return [(_LOAD, 0, 0, 16 + 4 * word), *checks, (_RETURN, 0, 0, _REFUSE)]
