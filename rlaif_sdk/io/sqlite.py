"""A file that several threads, processes and forks may write at once, and of which a kill loses nothing committed.

It is SQLite in WAL mode. A process has one connection, made anew after a fork, and when the file was moved away.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import filelock

from rlaif_sdk.exceptions import RlaifError
from rlaif_sdk.io.files import other_kind
from rlaif_sdk.io.forks import hold_over_forks, leave_to_parent

T = TypeVar("T")

BUSY_SECONDS = 60.0
"""How long one process waits for another's write."""
_MAGIC = b"SQLite format 3\0"
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


@dataclass(frozen=True, slots=True)
class Schema:
    """A kind of file, and its tables.

    Attributes:
        name: What it is called in messages, such as ``ledger``.
        application_id: Tells it from other SQLite files.
        version: Of its tables; a file of another one is refused.
        tables: Statements that make them.
        error: Makes the error that is raised of a file, a message and a hint.
        durable: Whether every transaction is on the disk when it ends, which takes milliseconds; otherwise a power cut,
            not a kill, may lose the last ones.
        private: Whether a new file is readable by its owner only.
        replace_corrupt: Whether a corrupt file is set aside, with a warning, and a new one made; otherwise it is an
            error.
        other_file: The next step where a file is of another kind.
    """

    name: str
    application_id: int
    version: int
    tables: Sequence[str]
    error: Callable[[Path, str, str | None], RlaifError]
    durable: bool = False
    private: bool = False
    replace_corrupt: bool = False
    other_file: str = "name another file"


class Database:
    """One file, for all threads of a process.

    Args:
        path: The file; it and its folder are made if need be.
        schema: What kind of file it is.
        create: False to read what is there: a missing or corrupt file is then an error.

    Raises:
        RlaifError: The kind's own error: the file cannot be opened, is something else, or is of another version.
    """

    def __init__(self, path: str | Path, schema: Schema, *, create: bool = True) -> None:
        self.path = Path(path).absolute()
        self.schema = schema
        self.create = create
        self.lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode = (0, 0)
        hold_over_forks(self)
        self.run(lambda _: None)

    def run(self, action: Callable[[sqlite3.Connection], T], *, write: bool = False) -> T:
        """Run an action in one transaction; where a corrupt file is replaced, on the new one.

        Raises:
            RlaifError: The kind's own error: the disk is full, another process does not let go of the file, or it
                cannot be used otherwise.
        """
        with self.lock:
            try:
                with self._begun(write=write) as connection:
                    return action(connection)
            except sqlite3.DatabaseError as error:
                if _code(error) not in _CORRUPT or not self.create or not self.schema.replace_corrupt:
                    raise self._error(error) from error
                self._set_aside(error)
            except RlaifError:
                raise
            except OSError as error:
                raise self._refusal(str(error.strerror), "name a file that can be written") from error
            with self.transaction(write=write) as connection:
                return action(connection)

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction; an exception takes it back.

        Raises:
            RlaifError: See `run`; a corrupt file is always an error.
        """
        with self.lock:
            try:
                with self._begun(write=write) as connection:
                    yield connection
            except sqlite3.Error as error:
                raise self._error(error) from error

    @contextmanager
    def _begun(self, *, write: bool) -> Iterator[sqlite3.Connection]:
        connection = self._connected()
        connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and self._inode != _inode(self.path):
            self._disconnect()
            if self.create:
                warnings.warn(
                    f"the {self.schema.name} {self.path} was deleted, moved or replaced while it was in use: what it "
                    "held is not there any more",
                    stacklevel=2,
                )
        if self._connection is None:
            self._check_kind()
            self._connection = self._connect()
            self._inode = _inode(self.path)
        return self._connection

    def _check_kind(self) -> None:
        """Refuse what is no file, and a file that was never of this kind, so that no others are ever set aside."""
        try:
            kind = other_kind(self.path.stat().st_mode)
        except FileNotFoundError:
            kind = None
        except ValueError as error:
            raise self._refusal(str(error), "name a file that can be written") from error
        if kind is not None:  # reading a pipe would wait for ever
            raise self._refusal(f"is {kind}, where a {self.schema.name} is wanted", self.schema.other_file)
        if not self.create and not self.path.is_file():
            raise self._refusal(f"there is no such {self.schema.name}", f"give the file of a {self.schema.name}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            with self.path.open("rb") as file:
                head = file.read(4096)
            if head and not head.startswith(_MAGIC) and b"\0" not in head:
                raise self._refusal(f"is a file of another kind, and no {self.schema.name}", self.schema.other_file)
        elif self.schema.private:
            self.path.touch(mode=0o600)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        try:
            self._refuse_others(connection)
            synchronous = "FULL" if self.schema.durable else "NORMAL"
            for setting in ("journal_mode = WAL", f"synchronous = {synchronous}", "cache_size = -65536"):
                _patiently(connection, f"PRAGMA {setting}")
            _patiently(connection, "PRAGMA mmap_size = 1073741824")
            _patiently(connection, "BEGIN IMMEDIATE")
            if not _patiently(connection, "PRAGMA user_version")[0][0]:
                self._make_tables(connection)
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
        if tables and application != self.schema.application_id:
            raise self._refusal(f"is an SQLite file of another kind, and no {self.schema.name}", self.schema.other_file)
        if tables and version != self.schema.version:
            step = "update rlaif_sdk" if version > self.schema.version else "use the rlaif_sdk that wrote it"
            raise self._refusal(
                f"is a {self.schema.name} of version {version}; this rlaif_sdk reads {self.schema.version}",
                f"{step}, or {self.schema.other_file}",
            )

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        for statement in self.schema.tables:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {self.schema.application_id}")
        connection.execute(f"PRAGMA user_version = {self.schema.version}")

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        """Rename the corrupt file, unless another process has done so already."""
        found = _inode(self.path)
        mine = self._inode if self._connection is not None else found
        self._disconnect()
        lock = self.path.with_name(f".{self.path.name}.lock")
        with filelock.FileLock(lock):
            if _inode(self.path) != mine:
                return
            kept = _free_name(self.path, time.strftime("corrupt-%Y%m%dT%H%M%S"))
            for suffix in ("-wal", "-shm", ""):  # a log without its file would be taken for the new file's
                part = self.path.with_name(self.path.name + suffix)
                if part.exists():
                    part.rename(kept.with_name(kept.name + suffix))
        lock.unlink(missing_ok=True)
        warnings.warn(
            f"the {self.schema.name} {self.path} is corrupt ({error}); it is kept as {kept}, and a new one made",
            stacklevel=2,
        )

    def _error(self, error: sqlite3.Error) -> RlaifError:
        hints = {
            sqlite3.SQLITE_FULL: "make room and resume: what was committed is kept",
            sqlite3.SQLITE_IOERR: "look at the disk, and whether it has room: what was committed is kept",
            sqlite3.SQLITE_READONLY: "name a file that can be written",
            sqlite3.SQLITE_CANTOPEN: "name a file that can be written",
            **dict.fromkeys(_BUSY, f"another process has held it for {BUSY_SECONDS:g} s"),
            **dict.fromkeys(_CORRUPT, "move it away: the next run makes a new one"),
        }
        return self._refusal(str(error), hints.get(_code(error)))

    def _refusal(self, message: str, hint: str | None) -> RlaifError:
        return self.schema.error(self.path, message, hint)

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
        """In a forked child: a lock of its own, and no connection, which must be neither used nor closed here."""
        self.lock = threading.RLock()
        if self._connection is not None:
            leave_to_parent(self._connection)
            self._connection = None


def checksum(*values: bytes | str | float | None) -> int:
    """A number that tells whether a row holds what was written (CRC-32): any change of up to three bits changes it."""
    total = 0
    for value in values:
        total = zlib.crc32(value if isinstance(value, bytes) else repr(value).encode("utf-8", "replace"), total)
    return total


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _inode(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_dev, status.st_ino


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
