"""A look over each shard before any is scored: bad rows, the columns and their kinds, groups that stand apart."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rlaif_sdk.composer.tables import TableLayout, as_batch
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.arrow import Columns
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.jsonl import Row, row_as_json
from rlaif_sdk.scale.shards import Shard, read_shard

_CHUNK = 1024


@dataclass(slots=True)
class Findings:
    """What is known of rows that were looked over.

    Attributes:
        columns: Every column that any row has, in order of appearance, and the kind of its values.
        groups: 64-bit digests of the groups' labels, one for each run of rows with one label; a row without a label is
            a group of its own and none of these.
        first_rows: The first row of each run.
    """

    columns: Columns = field(default_factory=Columns)
    groups: array[int] = field(default_factory=lambda: array("Q"))
    first_rows: array[int] = field(default_factory=lambda: array("Q"))


def look_over(file: Path, shard: Shard, layout: TableLayout) -> Findings:
    """Read the rows of a shard, and refuse what cannot be scored or written.

    Raises:
        DataError: A row cannot be read, lacks its prompt or completion, or holds what no file can; names the row.
    """
    found = Findings()
    row = shard.first_row
    label: Any = None
    for chunk in _chunks(read_shard(file, shard)):
        as_batch(chunk, layout, first_row=row, file=str(file))
        for record in chunk:
            found.columns.add(record)
            row_as_json(record, str(file), row)  # a column may turn out to be JSON in another shard
            own = None if layout.group is None else record.get(layout.group)
            if own is not None and (row == shard.first_row or own != label):
                found.groups.append(_digest(own))
                found.first_rows.append(row)
            label = own
            row += 1
    return found


def merge_findings(parts: Iterable[Findings], file: Path) -> Findings:
    """What is known of the whole table, from its shards in their order.

    Raises:
        DataError: The rows of a group do not stand together.
    """
    import numpy as np

    whole = Findings()
    for part in parts:
        whole.columns.unite(part.columns)
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


def _chunks(records: Iterator[Row]) -> Iterator[list[Row]]:
    while chunk := list(islice(records, _CHUNK)):
        yield chunk


def _digest(label: Any) -> int:
    return int(json_digest(label, default=repr)[:16], 16)
