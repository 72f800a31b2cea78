"""The first process of a container, which ends the program when it is told to, and when nobody tells it for long."""

from __future__ import annotations

import ctypes
import os
import signal

_SET_DUMPABLE = 4


def leave_to_child(seconds: int) -> None:
    """Go on in a child, and watch over it until it ends: SIGTERM ends it, and so do so many seconds.

    What runs in the child can neither signal the watcher, by the filter of calls, nor open its memory, by the kernel.

    Args:
        seconds: How long the child may live.

    Raises:
        OSError: The kernel refuses.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    ending = signal.SIGTERM, signal.SIGALRM
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    child = os.fork()
    if child:
        for number in ending:
            signal.signal(number, lambda *_: os.kill(child, signal.SIGKILL))
        signal.alarm(seconds)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ending)
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(code if code >= 0 else 128 - code)
