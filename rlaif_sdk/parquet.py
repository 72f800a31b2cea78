"""A Parquet table, written row by row in constant memory."""

from __future__ import annotations

import json
import shutil
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 4096
"""Rows that are made an Arrow table at once."""
_ROW_GROUP = 8 * _CHUNK


class ParquetWriter:
    """Keeps rows as Arrow streams in a folder beside the target, since only at the end every column's type is known.

    Then they are copied into the Parquet file, a row group at a time. A column that is missing in some rows is null
    there; whole numbers among others become doubles.

    Args:
        path: The file to write.
        name: The file's name in errors.

    Raises:
        DataError: A column holds values that Parquet cannot hold, or not together; from `write` and `close`.
    """

    def __init__(self, path: Path, *, name: Path) -> None:
        import pyarrow as pa

        self._path = path
        self._name = name
        self._folder = path.with_name(f"{path.name}.rows")
        self._apart = path.with_name(f"{path.name}.jsonl")
        self._apart.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        self._rows: list[Mapping[str, Any]] = []
        self._kept = 0  # rows in the streams
        self._schema = pa.schema([])
        self._batches: dict[Path, int] = {}  # whole ones in each stream
        self._stream: Any = None

    def write(self, record: Mapping[str, Any]) -> None:
        """Add one row."""
        self._rows.append({name: without_empty(value) for name, value in record.items()})
        if len(self._rows) >= _CHUNK:
            self._keep()

    def close(self) -> None:
        """Finish the file."""
        self._keep()
        self._end_stream()
        self._copy()
        shutil.rmtree(self._folder, ignore_errors=True)

    def abandon(self) -> list[str]:
        """End after an error, also one of `write` or `close`, and keep every row for which there is room.

        Returns:
            Where the rows are: in the file; those that it cannot hold in ``PATH.jsonl``; where there is no room for a
            copy of the streams, in these.
        """
        for step in (self._end_stream, self._keep, self._end_stream):
            with suppress(OSError, DataError):
                step()
        places: list[str] = []
        others: Iterable[Mapping[str, Any]] = self._rows
        streams_are_copied = True
        if self._kept:
            try:
                self._copy()
                places.append(str(self._path))
            except DataError:  # a stream holds its rows, and no one table holds those of all
                others = chain(self._kept_rows(), self._rows)
            except OSError:
                streams_are_copied = False
        if not places:
            self._path.unlink(missing_ok=True)
        try:
            if _write_jsonl(self._apart, others):
                places.append(str(self._apart))
        except OSError:
            streams_are_copied = streams_are_copied and others is self._rows
            places.append(f"{self._apart} (as many as there was room for)")
        if streams_are_copied:
            shutil.rmtree(self._folder, ignore_errors=True)
        else:
            places.append(f"{self._folder} (as Arrow streams)")
        return places

    def _keep(self) -> None:
        """Move rows from memory to a stream, a new one if they have columns or types that the last one cannot hold."""
        import pyarrow as pa

        if not self._rows:
            return
        names = dict.fromkeys(name for row in self._rows for name in row)
        table = pa.table({name: self._column(name) for name in names})
        with self._refusals(f"the rows from {self._kept + 1} to {self._kept + len(self._rows)} with those before"):
            schema = pa.unify_schemas([self._schema, table.schema], promote_options="permissive")
        table = self._as(schema, table)
        if self._stream is None or schema != self._schema:
            self._end_stream()
            self._schema = schema
            self._stream = pa.ipc.new_stream(self._folder / f"{len(self._batches)}.arrow", schema)
            self._batches[self._folder / f"{len(self._batches)}.arrow"] = 0
        for batch in table.to_batches():
            self._stream.write_batch(batch)
            self._batches[next(reversed(self._batches))] += 1
        self._kept += len(self._rows)
        self._rows = []

    def _column(self, name: str) -> pa.Array:
        import pyarrow as pa

        values = [row.get(name) for row in self._rows]
        try:
            return pa.array(values)
        except _refusals():
            first = bisect_left(range(len(values)), 1, key=lambda last: _is_refused(values[: last + 1]))
            with self._refusals(f"the rows' column {name!r}", row=self._kept + first + 1):
                return pa.array(values)

    def _as(self, schema: pa.Schema, table: pa.Table) -> pa.Table:
        """The same rows with the columns and types of a schema that unites theirs with others."""
        import pyarrow as pa

        columns = []
        for field in schema:
            if field.name in table.column_names:
                parts = [pa.schema([field]).empty_table(), table.select([field.name])]
                with self._refusals(f"the rows' column {field.name!r} with what it has in others"):
                    columns.append(pa.concat_tables(parts, promote_options="permissive")[0])
            else:
                columns.append(pa.nulls(len(table), field.type))
        return pa.table(columns, schema=schema)

    def _end_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _copy(self) -> None:
        """Write the rows of all streams into the file."""
        from pyarrow import parquet

        with self._refusals("the rows"), parquet.ParquetWriter(self._path, self._schema) as writer:
            for table in self._row_groups():
                writer.write_table(table)

    def _row_groups(self) -> Iterator[pa.Table]:
        import pyarrow as pa

        kept: list[pa.Table] = []
        for table in self._tables():
            kept.append(self._as(self._schema, table))
            if sum(map(len, kept)) >= _ROW_GROUP:
                yield pa.concat_tables(kept)
                kept = []
        if kept:
            yield pa.concat_tables(kept)

    def _tables(self) -> Iterator[pa.Table]:
        """What the streams hold whole: one to which writing failed may be torn behind it."""
        import pyarrow as pa

        for path, batches in self._batches.items():
            if batches:
                with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
                    for _ in range(batches):
                        yield pa.Table.from_batches([stream.read_next_batch()])

    def _kept_rows(self) -> Iterator[Mapping[str, Any]]:
        for table in self._tables():
            yield from table.to_pylist()

    @contextmanager
    def _refusals(self, what: str, *, row: int | None = None) -> Iterator[None]:
        """Raise what Arrow says of values as an error that names the file."""
        try:
            yield
        except _refusals() as error:
            hint = "have a .jsonl file written, which may hold anything"
            raise DataError(f"Parquet cannot hold {what}: {error}", file=str(self._name), row=row, hint=hint) from error


def _refusals() -> tuple[type[Exception], ...]:
    """How Arrow refuses values: also with Python's errors, for large numbers and for text that is no Unicode."""
    import pyarrow as pa

    return pa.ArrowException, OverflowError, UnicodeError


def _is_refused(values: list[Any]) -> bool:
    import pyarrow as pa

    try:
        pa.array(values)
    except _refusals():
        return True
    return False


def _write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Write rows that may hold anything; returns whether there are any."""
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return False
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, default=str) + "\n" for row in chain([first], rows))
    return True


def without_empty(value: Any) -> Any:
    """The same value with null for every empty mapping, which Parquet cannot hold."""
    if isinstance(value, Mapping):
        return {key: without_empty(item) for key, item in value.items()} or None
    if isinstance(value, list):
        return [without_empty(item) for item in value]
    return value
