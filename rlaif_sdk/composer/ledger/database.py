"""The ledger's file: SQLite in WAL mode, so that several processes may write and a kill loses nothing committed."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rlaif_sdk.composer.ledger.forks import hold_over_forks, keep_open
from rlaif_sdk.composer.ledger.schema import APPLICATION_ID, SCHEMA, SCHEMA_VERSION
from rlaif_sdk.exceptions import LedgerError

T = TypeVar("T")

BUSY_SECONDS = 60.0
"""How long one process waits for another's write."""
_MAGIC = b"SQLite format 3\0"
_SETTINGS = ("journal_mode = WAL", "synchronous = NORMAL", "cache_size = -65536", "mmap_size = 1073741824")
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class Database:
    """One ledger file, for all threads of a process; other processes may use the file at the same time.

    A process has one connection, made anew after a fork, and when the file was moved away. A corrupt file is renamed,
    with a warning, and a new one made.

    Args:
        path: The file; it and its folder are made if need be.
        create: False to read what is there: a missing or corrupt file is then an error.

    Raises:
        LedgerError: The file cannot be opened, is something else, or is of a later version.
    """

    def __init__(self, path: str | Path, *, create: bool = True) -> None:
        self.path = Path(path).absolute()
        self.create = create
        self.lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode = (0, 0)
        hold_over_forks(self)
        self.run(lambda _: None)

    def run(self, action: Callable[[sqlite3.Connection], T], *, write: bool = False) -> T:
        """Run an action in one transaction; a corrupt file is set aside, and the action run on a new one.

        Raises:
            LedgerError: The disk is full, another process does not let go of the file, or it cannot be used otherwise.
        """
        with self.lock:
            try:
                return self._attempt(action, write=write)
            except sqlite3.DatabaseError as error:
                if _code(error) not in _CORRUPT or not self.create:
                    raise self._error(error) from error
                self._set_aside(error)
            except LedgerError:
                raise
            except OSError as error:
                raise LedgerError(f"{self.path}: {error.strerror}", hint="name a file that can be written") from error
            try:
                return self._attempt(action, write=write)
            except sqlite3.DatabaseError as error:
                raise self._error(error) from error

    def _attempt(self, action: Callable[[sqlite3.Connection], T], *, write: bool) -> T:
        connection = self._connected()
        connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        try:
            result = action(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and self._inode != _inode(self.path):
            self._disconnect()
        if self._connection is None:
            self._check_kind()
            self._connection = self._connect()
            self._inode = _inode(self.path)
        return self._connection

    def _check_kind(self) -> None:
        """Refuse a file that was never a ledger, so that only ledgers are ever set aside."""
        if not self.create and not self.path.is_file():
            raise LedgerError(f"{self.path}: there is no such ledger", hint="give the file that 'ledger' names")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            with self.path.open("rb") as file:
                head = file.read(4096)
            if head and not head.startswith(_MAGIC) and b"\0" not in head:
                raise LedgerError(f"{self.path}: is a file of another kind, and no ledger", hint="name another file")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._refuse_others(connection)
            for setting in _SETTINGS:
                _patiently(connection, f"PRAGMA {setting}")
            _patiently(connection, "BEGIN IMMEDIATE")
            if not _patiently(connection, "PRAGMA user_version")[0][0]:
                _make_tables(connection)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _refuse_others(self, connection: sqlite3.Connection) -> None:
        """Refuse what is not ours before anything of it is changed."""
        ((tables, application, version),) = _patiently(
            connection,
            "SELECT (SELECT COUNT(*) FROM sqlite_schema), application_id, user_version "
            "FROM pragma_application_id, pragma_user_version",
        )
        if tables and application != APPLICATION_ID:
            raise LedgerError(
                f"{self.path}: is an SQLite file of another kind, and no ledger", hint="name another file"
            )
        if version > SCHEMA_VERSION:
            raise LedgerError(
                f"{self.path}: is a ledger of version {version}; this rlaif_sdk reads {SCHEMA_VERSION}",
                hint="update rlaif_sdk, or name another file",
            )

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        """Rename the corrupt file, unless another process has done so already."""
        found = _inode(self.path)
        mine = self._inode if self._connection is not None else found
        self._disconnect()
        with _locked(self.path.parent):
            if _inode(self.path) != mine:
                return
            kept = _free_name(self.path, time.strftime("corrupt-%Y%m%dT%H%M%S"))
            for suffix in ("-wal", "-shm", ""):  # a log without its file would be taken for the new file's
                part = self.path.with_name(self.path.name + suffix)
                if part.exists():
                    part.rename(kept.with_name(kept.name + suffix))
        warnings.warn(
            f"the ledger {self.path} is corrupt ({error}); it is kept as {kept}, and a new one made", stacklevel=2
        )

    def _error(self, error: sqlite3.DatabaseError) -> LedgerError:
        hints = {
            sqlite3.SQLITE_FULL: "make room and resume: what was committed is kept",
            sqlite3.SQLITE_IOERR: "look at the disk, and whether it has room: what was committed is kept",
            sqlite3.SQLITE_READONLY: "name a file that can be written",
            sqlite3.SQLITE_CANTOPEN: "name a file that can be written",
            **dict.fromkeys(_BUSY, f"another process has held it for {BUSY_SECONDS:g} s"),
            **dict.fromkeys(_CORRUPT, "move it away: the next run makes a new one"),
        }
        return LedgerError(f"{self.path}: {error}", hint=hints.get(_code(error)))

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def vacuum(self) -> None:
        """Give the room of what was deleted back to the file system."""
        with self.lock:
            connection = self._connected()
            try:
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.DatabaseError as error:
                raise self._error(error) from error

    def close(self) -> None:
        """Close this process's connection; the next use opens it again."""
        with self.lock:
            self._disconnect()

    def leave_to_parent(self) -> None:
        """In a forked child: forget the parent's connection, which must be neither used nor closed here."""
        self.lock = threading.RLock()
        if self._connection is not None:
            keep_open(self._connection)
            self._connection = None


def _code(error: sqlite3.DatabaseError) -> int:
    """SQLite's primary result code."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _inode(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_dev, status.st_ino


def _make_tables(connection: sqlite3.Connection) -> None:
    for statement in SCHEMA:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _patiently(connection: sqlite3.Connection, statement: str) -> list[Any]:
    """Execute what SQLite does not itself wait for while another process opens the file, or recovers it."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return connection.execute(statement).fetchall()
        except sqlite3.OperationalError as error:
            if _code(error) not in _BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _free_name(path: Path, suffix: str) -> Path:
    kept = path.with_name(f"{path.name}.{suffix}")
    number = 1
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.name}.{suffix}-{number}")
    return kept


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes that set a file in it aside."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
