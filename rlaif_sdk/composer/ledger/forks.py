"""Open databases over a fork of the process: no thread is within SQLite meanwhile, and the child opens them anew."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from typing import Protocol


class Forked(Protocol):
    """A database, of which the child must not use the parent's connection.

    Attributes:
        lock: Held by the thread that uses the connection.
    """

    lock: threading.RLock

    def leave_to_parent(self) -> None:
        """In the child: forget the connection."""


_databases: weakref.WeakSet[Forked] = weakref.WeakSet()
_inherited: list[sqlite3.Connection] = []
_held: list[Forked] = []


def hold_over_forks(database: Forked) -> None:
    """Keep a database whole over every fork from now on."""
    _databases.add(database)


def keep_open(connection: sqlite3.Connection) -> None:
    """In the child: hold on to a connection of the parent's, which must be neither used nor closed there."""
    _inherited.append(connection)


def _hold_all() -> None:
    """Before a fork: wait until no thread is within SQLite, whose own locks would stay taken in the child."""
    _held.extend(sorted(_databases, key=id))
    for database in _held:
        database.lock.acquire()


def _release_all() -> None:
    while _held:
        _held.pop().lock.release()


def _leave_all() -> None:
    while _held:
        _held.pop().leave_to_parent()


os.register_at_fork(before=_hold_all, after_in_parent=_release_all, after_in_child=_leave_all)
