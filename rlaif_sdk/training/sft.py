"""Rows for supervised fine-tuning: prompts with the wanted completions, whole conversations, or plain text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlaif_sdk.conversations import ASSISTANT, read
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.arrow import to_dataset
from rlaif_sdk.training.answers import aligned
from rlaif_sdk.training.config import TableSettings
from rlaif_sdk.training.data import prompt_problem

if TYPE_CHECKING:
    from datasets import Dataset


class SFTDataSettings(TableSettings):
    """The rows to imitate, and those held out to see what was learnt.

    A row has a prompt and a completion (each text, or messages with role and content), or ``messages``, or ``text``.
    With a completion the loss is over the completion alone, else over everything.
    """

    completion: str = "completion"
    """The column with the wanted answer."""


def sft_rows(dataset: Dataset, place: str, settings: SFTDataSettings) -> Dataset:
    """The columns that `trl.SFTTrainer` takes, every row known to be usable.

    Args:
        dataset: The rows as they were read.
        place: Where they come from, for errors.
        settings: The names of the columns.

    Returns:
        A data set with ``prompt`` and ``completion``, with ``messages``, or with ``text``.

    Raises:
        DataError: None of these columns is there, or a row is unusable; the message names it.
    """
    if settings.completion in dataset.column_names:
        rows = _renamed(dataset, place, {settings.prompt: "prompt", settings.completion: "completion"})
        problem_of = _pair_problem
    elif "messages" in dataset.column_names:
        rows, problem_of = dataset.select_columns(["messages"]), _conversation_problem
    elif "text" in dataset.column_names:
        rows, problem_of = dataset.select_columns(["text"]), _text_problem
    else:
        raise DataError(
            f"has no column {settings.completion!r}, 'messages' or 'text'",
            file=place,
            hint=f"columns present: {', '.join(dataset.column_names)}; name them under data.prompt and data.completion",
        )
    for number, row in enumerate(rows, start=1):
        problem = problem_of(row)
        if problem:
            raise DataError(problem, file=place, row=number)
    if problem_of is _pair_problem and any(_aligned_row(row) != row for row in rows):
        return to_dataset(map(_aligned_row, rows))
    return rows


def is_conversational(rows: Dataset) -> bool:
    """Whether the rows are messages, for which the tokenizer needs a chat template."""
    return not isinstance(next(iter(rows[0].values())), str)


def _renamed(dataset: Dataset, place: str, names: Mapping[str, str]) -> Dataset:
    missing = [name for name in names if name not in dataset.column_names]
    if missing:
        raise DataError(
            f"has no column {missing[0]!r}",
            file=place,
            hint=f"columns present: {', '.join(dataset.column_names)}; name one under data.prompt",
        )
    return dataset.select_columns([*names]).rename_columns({old: new for old, new in names.items() if old != new})


def _pair_problem(row: Mapping[str, Any]) -> str | None:
    prompt, completion = row["prompt"], row["completion"]
    problem = prompt_problem(prompt)
    if problem:
        return problem
    answer_problem = prompt_problem(completion)
    if answer_problem:
        return answer_problem.replace("the prompt", "the completion")
    try:
        aligned(prompt, [completion])
    except ValueError as error:
        return str(error)
    return None


def _aligned_row(row: Mapping[str, Any]) -> dict[str, Any]:
    prompt, (completion,) = aligned(row["prompt"], [row["completion"]])
    return {"prompt": prompt, "completion": completion}


def _conversation_problem(row: Mapping[str, Any]) -> str | None:
    messages: Any = row["messages"]
    if isinstance(messages, (str, Mapping)):
        return "'messages' must be a list of messages with role and content"
    problem = prompt_problem(messages)
    if problem:
        return problem.replace("the prompt", "'messages'")
    roles = {turn.role for turn in read(messages)}
    return None if ASSISTANT in roles else "'messages' has no turn of the assistant to learn from"


def _text_problem(row: Mapping[str, Any]) -> str | None:
    return None if isinstance(row["text"], str) and row["text"].strip() else "'text' must be text, and not empty"
