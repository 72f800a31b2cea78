"""What `rlaif label` wrote, as arrays."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.figures import Array, Indices
from rlaif_sdk.judges.usage import NOTHING, Usage
from rlaif_sdk.records import Record, read_records
from rlaif_sdk.types import as_text

_NEEDED = ("prompt", "chosen", "rejected", "chosen_response", "prob_1", "tie", "label_kind")


@dataclass(frozen=True, slots=True)
class LabelTable:
    """N labelled pairs.

    Attributes:
        prob_1_N: Probability that response 1 is better.
        when_first_N: The same when it stood in the first place; NaN where that was not asked.
        when_second_N: When it stood in the second.
        tie_N: Neither is better.
        hard_N: The label is a verdict and no probability.
        lengths_N2: The responses' lengths in characters.
        prompts_N: Which of the prompts 0 to G - 1 each pair is about.
        columns: Other columns that were asked for.
        usage: What all the labels took.
    """

    prob_1_N: Array
    when_first_N: Array
    when_second_N: Array
    tie_N: npt.NDArray[np.bool_]
    hard_N: npt.NDArray[np.bool_]
    lengths_N2: Array
    prompts_N: Indices
    columns: Mapping[str, Sequence[Any]]
    usage: Usage

    def __len__(self) -> int:
        return len(self.prob_1_N)

    @property
    def outcomes_N(self) -> Array:
        """1 where response 1 is preferred, 0 where response 2 is, 0.5 for ties."""
        outcomes_N: Array = np.where(self.tie_N, 0.5, 0.5 * (1 + np.sign(self.prob_1_N - 0.5)))
        return outcomes_N


def read_labels(path: str | Path, *, columns: Sequence[str] = ()) -> LabelTable:
    """Read a table of labels.

    Args:
        path: The ``labels.jsonl`` or ``labels.parquet`` of `rlaif label`.
        columns: Other columns to keep.

    Raises:
        DataError: A row is no label, or lacks one of the columns; names the row.
    """
    rows = []
    kept: dict[str, list[Any]] = {name: [] for name in columns}
    numbers: dict[str, int] = {}
    usage = NOTHING
    for row, record in enumerate(read_records(path), start=1):
        _check(record, columns, path, row)
        prompt = json.dumps(record["prompt"], sort_keys=True)
        rows.append((*_numbers(record), numbers.setdefault(prompt, len(numbers))))
        usage += Usage.of_record(record.get("usage") or {})
        for name in columns:
            kept[name].append(record[name])
    if not rows:
        raise DataError("has no labels", file=str(path))
    table_NC = np.array(rows, dtype=np.float64)
    return LabelTable(
        prob_1_N=table_NC[:, 0],
        when_first_N=table_NC[:, 1],
        when_second_N=table_NC[:, 2],
        tie_N=table_NC[:, 3] == 1,
        hard_N=table_NC[:, 4] == 1,
        lengths_N2=table_NC[:, 5:7],
        prompts_N=table_NC[:, 7].astype(np.int64),
        columns=kept,
        usage=usage,
    )


def _numbers(record: Record) -> tuple[float, ...]:
    orders = (record.get(name) for name in ("prob_1_when_first", "prob_1_when_second"))
    lengths = [len(as_text(record[name])) for name in ("chosen", "rejected")]
    return (
        record["prob_1"],
        *(math.nan if value is None else value for value in orders),
        record["tie"],
        record["label_kind"] == "hard",
        *(lengths if record["chosen_response"] == 1 else lengths[::-1]),
    )


def _check(record: Record, columns: Sequence[str], path: str | Path, row: int) -> None:
    if missing := [name for name in _NEEDED if name not in record]:
        hint = "give the labels.jsonl or labels.parquet that rlaif label writes"
        raise DataError(f"is no label: there is no {missing[0]!r}", file=str(path), row=row, hint=hint)
    if missing := [name for name in columns if name not in record]:
        hint = f"columns: {', '.join(record)}"
        raise DataError(f"has no column {missing[0]!r}", file=str(path), row=row, hint=hint)
    prob_1 = record["prob_1"]
    if isinstance(prob_1, bool) or not isinstance(prob_1, int | float) or not 0 <= prob_1 <= 1:
        raise DataError(f"prob_1 must be a probability, not {prob_1!r}", file=str(path), row=row)
