"""A look over each shard before any is scored: bad rows, the columns and their types, groups that stand apart."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.parquet import without_empty
from rlaif_sdk.records import Record
from rlaif_sdk.scale.shards import Shard, read_shard
from rlaif_sdk.scoring import TableLayout, as_batch

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 1024


@dataclass(slots=True)
class Findings:
    """What is known of rows that were looked over.

    Attributes:
        schema: The Arrow types of every column that any row has, in order of appearance.
        groups: 64-bit digests of the groups' labels, one for each run of rows with one label.
        first_rows: The first row of each run.
    """

    schema: pa.Schema
    groups: array[int] = field(default_factory=lambda: array("Q"))
    first_rows: array[int] = field(default_factory=lambda: array("Q"))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(self.schema.names)


def look_over(file: Path, shard: Shard, layout: TableLayout) -> Findings:
    """Read the rows of a shard, and refuse what cannot be scored or written.

    Raises:
        DataError: A row cannot be read, lacks its prompt or completion, or has a column of another kind than the rows
            before it; names the row.
    """
    import pyarrow as pa

    found = Findings(pa.schema([]))
    row = shard.first_row
    label: Any = None
    for chunk in _chunks(read_shard(file, shard)):
        try:
            as_batch(chunk, layout, first_row=row)
        except DataError as error:
            raise DataError(error.message, file=str(file), row=error.row, hint=error.hint) from error
        found.schema = _unified(found.schema, _schema(chunk, file, row), file)
        for record in chunk:
            if layout.group is not None and (row == shard.first_row or record.get(layout.group) != label):
                label = record.get(layout.group)
                found.groups.append(_digest(label))
                found.first_rows.append(row)
            row += 1
    return found


def merge_findings(parts: Iterable[Findings], file: Path) -> Findings:
    """What is known of the whole table, from its shards in their order.

    Raises:
        DataError: A column is of another kind in another shard, or the rows of a group do not stand together.
    """
    import numpy as np
    import pyarrow as pa

    whole = Findings(pa.schema([]))
    for part in parts:
        whole.schema = _unified(whole.schema, part.schema, file)
        whole.groups.extend(part.groups)
        whole.first_rows.extend(part.first_rows)
    groups = np.frombuffer(whole.groups, dtype=np.uint64) if whole.groups else np.empty(0, np.uint64)
    order = np.argsort(groups, kind="stable")
    again = np.flatnonzero(groups[order][1:] == groups[order][:-1])
    if len(again):
        here, there = (whole.first_rows[order[again[0] + place]] for place in (0, 1))
        raise DataError(
            f"rows {here} and {there} are of one group, and rows of others stand between them",
            file=str(file),
            hint="sort the table by the group's column",
        )
    return whole


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    while chunk := list(islice(records, _CHUNK)):
        yield chunk


def _schema(records: list[Record], file: Path, first_row: int) -> pa.Schema:
    import pyarrow as pa

    names = dict.fromkeys(name for record in records for name in record)
    fields = []
    for name in names:
        values = [without_empty(record.get(name)) for record in records]
        try:
            fields.append((name, pa.array(values).type))
        except (pa.ArrowException, OverflowError) as error:
            last_row = first_row + len(records) - 1
            raise DataError(
                f"{name!r} is of several kinds in rows {first_row} to {last_row}, which Parquet cannot hold: {error}",
                file=str(file),
                hint="score it on one machine, with --output to a .jsonl file",
            ) from error
    return pa.schema(fields)


def _unified(known: pa.Schema, new: pa.Schema, file: Path) -> pa.Schema:
    import pyarrow as pa

    try:
        return pa.unify_schemas([known, new], promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(
            f"has a column of several kinds, which Parquet cannot hold: {error}",
            file=str(file),
            hint="score it on one machine, with --output to a .jsonl file",
        ) from error


def _digest(label: Any) -> int:
    return int(json_digest(label, default=repr)[:16], 16)
