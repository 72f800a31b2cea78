"""The tables of a ledger file."""

from __future__ import annotations

from pathlib import Path

from rlaif_sdk.exceptions import LedgerError
from rlaif_sdk.io.sqlite import Schema

_TABLES = (
    # The cache: which rewards there are scores of, and the scores by content key.
    """
    CREATE TABLE rewards (
        id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, name TEXT NOT NULL, version TEXT NOT NULL,
        revision TEXT NOT NULL, params TEXT NOT NULL
    )""",
    """
    CREATE TABLE scores (
        key BLOB PRIMARY KEY, reward INTEGER NOT NULL REFERENCES rewards (id), value REAL NOT NULL, extra TEXT,
        created INTEGER NOT NULL
    ) WITHOUT ROWID""",
    # The record: each composer that wrote is a run; a batch is one row, its numbers little-endian 64-bit floats.
    """
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY AUTOINCREMENT, token TEXT NOT NULL UNIQUE, started REAL NOT NULL, rewards TEXT NOT NULL
    )""",
    """
    CREATE TABLE batches (
        id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL REFERENCES runs (id), created REAL NOT NULL,
        step INTEGER NOT NULL, total_steps INTEGER, training INTEGER NOT NULL, rows INTEGER NOT NULL,
        texts BLOB NOT NULL, totals BLOB NOT NULL, in_force TEXT NOT NULL
    )""",
    "CREATE INDEX batches_of_run ON batches (run)",
    """
    CREATE TABLE answers (
        batch INTEGER NOT NULL REFERENCES batches (id), reward TEXT NOT NULL, raw BLOB NOT NULL, notes TEXT NOT NULL,
        PRIMARY KEY (batch, reward)
    ) WITHOUT ROWID""",
)


def _error(path: Path, message: str, hint: str | None) -> LedgerError:
    return LedgerError(f"{path}: {message}", hint=hint)


LEDGER = Schema(
    name="ledger", application_id=0x524C4146, version=1, tables=_TABLES, error=_error, replace_corrupt=True
)  # RLAF
