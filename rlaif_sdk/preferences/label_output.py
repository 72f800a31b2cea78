"""The results of a labelling job: a table that trainers of preferences take, and a table of what failed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from rlaif_sdk.exceptions import DataError
from rlaif_sdk.records import Record, check_writable, read_records, write_records
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
"""In labels under a constitution alone."""
_CHUNK = 1024


def labelled_row(
    prompt: TextOrConversation,
    response_1: TextOrConversation,
    response_2: TextOrConversation,
    label: Mapping[str, Any],
    judge: str,
) -> Record:
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
    responses = [_like(prompt, response_1), _like(prompt, response_2)]
    chosen, rejected = responses if prob_1 >= 0.5 else responses[::-1]
    pair = (prompt, chosen, rejected, max(prob_1, 1 - prob_1), 1 if prob_1 >= 0.5 else 2)
    known = {name: judge if name == "judge" else label[name] for name in LABEL_COLUMNS}
    principle = {PRINCIPLE_COLUMN: label[PRINCIPLE_COLUMN]} if PRINCIPLE_COLUMN in label else {}
    return dict(zip(PAIR_COLUMNS, pair, strict=True)) | known | principle


def write_rows(rows: Iterable[Record], path: Path) -> None:
    """Write a .jsonl or .parquet file in constant memory; it appears under its name when it is whole.

    Raises:
        DataError: A column holds values of kinds that Parquet cannot hold together.
        MissingExtraError: It is Parquet and pyarrow is not installed.
    """
    check_writable(path)
    if path.suffix != ".parquet":
        with write_records(path) as writer:
            for row in rows:
                writer.write(row)
        return
    lines = path.with_name(f".{path.stem}.jsonl")
    try:
        write_rows(rows, lines)
        _to_parquet(lines, path)
    finally:
        lines.unlink(missing_ok=True)


def _to_parquet(lines: Path, path: Path) -> None:
    """Two readings: one to learn every column's type, one to write."""
    import pyarrow as pa
    from pyarrow import parquet

    partial = path.with_name(f".{path.name}.partial")
    try:
        schema = pa.schema([])
        for chunk in _chunks(read_records(lines)):
            found = pa.Table.from_pylist(chunk).schema
            schema = pa.unify_schemas([schema, found], promote_options="permissive")
        with parquet.ParquetWriter(partial, schema) as writer:
            for chunk in _chunks(read_records(lines)):
                writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
    except pa.ArrowException as error:
        partial.unlink(missing_ok=True)
        hint = "have a .jsonl file written; nothing that models answered is lost"
        raise DataError(f"Parquet cannot hold the rows: {error}", file=str(path), hint=hint) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)


def write_json(value: Mapping[str, Any], path: Path) -> None:
    """Write a small JSON file at once."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    while chunk := list(islice(records, _CHUNK)):
        yield [
            {name: value or None if isinstance(value, dict) else value for name, value in row.items()} for row in chunk
        ]


def _like(prompt: TextOrConversation, response: TextOrConversation) -> TextOrConversation:
    if isinstance(response, str) and not isinstance(prompt, str):
        return [{"role": "assistant", "content": response}]
    return response
