"""What must not outlive a fork of the process: locks, threads, loops and connections are the parent's.

In the child, everything that has registered is told at once, before any other code runs there and while it has one
thread. So nothing needs to compare process ids when it is used.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

_told: dict[int, weakref.WeakMethod[Callable[[], None]] | Callable[[], Callable[[], None] | None]] = {}
_numbers = itertools.count()
_held_over: weakref.WeakSet[HoldsLock] = weakref.WeakSet()
_waiting: list[HoldsLock] = []
_inherited: list[Any] = []


class HoldsLock(Protocol):
    """Something that no other thread may be in the middle of using at a fork.

    Attributes:
        lock: Held by the thread that uses it.
    """

    lock: threading.RLock

    def leave_to_parent(self) -> None:
        """In the child: take a new lock, and forget what is the parent's."""


def on_fork(action: Callable[[], None]) -> None:
    """Call an action in every child that this process forks from now on.

    Args:
        action: A function, or the bound method of an object, which is not kept alive for it. It must not raise, wait,
            or use what other threads of the parent may have held.
    """
    number = next(_numbers)
    if hasattr(action, "__self__"):
        _told[number] = weakref.WeakMethod(action, lambda _: _told.pop(number, None))
    else:
        _told[number] = lambda: action


def hold_over_forks(owner: HoldsLock) -> None:
    """Take the owner's lock before every fork, so that no thread is in the middle of something in the child."""
    _held_over.add(owner)


def leave_to_parent(thing: Any) -> None:
    """In a child: keep what is the parent's from being finalized here, which would disturb the parent."""
    _inherited.append(thing)


def _before() -> None:
    _waiting.extend(sorted(_held_over, key=id))
    for owner in _waiting:
        owner.lock.acquire()


def _in_parent() -> None:
    while _waiting:
        _waiting.pop().lock.release()


def _in_child() -> None:
    while _waiting:
        _waiting.pop().leave_to_parent()
    for reference in list(_told.values()):
        if (action := reference()) is not None:
            action()


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
