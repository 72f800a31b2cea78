"""The table of pairs that a labelling job reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.jsonl import Row, row_as_json
from rlaif_sdk.io.tables import read_rows, table_digest
from rlaif_sdk.judges.pairwise_labels import Pair
from rlaif_sdk.preferences.inputs import check_text
from rlaif_sdk.preferences.label_config import PairsConfig
from rlaif_sdk.preferences.label_output import LABEL_COLUMNS, PAIR_COLUMNS, PRINCIPLE_COLUMN


@dataclass(frozen=True, slots=True)
class PairTable:
    """What is known of a table of pairs before any is labelled.

    Attributes:
        rows: How many there are to label.
        digest: SHA-256 of the file.
    """

    rows: int
    digest: str


def pair_rows(path: Path, columns: PairsConfig) -> Iterator[Row]:
    """The rows that are to be labelled, with all their columns."""
    return islice(read_rows(path), columns.rows)


def read_pairs(path: Path, columns: PairsConfig) -> Iterator[Pair]:
    """The pairs in them."""
    for record in pair_rows(path, columns):
        yield Pair(record[columns.prompt], record[columns.response_1], record[columns.response_2])


def look_over(path: Path, columns: PairsConfig) -> PairTable:
    """Read every pair once before any is sent, so that a bad one is named and costs nothing.

    Raises:
        DataError: A row lacks a text or holds what the labels' file cannot, or a column has a name that the labels
            need; names the row.
    """
    names = (columns.prompt, columns.response_1, columns.response_2)
    if len(set(names)) < len(names):
        raise DataError(f"the columns {', '.join(names)} are not three different ones", file=str(path))
    rows = 0
    found: dict[str, None] = {}
    for rows, record in enumerate(pair_rows(path, columns), start=1):
        found |= dict.fromkeys(record)
        for name in names:
            check_text(record, name, path, rows, named="under pairs:")
        row_as_json(record, str(path), rows)
    if not rows:
        raise DataError("has no rows", file=str(path))
    taken = set(found) - set(names)
    if clash := sorted(taken & {*PAIR_COLUMNS, *LABEL_COLUMNS, PRINCIPLE_COLUMN}):
        raise DataError(
            f"has a column {clash[0]!r}, which the labels have too",
            file=str(path),
            hint="rename it, or name it under pairs: as the prompt or a response",
        )
    return PairTable(rows, table_digest(path))
