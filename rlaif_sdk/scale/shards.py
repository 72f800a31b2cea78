"""Cuts a table into shards, ranges of its rows that are worked on apart; a group is never cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.digests import file_digest
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.ranges import Place, is_parquet, places, read_range, row_groups

_MOST_SHARDS_OF_A_ROW_GROUP = 16
"""A row group of a Parquet file is read from its start, so that many shards of one would read it many times."""


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
    if is_parquet(path):
        rows = max([rows, *(size // _MOST_SHARDS_OF_A_ROW_GROUP for size in row_groups(path))])
    cut = _cut(places(path, group), rows, grouped=group is not None)
    shards = tuple(cut)
    if not shards:
        raise DataError("has no rows", file=str(path))
    return Plan(path, file_digest(path), shards)


def read_shard(file: Path, shard: Shard) -> Iterator[Row]:
    """The rows of a shard, one at a time.

    Raises:
        DataError: A row is no JSON object; names the line.
    """
    return read_range(file, line=shard.line, offset=shard.offset, rows=shard.rows)


def _cut(rows: Iterable[Place], size: int, *, grouped: bool) -> Iterator[Shard]:
    """Shards of ``size`` rows; a row's group is asked for where a cut is due alone."""
    first: Place | None = None
    previous: Place | None = None
    number, first_row, count = 0, 1, 0
    for row in rows:
        if first is None or previous is None:
            first = row
        elif count >= size and not (grouped and _of_one_group(previous, row)):
            yield Shard(number, first_row, count, first.line, first.offset)
            number, first_row, count, first = number + 1, first_row + count, 0, row
        previous = row
        count += 1
    if first is not None:
        yield Shard(number, first_row, count, first.line, first.offset)


def _of_one_group(one: Place, other: Place) -> bool:
    label = one.column()
    return label is not None and label == other.column()
