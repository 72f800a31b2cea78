"""The file of a review: SQLite, so that a kill loses nothing and several processes may write."""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlaif_sdk.exceptions import DataError

APPLICATION_ID = 0x524C5256
"""``RLRV``: tells a review from other SQLite files."""
SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0
"""How long one process waits for another's write."""
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE pair (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, content TEXT NOT NULL, prob_1 REAL, priority REAL NOT NULL,
    contested INTEGER NOT NULL DEFAULT 0, draw REAL NOT NULL
);
CREATE INDEX pair_by_priority ON pair (contested DESC, priority DESC, row);
CREATE INDEX pair_by_draw ON pair (draw);
CREATE TABLE act (
    id INTEGER PRIMARY KEY AUTOINCREMENT, pair TEXT NOT NULL REFERENCES pair (id), reviewer TEXT NOT NULL,
    choice TEXT NOT NULL CHECK (choice IN ('1', '2', 'tie', 'skip', 'edit')), left_response INTEGER NOT NULL,
    comment TEXT NOT NULL, seconds REAL, based_on INTEGER, text TEXT, created TEXT NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX act_by_pair ON act (pair, reviewer);
CREATE UNIQUE INDEX one_verdict ON act (pair, reviewer) WHERE revoked = 0 AND choice != 'edit';
CREATE TABLE lease (
    reviewer TEXT PRIMARY KEY, pair TEXT NOT NULL REFERENCES pair (id), until REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX lease_by_pair ON lease (pair);
"""


class Database:
    """One review file, for all threads of a process.

    Every transaction is on the disk when it ends (``synchronous = FULL``): a person's work is worth a few milliseconds.

    Raises:
        DataError: The file cannot be opened, is of another kind, or is of a later version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
            self._connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            weakref.finalize(self, self._connection.close)
            self._connection.row_factory = sqlite3.Row
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise self._error(error) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction that holds the file for writing; an exception takes it back.

        Raises:
            DataError: The disk is full, or another process does not let go of the file.
        """
        with self._lock:
            connection = self._connection
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise self._error(error) from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _prepare(self) -> None:
        connection = self._connection
        ((tables,),) = connection.execute("SELECT COUNT(*) FROM sqlite_schema")
        ((application,),) = connection.execute("PRAGMA application_id")
        ((version,),) = connection.execute("PRAGMA user_version")
        if tables and application != APPLICATION_ID:
            raise DataError("is no review", file=str(self.path), hint="name another file with --store")
        if version > SCHEMA_VERSION:
            raise DataError(
                f"is a review of version {version}; this rlaif_sdk reads {SCHEMA_VERSION}",
                file=str(self.path),
                hint="update rlaif_sdk",
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        ((version,),) = connection.execute("PRAGMA user_version")
        if not version:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")

    def _error(self, error: Exception) -> DataError:
        return DataError(
            f"the review cannot be kept: {error}",
            file=str(self.path),
            hint="look at the disk and its permissions, or name another file with --store; what was judged is kept",
        )
