"""A Parquet table, written row by row in constant memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 4096
"""Rows that are made an Arrow table at once."""
_ROW_GROUP = 8 * _CHUNK


class ParquetWriter:
    """Keeps rows as Arrow files in a folder beside the target, since only at the end every column's type is known.

    Then they are copied into the Parquet file, a row group at a time. A column that is missing in some rows is null
    there; whole numbers among others become doubles.

    Args:
        path: The file to write.

    Raises:
        DataError: A column holds values of kinds that Parquet cannot hold together; from `write` and `close`.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._path = path
        self._folder = path.with_name(f"{path.name}.rows")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        self._rows: list[Mapping[str, Any]] = []
        self._schema = pa.schema([])
        self._files: list[Path] = []
        self._file: Any = None

    def write(self, record: Mapping[str, Any]) -> None:
        """Add one row."""
        self._rows.append({name: without_empty(value) for name, value in record.items()})
        if len(self._rows) >= _CHUNK:
            self._keep()

    def _keep(self) -> None:
        """Move rows from memory to a file, a new one if they have columns or types that the last one cannot hold."""
        import pyarrow as pa

        names = dict.fromkeys(name for row in self._rows for name in row)  # from_pylist knows the first row's alone
        try:
            table = pa.table({name: [row.get(name) for row in self._rows] for name in names})
            schema = pa.unify_schemas([self._schema, table.schema], promote_options="permissive")
        except pa.ArrowException as error:
            hint = "have a .jsonl file written, which may hold anything"
            raise DataError(f"Parquet cannot hold the rows: {error}", file=str(self._path), hint=hint) from error
        self._rows = []
        if self._file is None or schema != self._schema:
            self._end_file()
            self._schema = schema
            self._files.append(self._folder / f"{len(self._files)}.arrow")
            self._file = pa.ipc.new_file(self._files[-1], schema)
        self._file.write_table(_as(schema, table))

    def _end_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self) -> None:
        """Finish the file."""
        from pyarrow import parquet

        try:
            if self._rows:
                self._keep()
            self._end_file()
            with parquet.ParquetWriter(self._path, self._schema) as writer:
                for table in self._row_groups():
                    writer.write_table(table)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _row_groups(self) -> Iterator[pa.Table]:
        import pyarrow as pa

        kept: list[pa.Table] = []
        for path in self._files:
            with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as batches:
                for number in range(batches.num_record_batches):
                    kept.append(_as(self._schema, pa.Table.from_batches([batches.get_batch(number)])))
                    if sum(map(len, kept)) >= _ROW_GROUP:
                        yield pa.concat_tables(kept)
                        kept = []
        if kept:
            yield pa.concat_tables(kept)


def _as(schema: pa.Schema, table: pa.Table) -> pa.Table:
    """The same rows with the columns and types of a schema that unites theirs with others."""
    import pyarrow as pa

    return pa.concat_tables([schema.empty_table(), table], promote_options="permissive")


def without_empty(value: Any) -> Any:
    """The same value with null for every empty mapping, which Parquet cannot hold."""
    if isinstance(value, Mapping):
        return {key: without_empty(item) for key, item in value.items()} or None
    if isinstance(value, list):
        return [without_empty(item) for item in value]
    return value
