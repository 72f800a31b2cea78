"""What a job reads: texts in the columns of a table."""

from __future__ import annotations

from pathlib import Path

from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.jsonl import Row


def check_text(record: Row, name: str, path: Path, row: int, *, named: str = "in the config") -> None:
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
    value = record[name]
    is_messages = isinstance(value, list) and value and all(isinstance(t, dict) and "role" in t for t in value)
    if not isinstance(value, str) and not is_messages:
        raise DataError(f"{name!r} must be text or messages with role and content", file=str(path), row=row)
