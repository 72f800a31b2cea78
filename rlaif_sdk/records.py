"""JSONL and Parquet tables, read in chunks and written row by row; a bad row is named by file and line."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rlaif_sdk.exceptions import DataError, MissingExtraError
from rlaif_sdk.parquet import ParquetWriter

if TYPE_CHECKING:
    from types import ModuleType

Record = dict[str, Any]


def read_records(path: str | Path) -> Iterator[Record]:
    """The rows of a ``.jsonl`` or ``.parquet`` file, one at a time.

    Raises:
        DataError: The file is missing, of another kind, or a row is no JSON object; names the line.
        MissingExtraError: It is Parquet and pyarrow is not installed.
    """
    path = _existing(path)
    if path.suffix == ".parquet":
        yield from _read_parquet(path)
    elif path.suffix in {".jsonl", ".ndjson", ".json"}:
        yield from _read_jsonl(path)
    else:
        raise DataError(
            f"files with the suffix {path.suffix!r} are not read", file=str(path), hint="use .jsonl or .parquet"
        )


@dataclass(frozen=True, slots=True)
class Survey:
    """A look over a whole table.

    Attributes:
        rows: How many rows it has.
        columns: Every column that any row has, in order of appearance.
        mixed: Columns that hold text in some rows and something else in others, with one row of each.
    """

    rows: int
    columns: tuple[str, ...]
    mixed: Mapping[str, tuple[int, int]]

    def check_parquet(self, path: str | Path, *, hint: str) -> None:
        """Check that Parquet can hold the columns, before work is spent on the rows.

        Args:
            path: The table, for the error.
            hint: How to have another kind of file.

        Raises:
            DataError: A column is mixed; names it and two rows.
        """
        if self.mixed:
            name, (text, other) = next(iter(self.mixed.items()))
            problem = f"{name!r} is text in row {text} and something else in row {other}, which Parquet cannot hold"
            raise DataError(problem, file=str(path), hint=hint)


def survey(path: str | Path) -> Survey:
    """Look a table over before work is spent on it.

    Raises:
        DataError: The file cannot be read, or has no rows.
    """
    rows = 0
    kinds: dict[str, dict[bool, int]] = {}
    for rows, record in enumerate(read_records(path), start=1):
        for name, value in record.items():
            seen = kinds.setdefault(name, {})
            if value is not None:
                seen.setdefault(isinstance(value, str), rows)
    if not rows:
        raise DataError("has no rows", file=str(path))
    mixed = {name: (seen[True], seen[False]) for name, seen in kinds.items() if len(seen) > 1}
    return Survey(rows, tuple(kinds), mixed)


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise DataError("there is no such file", file=str(path))
    return path


def _read_jsonl(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8") as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield parse_line(line, path, number)
        except UnicodeDecodeError as error:
            raise DataError(f"is not UTF-8: {error}", file=str(path)) from error


def parse_line(line: str | bytes, path: Path, number: int | None) -> Record:
    """The row in a line of JSONL.

    Raises:
        DataError: It is no JSON object; names the file and, where it is known, the line's number.
    """
    try:
        record = json.loads(line)
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8: {error}", file=str(path), row=number) from error
    except (json.JSONDecodeError, RecursionError) as error:
        problem = (
            f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else "too deeply nested"
        )
        raise DataError(
            f"no valid JSON: {problem}", file=str(path), row=number, hint="one JSON object a line"
        ) from error
    if not isinstance(record, dict):
        kind = type(record).__name__
        raise DataError(f"a {kind} where a JSON object is wanted", file=str(path), row=number)
    return record


def _read_parquet(path: Path) -> Iterator[Record]:
    with open_parquet(path) as file:
        for batch in file.iter_batches():
            yield from batch.to_pylist()


@contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile`, closed at the end.

    Raises:
        DataError: The file is no valid Parquet.
        MissingExtraError: pyarrow is not installed.
    """
    parquet = _parquet()
    import pyarrow as pa

    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except pa.ArrowInvalid as error:
        raise DataError(f"no valid Parquet: {error}", file=str(path)) from error


def _parquet() -> ModuleType:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow, which reads and writes Parquet,", extra="parquet") from error
    module: ModuleType = parquet
    return module


class Writer(Protocol):
    """Takes rows."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Add one row."""

    def close(self) -> None:
        """Finish the file."""


@contextmanager
def write_records(path: str | Path) -> Iterator[Writer]:
    """Write a ``.jsonl`` or ``.parquet`` file; it appears under its name only when every row is written.

    Where the writing ends with an error, the rows written until then stay beside it in ``.NAME.partial``, and those
    that Parquet refuses in ``.NAME.partial.jsonl``; the error's notes name both. An older file of that name stays as
    it is.

    Raises:
        DataError: The suffix is neither, or Parquet cannot hold the rows.
        MissingExtraError: It is Parquet and pyarrow is not installed.
    """
    path = Path(path)
    check_writable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    writer = ParquetWriter(partial, name=path) if path.suffix == ".parquet" else _JsonlWriter(partial)
    try:
        yield writer
        writer.close()
    except BaseException as error:
        with suppress(Exception):  # the first error is the one to tell
            if places := writer.abandon():
                error.add_note(f"the rows written until then are in {' and '.join(places)}")
        raise
    partial.replace(path)


def check_writable(path: str | Path) -> None:
    """Check that `write_records` can write a file of that name, before work is spent on its rows.

    Raises:
        DataError: The suffix is neither ``.jsonl`` nor ``.parquet``.
        MissingExtraError: It is Parquet and pyarrow is not installed.
    """
    path = Path(path)
    if path.suffix not in {".jsonl", ".ndjson", ".parquet"}:
        raise DataError("the output's suffix is neither .jsonl nor .parquet", file=str(path))
    if path.suffix == ".parquet":
        _parquet()


def takes_no_more(error: OSError) -> bool:
    """Whether it says that a disk is full or read-only, or that a quota or a limit of a file's size is reached."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


class _JsonlWriter:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = 0
        self._file = path.open("w", encoding="utf-8", errors="backslashreplace")  # JSON's escape of a surrogate

    def write(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        self._rows += 1
        self._file.write(line)

    def close(self) -> None:
        self._file.close()

    def abandon(self) -> list[str]:
        """End after an error; returns the file, where it has whole rows, and how many of those for which there was room."""
        with suppress(OSError):
            self._file.close()
        rows = size = 0
        with self._path.open("r+b") as file:
            for line in file:
                if line.endswith(b"\n"):
                    rows, size = rows + 1, size + len(line)
            file.truncate(size)
        if not rows:
            self._path.unlink()
            return []
        return [str(self._path) if rows == self._rows else f"{self._path} ({rows} of {self._rows}, for want of room)"]
