"""What a job reads: texts in the columns of a table, and files by their digests."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rlaif_sdk.conversations import read
from rlaif_sdk.exceptions import ConversationError, DataError
from rlaif_sdk.records import Record


def check_text(record: Record, name: str, path: Path, row: int, *, named: str = "in the config") -> None:
    """Check that a column is there and is text or messages.

    Args:
        record: The row.
        name: The column.
        path: The table, for the error.
        row: The row's number, from 1.
        named: Where columns are named.

    Raises:
        DataError: It is not; names file and row.
    """
    if name not in record:
        hint = f"columns: {', '.join(record) or 'none'}; name yours {named}"
        raise DataError(f"has no column {name!r}", file=str(path), row=row, hint=hint)
    try:
        turns = read(record[name])
    except ConversationError as error:
        raise DataError(f"{name!r} cannot be read: {error}", file=str(path), row=row) from error
    if not turns:
        raise DataError(f"{name!r} has no messages", file=str(path), row=row)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file.

    Raises:
        DataError: There is no such file.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=str(path)) from error
