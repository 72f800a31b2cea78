"""The tables that jobs read and write: texts in columns, pairs, labelled rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import PositiveInt

from rlaif_sdk.composer.tables import sampled_rows
from rlaif_sdk.config import TableConfig
from rlaif_sdk.conversations import read
from rlaif_sdk.exceptions import ConversationError, DataError
from rlaif_sdk.io.jsonl import Row, row_as_json
from rlaif_sdk.io.tables import TableName, TableSource, read_rows, table_digest
from rlaif_sdk.io.text import listed
from rlaif_sdk.judges.pairwise import Pair
from rlaif_sdk.types import TextOrConversation

PAIR_COLUMNS = ("prompt", "chosen", "rejected", "chosen_prob", "chosen_response")
LABEL_COLUMNS = (
    "prob_1",
    "prob_1_when_first",
    "prob_1_when_second",
    "flipped",
    "winning_place",
    "tie",
    "label_kind",
    "label_mass",
    "rationales",
    "flags",
    "judge",
    "usage",
)
PRINCIPLE_COLUMN = "principle"
"""Only in labels under a constitution."""


def check_text(record: Row, name: str, path: TableName, row: int, *, named: str = "in the config") -> None:
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
        hint = f"columns: {listed(record)}; name yours {named}"
        raise DataError(f"has no column {name!r}", file=str(path), row=row, hint=hint)
    try:
        turns = read(record[name])
    except ConversationError as error:
        raise DataError(f"{name!r} cannot be read: {error}", file=str(path), row=row) from error
    if not turns:
        raise DataError(f"{name!r} has no messages", file=str(path), row=row)


class PairsConfig(TableConfig):
    """The pairs to label, and which columns they are in; each text or messages."""

    prompt: str = "prompt"
    """The column of what both answer."""
    response_1: str = "response_1"
    """The column of the first responses."""
    response_2: str = "response_2"
    """The column of the second responses."""
    rows: PositiveInt | None = None
    """Label only so many rows, from the first on; null labels all."""
    sample: PositiveInt | None = None
    """Label so many rows, drawn at random, the same ones each time; null labels all."""


@dataclass(frozen=True, slots=True)
class PairTable:
    """What is known of a table of pairs before any is labelled.

    Attributes:
        rows: How many there are to label.
        digest: Of their table, see `rlaif_sdk.io.tables.table_digest`.
    """

    rows: int
    digest: str


def pair_rows(path: TableSource, columns: PairsConfig) -> Iterator[Row]:
    """The rows that are to be labelled, with all their columns."""
    rows = islice(read_rows(path), columns.rows)
    if columns.sample is None:
        return rows
    return sampled_rows(rows, sum(1 for _ in islice(read_rows(path), columns.rows)), columns.sample)


def read_pairs(path: TableSource, columns: PairsConfig) -> Iterator[Pair]:
    """The pairs in them."""
    for record in pair_rows(path, columns):
        yield Pair(record[columns.prompt], record[columns.response_1], record[columns.response_2])


def check_pairs(path: TableSource, columns: PairsConfig) -> PairTable:
    """Read every pair once before any is sent, so that a bad one is named and costs nothing.

    Raises:
        DataError: A row lacks a text or holds what the labels' file cannot, or a column has a name that the labels
            need; names the row.
    """
    names = (columns.prompt, columns.response_1, columns.response_2)
    if len(set(names)) < len(names):
        raise DataError(f"the columns {', '.join(names)} are not three different ones", file=str(path))
    name = str(path) if columns.sample is None else f"{path} (the sample of {columns.sample})"
    rows = 0
    found: dict[str, None] = {}
    for rows, record in enumerate(pair_rows(path, columns), start=1):
        found |= dict.fromkeys(record)
        for column in names:
            check_text(record, column, name, rows, named="under pairs:")
        row_as_json(record, name, rows)
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


def labelled_row(
    prompt: TextOrConversation,
    response_1: TextOrConversation,
    response_2: TextOrConversation,
    label: Mapping[str, Any],
    judge: str,
) -> Row:
    """A row of the results: the pair with the likelier better response as ``chosen``, and the label.

    Responses in text to a prompt in messages become messages, as trainers want them.

    Args:
        prompt: What both answer.
        response_1: The first response.
        response_2: The second response.
        label: See `rlaif_sdk.judges.PairLabel.record`.
        judge: The labeler's fingerprint.
    """
    prob_1 = label["prob_1"]
    responses = [like(prompt, response_1), like(prompt, response_2)]
    chosen, rejected = responses if prob_1 >= 0.5 else responses[::-1]
    pair = (prompt, chosen, rejected, max(prob_1, 1 - prob_1), 1 if prob_1 >= 0.5 else 2)
    known = {name: judge if name == "judge" else label[name] for name in LABEL_COLUMNS}
    principle = {PRINCIPLE_COLUMN: label[PRINCIPLE_COLUMN]} if PRINCIPLE_COLUMN in label else {}
    return dict(zip(PAIR_COLUMNS, pair, strict=True)) | known | principle


def like(prompt: TextOrConversation, response: TextOrConversation) -> TextOrConversation:
    """A response in the kind of its prompt: text, or messages."""
    if isinstance(response, str) and not isinstance(prompt, str):
        return [{"role": "assistant", "content": response}]
    return response
