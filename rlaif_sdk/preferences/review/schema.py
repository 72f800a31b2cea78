"""The tables of a review's file, in which every verdict is on the disk before the page says so."""

from __future__ import annotations

from pathlib import Path

from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.sqlite import Schema

_TABLES = """
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


def _error(path: Path, message: str, hint: str | None) -> DataError:
    return DataError(message, file=str(path), hint=hint)


REVIEW = Schema(
    name="review",
    application_id=0x524C5256,  # RLRV
    version=1,
    tables=[statement for statement in _TABLES.split(";") if statement.strip()],
    error=_error,
    durable=True,
    private=True,
    other_file="name another file with --store",
)
