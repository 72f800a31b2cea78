"""Rows of preference pairs: checked before training, and carried to the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rlaif_sdk.exceptions import DataError

CHOSEN_PROB = "chosen_prob"
MARGIN = "margin"


def checked_preferences(dataset: Any, name: str) -> Any:
    """The same data set, its rows known to be usable.

    Args:
        dataset: A `datasets.Dataset`, checked at once, or an `IterableDataset`, checked row by row as it is read.
        name: Stands in errors: ``train``, say.

    Raises:
        DataError: A row lacks an answer, or its ``chosen_prob`` or ``margin`` is no usable number; names the row.
    """
    from datasets import IterableDataset

    if isinstance(dataset, IterableDataset):
        return dataset.map(_check_row, with_indices=True, fn_kwargs={"name": name})
    for side in ("chosen", "rejected"):
        if not {side, f"{side}_ids", f"{side}_input_ids"} & set(dataset.column_names):
            found = ", ".join(dataset.column_names)
            raise DataError(f"has no column {side!r}", file=f"the {name} set", hint=f"columns present: {found}")
    prompted = "prompt" in dataset.column_names
    for column in ("chosen", "rejected", CHOSEN_PROB, MARGIN):
        if column in dataset.column_names:
            _check_column(dataset[column], column, name, prompted=prompted)
    return dataset


def _check_column(values: Iterable[Any], column: str, name: str, *, prompted: bool) -> None:
    for row, value in enumerate(values, start=1):
        problem = _problem(column, value, prompted=prompted)
        if problem:
            raise DataError(problem, file=f"the {name} set", row=row)


def _check_row(row: Mapping[str, Any], index: int, name: str) -> Mapping[str, Any]:
    for column, value in row.items():
        problem = _problem(column, value, prompted="prompt" in row)
        if problem:
            raise DataError(problem, file=f"the {name} set", row=index + 1)
    return row


def _problem(column: str, value: Any, *, prompted: bool) -> str | None:
    """What is wrong with a value, or None; an empty text is an answer where there is a prompt beside it."""
    if column in {"chosen", "rejected"}:
        empty_answer = prompted and value == ""
        usable = isinstance(value, (str, list)) and len(value) > 0
        return None if usable or empty_answer else f"{column!r} must be text or messages, and not empty"
    if column not in {CHOSEN_PROB, MARGIN}:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return f"{column!r} must be a finite number, not {value!r}"
    if column == CHOSEN_PROB and not 0 <= value <= 1:
        return f"{column!r} must be a probability in [0, 1], not {value!r}"
    return None


class SoftLabelCollator:
    """Adds columns of numbers to the batch that another collator makes.

    Args:
        collate: Makes the batch of everything else.
        columns: What to add, as float tensors of shape (B,), where the rows have it.
    """

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, Any]], columns: Sequence[str]) -> None:
        self.collate = collate
        self.columns = columns

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        present = [column for column in self.columns if column in rows[0]]
        numbers = {column: torch.tensor([row[column] for row in rows], dtype=torch.float) for column in present}
        return {**self.collate(rows), **numbers}


def without(batch: Mapping[str, Any], columns: Iterable[str]) -> dict[str, Any]:
    """The batch without some of its columns."""
    left_out = set(columns)
    return {name: value for name, value in batch.items() if name not in left_out}


def column_or(batch: Mapping[str, Any], column: str, default: float, like_B: Tensor) -> Tensor:
    """A column of a batch on the device of ``like_B``, or ``default`` for each of its B pairs."""
    values_B: Tensor = batch[column] if column in batch else torch.full_like(like_B, default)
    return values_B.to(like_B)
