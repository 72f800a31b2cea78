"""Prompts from files or from the hub, checked row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlaif_sdk.conversations import USER, read
from rlaif_sdk.conversations.templates import ChatTemplate
from rlaif_sdk.exceptions import ConfigError, ConversationError, DataError
from rlaif_sdk.io.arrow import to_dataset
from rlaif_sdk.io.tables import is_table_file, open_dataset, read_rows
from rlaif_sdk.training.config import DataSettings, TableSettings
from rlaif_sdk.training.curriculum import MEAN_COLUMN, SPREAD_COLUMN, CurriculumSettings, arrange

if TYPE_CHECKING:
    from datasets import Dataset


def load_prompts(settings: TableSettings, folder: Path, *, seed: int = 0) -> tuple[Dataset, Dataset]:
    """The prompts to train on, and the held-out ones.

    Args:
        settings: What to load; the prompts to train on are chosen and ordered where there is a curriculum.
        folder: What relative paths are relative to.
        seed: Of a curriculum's weighted order.

    Returns:
        Two data sets with a column ``prompt``, text or messages, and every other column of the source.

    Raises:
        ConfigError: As `load_split`; or a curriculum leaves nothing to train on.
        DataError: As `load_split`; or a column is missing, or a prompt is unusable.
        RlaifError: As `load_split`.
    """
    train, held_out = load_split(settings, folder, partial(_with_prompts, column=settings.prompt))
    curriculum = settings.curriculum if isinstance(settings, DataSettings) else None
    return (_arranged(train, curriculum, seed) if curriculum else train), held_out


def load_split(
    settings: TableSettings, folder: Path, prepare: Callable[[Dataset, str], Dataset]
) -> tuple[Dataset, Dataset]:
    """The rows to train on, and the held-out ones.

    Args:
        settings: What to load.
        folder: What relative paths are relative to.
        prepare: Checks a data set, of which it is told where it comes from, and makes it ready.

    Raises:
        ConfigError: Nothing would be left to train on.
        DataError: A file or a data set is missing, or a row is no JSON; the message has file and row.
        MissingExtraError: datasets, or for Parquet pyarrow, is not installed.
    """
    train = prepare(*_load(settings.train, settings.subset, settings.train_split, folder))
    if settings.held_out is not None:
        held_out = prepare(*_load(settings.held_out, settings.subset, settings.held_out_split, folder))
        return train, held_out.select(range(min(settings.held_out_rows, len(held_out))))
    kept = len(train) - settings.held_out_rows
    if kept < 1:
        raise ConfigError(
            f"there are {len(train)} rows and {settings.held_out_rows} are to be held out",
            key="data.held_out_rows",
            hint="lower it, or name a file of held-out rows under data.held_out",
        )
    return train.select(range(kept)), train.select(range(kept, len(train)))


def _load(source: str | Sequence[str], subset: str | None, split: str, folder: Path) -> tuple[Dataset, str]:
    if isinstance(source, str):
        local = folder / source
        place = source
        dataset = open_dataset(local if is_table_file(source) or local.is_dir() else source, config=subset, split=split)
    else:
        place = ", ".join(source)
        dataset = to_dataset(row for file in source for row in read_rows(folder / file))
    if len(dataset) == 0:
        raise DataError("holds no rows", file=place)
    return dataset, place


def _arranged(train: Dataset, curriculum: CurriculumSettings, seed: int) -> Dataset:
    for column in (MEAN_COLUMN, SPREAD_COLUMN):
        if column not in train.column_names:
            raise DataError(
                f"a curriculum goes by a column {column!r}, which the prompts lack",
                hint="rlaif difficulty measures the prompts and writes it",
            )
        for row, value in enumerate(train[column], start=1):
            if isinstance(value, bool) or not isinstance(value, (int, float, type(None))):
                raise DataError(f"{column!r} must be a number, not {value!r}", file="the prompts", row=row)
    means_N, spreads_N = (np.array(train[column], dtype=np.float64) for column in (MEAN_COLUMN, SPREAD_COLUMN))
    chosen = arrange(means_N, spreads_N, curriculum, seed=seed)
    if not chosen:
        raise ConfigError(
            f"leaves none of {len(train)} prompts to train on", key="data.curriculum", hint="widen its limits"
        )
    return train.select(chosen)


def _with_prompts(dataset: Dataset, place: str, column: str) -> Dataset:
    if column not in dataset.column_names:
        found = ", ".join(dataset.column_names)
        raise DataError(
            f"has no column {column!r}", file=place, hint=f"columns present: {found}; name one under data.prompt"
        )
    if column != "prompt":
        if "prompt" in dataset.column_names:
            dataset = dataset.remove_columns("prompt")
        dataset = dataset.rename_column(column, "prompt")
    first: bool | None = None
    for row, prompt in enumerate(dataset["prompt"], start=1):
        problem = prompt_problem(prompt)
        is_text = isinstance(prompt, str)
        first = is_text if first is None else first
        if problem is None and is_text != first:
            problem = (
                "the prompt is text and those before are messages"
                if is_text
                else "the prompt is messages and those before are text"
            )
        if problem:
            raise DataError(problem, file=place, row=row)
    return dataset


def prompts_for(dataset: Dataset, tokenizer: Any, arguments: Mapping[str, Any]) -> Dataset:
    """The prompts as trainers are to render them, who know chat messages alone.

    Messages of other shapes (content blocks, other names of roles and fields) become those that the chat template takes;
    text, messages that are so already, and those with images or sounds stay as they are.

    Args:
        dataset: With a column ``prompt``.
        tokenizer: The policy's.
        arguments: Of its chat template.

    Raises:
        DataError: The template refuses a prompt; names the row.
    """
    from datasets import concatenate_datasets

    template = ChatTemplate.of(tokenizer)
    given = list(dataset["prompt"])
    if template is None or all(isinstance(prompt, str) for prompt in given):
        return dataset
    found: list[Any] = []
    for row, prompt in enumerate(given, start=1):
        if isinstance(prompt, str) or any(turn.media for turn in read(prompt, role=USER)):
            found.append(prompt)
            continue
        try:
            found.append(template.messages(prompt, **arguments))
        except ConversationError as error:
            raise DataError(error.message, file="the prompts", row=row, hint=error.hint) from error
    if all(_plain(one) == other for one, other in zip(given, found, strict=True)):
        return dataset
    others = dataset.remove_columns("prompt")
    prompts = to_dataset({"prompt": prompt} for prompt in found)
    return concatenate_datasets([prompts, others], axis=1) if others.column_names else prompts


def _plain(prompt: Any) -> Any:
    """A prompt without the null fields that a table has put into its messages."""
    if not isinstance(prompt, list):
        return prompt
    return [{name: value for name, value in message.items() if value is not None} for message in prompt]


def prompt_problem(prompt: Any) -> str | None:
    """What is wrong with a prompt, or None: it must be text or messages, and say something."""
    if isinstance(prompt, str):
        return None if prompt.strip() else "the prompt is empty"
    try:
        turns = read(prompt, role=USER)
    except ConversationError as error:
        return f"the prompt cannot be read: {error}"
    return None if any(turn.content.strip() or turn.media or turn.calls for turn in turns) else "the prompt is empty"
