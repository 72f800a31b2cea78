"""The filter of system calls holds by itself, whatever sandbox stands around it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, fcntl, os, resource, signal, socket, sys, threading
from rlaif_execution.inside.calls import refuse_other_calls
parent, act = os.getppid(), sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
file = open(os.__file__)
pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
def raw(*call):
    if libc.syscall(*call) == -1:
        raise PermissionError(ctypes.get_errno(), "")
libc.prctl(38, 1, 0, 0, 0)
refuse_other_calls()
try:
    eval(act)
except OSError as error:
    print("refused", error.errno)
else:
    print("done")
"""


def outcome(act: str) -> str:
    ended = subprocess.run([sys.executable, "-c", PROGRAM, act], capture_output=True, text=True, check=False)
    return ended.stdout.strip() or f"ended by {-ended.returncode}"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of the calls are this machine's")
@pytest.mark.parametrize(
    "act",
    [
        "os.kill(parent, 0)",
        "raw(234, parent, parent, 0)",
        "resource.prlimit(parent, resource.RLIMIT_CORE)",
        "os.sched_getaffinity(parent)",
        "raw(294, 0)",
        "raw(300, 0x200, 0)",
        "fcntl.flock(file, fcntl.LOCK_SH)",
        "fcntl.lockf(file, fcntl.LOCK_SH)",
        "fcntl.fcntl(pair[0], fcntl.F_SETOWN, parent)",
        "fcntl.ioctl(file, 0x80086601, bytes(8))",
        "pair[0].sendto(b'', chr(0) + 'nobody')",
        "os.fork()",
        "raw(56, 17, 0, 0, 0, 0)",
        "socket.socket()",
        "os.getpgid(parent)",
    ],
)
def test_a_call_that_reaches_beyond_the_program_is_refused(act: str) -> None:
    """Each by its own rule: one that is opened is seen here, though Landlock or a namespace would still stop it."""
    assert outcome(act) == "refused 1"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of the calls are this machine's")
@pytest.mark.parametrize(
    ("act", "expected"),
    [
        ("os.kill(os.getpid(), 0)", "done"),
        ("resource.prlimit(0, resource.RLIMIT_CORE)", "done"),
        ("pair[0].send(b'x')", "done"),
        ("threading.Thread(target=int).start()", "done"),
        ("raw(435, 0, 0)", "refused 38"),
        ("raw(0x40000000 | 39)", "ended by 31"),
    ],
)
def test_what_stays_its_own_is_allowed_and_other_entries_end_it(act: str, expected: str) -> None:
    """Signals to itself, its limits, its pairs of sockets, its threads; clone3 is not there, and x32 is an end."""
    assert outcome(act) == expected
