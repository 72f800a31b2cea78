"""Cuts a table into shards, ranges of its rows that are worked on apart; a group is never cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.digests import file_digest
from rlaif_sdk.records import Record, open_parquet, parse_line

_MOST_SHARDS_OF_A_ROW_GROUP = 16
"""A row group of a Parquet file is read from its start, so that many shards of one would read it many times."""
_PARQUET_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Shard:
    """A range of a table's rows.

    Attributes:
        number: Its place among the shards, from 0.
        first_row: The number of its first row, from 1.
        rows: How many rows it has.
        line: The number of the line at which it begins, from 1; the first row for Parquet.
        offset: Where it begins: the byte in a JSONL file, the row (from 0) in a Parquet file.
    """

    number: int
    first_row: int
    rows: int
    line: int
    offset: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How a table is cut.

    Attributes:
        file: The table.
        digest: SHA-256 of the file.
        shards: Its shards, in the order of the rows.
    """

    file: Path
    digest: str
    shards: tuple[Shard, ...]


class _Row(NamedTuple):
    line: int
    offset: int
    content: Any


def plan_shards(file: str | Path, *, rows: int, group: str | None = None) -> Plan:
    """Cut a ``.jsonl`` or ``.parquet`` file into shards of ``rows`` rows, more where a group would be cut.

    Args:
        file: The table, which is read once.
        rows: How many rows a shard has, but for the last; of a Parquet file with long row groups, more.
        group: The column that is equal for rows that must stay together; they stand together in the table.

    Raises:
        DataError: The file is missing, of another kind, empty, or a row at which it would be cut cannot be read.
        MissingExtraError: It is Parquet and pyarrow is not installed.
    """
    path = Path(file)
    if not path.is_file():
        raise DataError("there is no such file", file=str(path))
    if path.suffix == ".parquet":
        cut = _cut(_parquet_rows(path, group), _parquet_size(path, rows), None if group is None else _itself)
    elif path.suffix in {".jsonl", ".ndjson", ".json"}:
        labelled = None if group is None else (lambda line: parse_line(line, path, None).get(group))
        cut = _cut(_jsonl_rows(path), rows, labelled)
    else:
        raise DataError(
            f"files with the suffix {path.suffix!r} are not read", file=str(path), hint="use .jsonl or .parquet"
        )
    shards = tuple(cut)
    if not shards:
        raise DataError("has no rows", file=str(path))
    return Plan(path, file_digest(path), shards)


def read_shard(file: Path, shard: Shard) -> Iterator[Record]:
    """The rows of a shard, one at a time.

    Raises:
        DataError: A row is no JSON object; names the line.
    """
    return _read_parquet(file, shard) if file.suffix == ".parquet" else _read_jsonl(file, shard)


def _cut(rows: Iterable[_Row], size: int, label: Callable[[Any], Any] | None) -> Iterator[Shard]:
    """Shards of ``size`` rows; a row's label is asked for where a cut is due alone."""
    first: _Row | None = None
    previous: _Row | None = None
    number, first_row, count = 0, 1, 0
    for row in rows:
        if first is None or previous is None:
            first = row
        elif count >= size and (label is None or label(previous.content) != label(row.content)):
            yield Shard(number, first_row, count, first.line, first.offset)
            number, first_row, count, first = number + 1, first_row + count, 0, row
        previous = row
        count += 1
    if first is not None:
        yield Shard(number, first_row, count, first.line, first.offset)


def _itself(label: Any) -> Any:
    return label


def _jsonl_rows(path: Path) -> Iterator[_Row]:
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _Row(number, offset, line)
            offset += len(line)


def _read_jsonl(path: Path, shard: Shard) -> Iterator[Record]:
    left = shard.rows
    with path.open("rb") as file:
        file.seek(shard.offset)
        for number, line in enumerate(file, start=shard.line):
            if line.strip():
                yield parse_line(line, path, number)
                left -= 1
            if not left:
                return


def _parquet_size(path: Path, rows: int) -> int:
    with open_parquet(path) as file:
        sizes = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    return max([rows, *(int(size) // _MOST_SHARDS_OF_A_ROW_GROUP for size in sizes)])


def _parquet_rows(path: Path, group: str | None) -> Iterator[_Row]:
    with open_parquet(path) as file:
        if group is None:
            yield from (_Row(row + 1, row, None) for row in range(file.metadata.num_rows))
            return
        if group not in file.schema_arrow.names:
            found = ", ".join(file.schema_arrow.names)
            raise DataError(f"has no column {group!r}", file=str(path), hint=f"columns: {found}")
        row = 0
        for batch in file.iter_batches(_PARQUET_ROWS, columns=[group]):
            for label in batch.column(0).to_pylist():
                yield _Row(row + 1, row, label)
                row += 1


def _read_parquet(path: Path, shard: Shard) -> Iterator[Record]:
    with open_parquet(path) as file:
        wanted: list[int] = []
        position = skip = 0
        for index in range(file.num_row_groups):
            size = file.metadata.row_group(index).num_rows
            if position < shard.offset + shard.rows and position + size > shard.offset:
                skip = skip if wanted else shard.offset - position
                wanted.append(index)
            position += size
        left = shard.rows
        for batch in file.iter_batches(_PARQUET_ROWS, row_groups=wanted):
            here = batch.slice(skip, left)
            skip = max(0, skip - batch.num_rows)
            left -= here.num_rows
            yield from here.to_pylist()
            if not left:
                return
