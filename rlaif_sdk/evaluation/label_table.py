"""What `rlaif label` wrote, or `rlaif review` exported, as arrays."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rlaif_sdk.conversations import view
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.tables import read_rows
from rlaif_sdk.judges.usage import NOTHING, Usage
from rlaif_sdk.preferences.review.export import EDITED
from rlaif_sdk.preferences.tables import check_text
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.estimates import Indices

_PAIR = ("prompt", "chosen", "rejected", "chosen_prob", "chosen_response")
_LABEL = ("prob_1", "tie", "label_kind")
_AI = "ai_prob_1"
"""The column of an export that holds the mean of the judges' labels; null where none labelled the pair."""
_VERDICT = "human_prob_1"
"""The column of an export that holds the mean of people's verdicts; null where nobody looked."""


@dataclass(frozen=True, slots=True)
class LabelTable:
    """N labelled pairs.

    Attributes:
        prob_1_N: Probability that response 1 is better, by the judge; of a review of several judges' labels, their
            mean. NaN for a pair that people alone labelled.
        when_first_N: The same when it stood in the first place, by the judge of the row; NaN where that was not asked.
        when_second_N: When it stood in the second.
        tie_N: The judge says that neither is better.
        hard_N: The judge's label is a verdict and no probability.
        decided_prob_1_N: The label after review, in which people usually take precedence; the judge's elsewhere.
        human_N: What people said in the review: 1, 0, 0.5 for a tie; NaN where nobody looked.
        lengths_N2: The responses' lengths in characters.
        prompts_N: Which of the prompts 0 to G - 1 each pair is about.
        rows_N: Which row of the file each is, from 1; edits are rows too.
        columns: Other columns that were asked for.
        usage: What all the labels took.
    """

    prob_1_N: Array
    when_first_N: Array
    when_second_N: Array
    tie_N: npt.NDArray[np.bool_]
    hard_N: npt.NDArray[np.bool_]
    decided_prob_1_N: Array
    human_N: Array
    lengths_N2: Array
    prompts_N: Indices
    rows_N: Indices
    columns: Mapping[str, Sequence[Any]]
    usage: Usage

    def __len__(self) -> int:
        return len(self.prob_1_N)

    @property
    def judged_N(self) -> Array:
        """By the judge: 1 where response 1 is preferred, 0 where response 2 is, 0.5 for ties; NaN without a label."""
        judged_N: Array = np.where(self.tie_N, 0.5, 0.5 * (1 + np.sign(self.prob_1_N - 0.5)))
        return judged_N

    @property
    def outcomes_N(self) -> Array:
        """The same after review: people's decision where they gave one, the judge's elsewhere."""
        tie_N = self.tie_N & np.isnan(self.human_N)
        outcomes_N: Array = np.where(tie_N, 0.5, 0.5 * (1 + np.sign(self.decided_prob_1_N - 0.5)))
        return outcomes_N


def read_labels(path: str | Path, *, columns: Sequence[str] = ()) -> LabelTable:
    """Read a table of labels.

    Pairs that an edit in a review made are left out: a person wrote one of their responses.

    Args:
        path: The ``labels.jsonl`` or ``labels.parquet`` of `rlaif label`, or what `rlaif review` exported of it.
        columns: Other columns to keep.

    Raises:
        DataError: A row is no label, or lacks one of the columns; names the row.
    """
    rows = []
    kept: dict[str, list[Any]] = {name: [] for name in columns}
    numbers: dict[str, int] = {}
    usage = NOTHING
    for row, record in enumerate(read_rows(path), start=1):
        if record.get("source") == EDITED:
            continue
        _check(record, columns, path, row)
        prompt = json.dumps(record["prompt"], sort_keys=True)
        rows.append((*_numbers(record), numbers.setdefault(prompt, len(numbers)), row))
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
        decided_prob_1_N=table_NC[:, 5],
        human_N=table_NC[:, 6],
        lengths_N2=table_NC[:, 7:9],
        prompts_N=table_NC[:, 9].astype(np.int64),
        rows_N=table_NC[:, 10].astype(np.int64),
        columns=kept,
        usage=usage,
    )


def _numbers(record: Row) -> tuple[float, ...]:
    prob_1, tie = _judged(record)
    probs = (prob_1, record.get("prob_1_when_first"), record.get("prob_1_when_second"))
    first_chosen = record["chosen_response"] == 1
    lengths = [len(view(record[name], "assistant") or "") for name in ("chosen", "rejected")]
    human = record.get(_VERDICT)
    return (
        *(math.nan if value is None else value for value in probs),
        tie,
        record.get("label_kind") == "hard",
        record["chosen_prob"] if first_chosen else 1 - record["chosen_prob"],
        math.nan if human is None else 0.5 * (1 + np.sign(human - 0.5)),
        *(lengths if first_chosen else lengths[::-1]),
    )


def _judged(record: Row) -> tuple[float | None, bool]:
    """What the judges say together, and whether it is a tie: the row's own label, unless others were averaged with it."""
    own, mean = record.get("prob_1"), record.get(_AI)
    if mean is None or mean == own:
        return own, bool(record.get("tie"))
    return mean, mean == 0.5


def _check(record: Row, columns: Sequence[str], path: str | Path, row: int) -> None:
    reviewed = any(record.get(name) is not None for name in (_AI, _VERDICT))
    needed = _PAIR if reviewed else (*_PAIR, *_LABEL)
    if missing := [name for name in needed if name not in record]:
        hint = "give the labels.jsonl or labels.parquet that rlaif label writes, or an export of rlaif review"
        raise DataError(f"is no label: there is no {missing[0]!r}", file=str(path), row=row, hint=hint)
    if missing := [name for name in columns if name not in record]:
        hint = f"columns: {', '.join(record)}"
        raise DataError(f"has no column {missing[0]!r}", file=str(path), row=row, hint=hint)
    for name in ("prompt", "chosen", "rejected"):
        check_text(record, name, Path(path), row)
    if record["chosen_response"] not in (1, 2) or isinstance(record["chosen_response"], bool):
        problem = f"chosen_response must be 1 or 2, not {record['chosen_response']!r}"
        raise DataError(problem, file=str(path), row=row)
    if not isinstance(record.get("usage") or {}, dict):
        raise DataError(f"usage must be an object, not {record['usage']!r}", file=str(path), row=row)
    for name in ("prob_1", "chosen_prob", "prob_1_when_first", "prob_1_when_second", _AI, _VERDICT):
        value = record.get(name)
        if value is None and name not in needed:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise DataError(f"{name} must be a probability, not {value!r}", file=str(path), row=row)
