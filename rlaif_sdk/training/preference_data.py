"""Rows of preference pairs: checked before training, and carried to the loss."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any

import torch
from torch import Tensor

from rlaif_sdk.conversations import read
from rlaif_sdk.exceptions import ConversationError, DataError
from rlaif_sdk.io.arrow import to_dataset
from rlaif_sdk.training.answers import aligned

CHOSEN_PROB = "chosen_prob"
MARGIN = "margin"
_TEXTS = ("prompt", "chosen", "rejected")
_CHECKED = (*_TEXTS, CHOSEN_PROB, MARGIN)


def checked_preferences(dataset: Any, name: str, *, needs_prompt: bool = False) -> Any:
    """The same pairs, their rows known to be usable, prompt and answers in one form, see `aligned`.

    Args:
        dataset: A `datasets.Dataset`, checked at once, or an `IterableDataset`, checked row by row as it is read.
        name: Stands in errors: ``the train set``, say.
        needs_prompt: Whether messages need a prompt, of their own or shared by both answers.

    Raises:
        DataError: A row lacks an answer, its ``chosen_prob`` or ``margin`` is no usable number, or its prompt and answers
            do not belong together; names the row.
    """
    from datasets import IterableDataset, concatenate_datasets

    known: dict[str, Any] = {"name": name, "needs_prompt": needs_prompt}
    if isinstance(dataset, IterableDataset):
        return dataset.map(_checked_row, with_indices=True, fn_kwargs=known)
    for side in ("chosen", "rejected"):
        if not {side, f"{side}_ids", f"{side}_input_ids"} & set(dataset.column_names):
            found = ", ".join(dataset.column_names)
            raise DataError(f"has no column {side!r}", file=name, hint=f"columns present: {found}")
    read = dataset.select_columns([column for column in _CHECKED if column in dataset.column_names])
    checked = [_checked_row(row, index, **known) for index, row in enumerate(read)]
    if all(row == found for row, found in zip(read, checked, strict=True)):
        return dataset
    others = dataset.remove_columns([column for column in _TEXTS if column in dataset.column_names])
    texts = to_dataset({column: row[column] for column in _TEXTS if column in row} for row in checked)
    return concatenate_datasets([texts, others], axis=1) if others.column_names else texts


def _checked_row(row: Mapping[str, Any], index: int, name: str, *, needs_prompt: bool) -> dict[str, Any]:
    """A row in its one form.

    Raises:
        DataError: It cannot be used.
    """
    for column, value in row.items():
        problem = _problem(column, value, prompted=row.get("prompt") is not None)
        if problem:
            raise DataError(problem, file=name, row=index + 1)
    if not row.keys() >= {"chosen", "rejected"}:
        return dict(row)
    try:
        prompt, (chosen, rejected) = aligned(row.get("prompt"), [row["chosen"], row["rejected"]])
    except ValueError as error:
        raise DataError(str(error), file=name, row=index + 1) from None
    if prompt is None and needs_prompt and not isinstance(chosen, str):
        raise DataError(
            "'chosen' and 'rejected' share no message that would be their prompt",
            file=name,
            row=index + 1,
            hint="give the column 'prompt', or begin both with the messages that were answered",
        )
    if prompt is None and "prompt" in row:
        raise DataError("'prompt' is null, and the answers hold none", file=name, row=index + 1)
    answered = {"chosen": chosen, "rejected": rejected}
    return {**row, **answered} if prompt is None else {**row, "prompt": prompt, **answered}


def _problem(column: str, value: Any, *, prompted: bool) -> str | None:
    """What is wrong with a value, or None; an empty text is an answer where there is a prompt beside it."""
    if column in _TEXTS:
        empty_is_fine = (column == "prompt" and value is None) or (column != "prompt" and prompted and value == "")
        try:
            usable = empty_is_fine or bool(value and read(value))
        except ConversationError as error:
            return f"{column!r} must be text or messages: {error.message}"
        return None if usable else f"{column!r} must be text or messages, and not empty"
    if column not in {CHOSEN_PROB, MARGIN}:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return f"{column!r} must be a finite number, not {value!r}"
    if column == CHOSEN_PROB and not 0 <= value <= 1:
        return f"{column!r} must be a probability in [0, 1], not {value!r}"
    return None


def same_answers(pairs: Any, name: str) -> str | None:
    """How many checked pairs teach nothing, because both answers are the same.

    Args:
        pairs: A `datasets.Dataset`. A stream, or one that is tokenized already, is not looked at.
        name: Stands in what is said.

    Returns:
        What to say; None where there is no such pair.

    Raises:
        DataError: All of them are so.
    """
    if not isinstance(pairs, Sized) or not {"chosen", "rejected"} <= set(pairs.column_names):
        return None
    columns = pairs.select_columns(["chosen", "rejected"])
    same = [number for number, row in enumerate(columns, start=1) if _are_same(row["chosen"], row["rejected"])]
    if not same:
        return None
    if len(same) == len(pairs):
        raise DataError(
            f"'chosen' and 'rejected' are the same in all {len(pairs)} pairs, so that nothing can be learnt",
            file=name,
            hint="check which columns are which",
        )
    return (
        f"{name}: 'chosen' and 'rejected' are the same in {len(same)} of {len(pairs)} pairs, which teach nothing; the "
        f"first is row {same[0]}"
    )


def _are_same(chosen: Any, rejected: Any) -> bool:
    """Whether two answers say the same, whatever fields of their messages are null."""
    if isinstance(chosen, str) or isinstance(rejected, str):
        return bool(chosen == rejected)
    try:
        return read(chosen) == read(rejected)
    except ConversationError:
        return False


def say_too_long(name: str, pairs: int, left_out: int, cut: int, max_length: int) -> None:
    """Say how many pairs are longer than the trainer takes.

    Args:
        name: Of their table.
        pairs: How many pairs there are.
        left_out: How many are not trained on.
        cut: How many are trained on in part.
        max_length: The most tokens that the trainer takes.

    Raises:
        DataError: All are left out.
    """
    if pairs and left_out == pairs:
        raise DataError(
            f"all {pairs} pairs are longer than max_length, {max_length} tokens, so that none is left",
            file=name,
            hint="raise max_length, or shorten the texts",
        )
    for count, what in ((left_out, "are left out"), (cut, "are cut")):
        if count:
            warnings.warn(
                f"{name}: {count} of {pairs} pairs are longer than max_length, {max_length} tokens, and {what}",
                TooLongWarning,
                stacklevel=2,
            )


class TooLongWarning(UserWarning):
    """Some pairs are longer than the trainer takes."""


class SameAnswersWarning(UserWarning):
    """Both answers of some pairs are the same."""


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
