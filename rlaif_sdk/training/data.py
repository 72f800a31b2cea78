"""The rows to train on, from files or from the hub, checked one by one: prompts, and preference pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlaif_sdk.conversations import USER, aligned, prompt_problem, read
from rlaif_sdk.conversations.templates import ChatTemplate
from rlaif_sdk.exceptions import ConfigError, ConversationError, DataError
from rlaif_sdk.io.arrow import to_dataset
from rlaif_sdk.io.tables import PlainTable, TableSource, open_dataset, read_rows
from rlaif_sdk.io.text import listed
from rlaif_sdk.training.config import DataSettings, TableSettings
from rlaif_sdk.training.curriculum import MEAN_COLUMN, SPREAD_COLUMN, CurriculumSettings, arrange

if TYPE_CHECKING:
    from datasets import Dataset


def load_prompts(
    settings: DataSettings,
    folder: Path,
    *,
    seed: int = 0,
    arranged: bool = True,
    open_table: Callable[[Any], Any] = open_dataset,
) -> tuple[Dataset, Dataset]:
    """The prompts to train on, and the held-out ones.

    Args:
        settings: What to load; the prompts to train on are chosen and ordered where there is a curriculum.
        folder: What relative paths are relative to.
        seed: Of a curriculum's weighted order.
        arranged: False leaves a curriculum out.
        open_table: See `load_split`.

    Returns:
        Two data sets with a column ``prompt``, text or messages, and every other column of the source.

    Raises:
        ConfigError: As `load_split`; or a curriculum leaves nothing to train on.
        DataError: As `load_split`; or a column is missing, or a prompt is unusable.
        RlaifError: As `load_split`.
    """
    train, held_out = load_split(
        settings, folder, partial(_with_prompts, column=settings.prompt), open_table=open_table
    )
    curriculum = settings.curriculum if arranged else None
    return (_arranged(train, curriculum, seed) if curriculum else train), held_out


def load_split(
    settings: TableSettings,
    folder: Path,
    prepare: Callable[[Dataset, str], Dataset],
    *,
    open_table: Callable[[Any], Any] = open_dataset,
) -> tuple[Dataset, Dataset]:
    """The rows to train on, and the held-out ones.

    Args:
        settings: What to load.
        folder: What relative paths are relative to.
        prepare: Checks a data set, of which it is told where it comes from, and makes it ready.
        open_table: `open_dataset` for training; for a check `rlaif_sdk.io.tables.open_rows`, and what is returned are
            `PlainTable` objects where the library datasets is not needed.

    Raises:
        ConfigError: Nothing would be left to train on.
        DataError: A file or a data set is missing, or a row is no JSON; the message has file and row.
        MissingExtraError: datasets, or for Parquet pyarrow, is not installed.
    """
    train = prepare(*_load(settings.train, settings.subset, settings.train_split, folder, open_table))
    if (source := settings.held_out_source) is not None:
        held_out = prepare(*_load(source, settings.subset, settings.held_out_split or "test", folder, open_table))
        return train, held_out.select(range(min(settings.held_out_rows, len(held_out))))
    share = settings.held_out if isinstance(settings.held_out, float) else None
    count = settings.held_out_rows if share is None else max(1, round(share * len(train)))
    kept = len(train) - count
    if kept < 1:
        raise ConfigError(
            f"there are {len(train)} rows and {count} are to be held out",
            key="data.held_out_rows" if share is None else "data.held_out",
            hint="lower it, or name a file of held-out rows under data.held_out",
        )
    return train.select(range(kept)), train.select(range(kept, len(train)))


def _load(
    source: str | Sequence[str], subset: str | None, split: str, folder: Path, open_table: Callable[[Any], Any]
) -> tuple[Dataset, str]:
    if isinstance(source, str):
        place = source
        dataset = open_table(TableSource.within(folder, source, subset, split))
    else:
        place = ", ".join(source)
        dataset = open_table(row for file in source for row in read_rows(folder / file))
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


def check_prompt_column(dataset: Dataset, column: str, place: str) -> None:
    """Whether a data set has the column that a config says its prompts are in.

    Raises:
        DataError: It has not.
    """
    if column not in dataset.column_names:
        hint = f"columns present: {listed(dataset.column_names)}; name one under data.prompt"
        raise DataError(f"has no column {column!r}", file=place, hint=hint)


def _with_prompts(dataset: Dataset, place: str, column: str) -> Dataset:
    check_prompt_column(dataset, column, place)
    if column != "prompt":
        if "prompt" in dataset.column_names:
            dataset = dataset.remove_columns("prompt")
        dataset = dataset.rename_column(column, "prompt")
    text_first = isinstance(dataset["prompt"][0], str)
    for row, prompt in enumerate(dataset["prompt"], start=1):
        problem = prompt_problem(prompt)
        if problem is None and isinstance(prompt, str) != text_first:
            this, others = ("messages", "text") if text_first else ("text", "messages")
            problem = f"the prompt is {this} and those before are {others}"
        if problem:
            raise DataError(problem, file=place, row=row)
    return dataset


def prompts_for(dataset: Dataset, tokenizer: Any, arguments: Mapping[str, Any]) -> Dataset:
    """The prompts as trainers are to render them, who know only chat messages.

    Messages of other shapes (content blocks, other names of roles and fields) become those that the chat template takes;
    text, messages that are so already, and those with images or sounds stay as they are.

    Args:
        dataset: With a column ``prompt``.
        tokenizer: The policy's.
        arguments: Of its chat template.

    Raises:
        DataError: The template refuses a prompt; names the row.
    """
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
    return _with_columns(dataset, [{"prompt": prompt} for prompt in found])


def _with_columns(dataset: Any, rows: Sequence[Mapping[str, Any]]) -> Any:
    """The table with these columns in place of its own of the same names."""
    if isinstance(dataset, PlainTable):
        return PlainTable.of({**row, **found} for row, found in zip(dataset, rows, strict=True))
    from datasets import concatenate_datasets

    columns = to_dataset(rows)
    others = dataset.remove_columns([name for name in columns.column_names if name in dataset.column_names])
    return concatenate_datasets([columns, others], axis=1) if others.column_names else columns


def _plain(prompt: Any) -> Any:
    """A prompt without the null fields that a table has put into its messages."""
    if not isinstance(prompt, list):
        return prompt
    return [{name: value for name, value in message.items() if value is not None} for message in prompt]


CHOSEN_PROB = "chosen_prob"
MARGIN = "margin"
_TEXTS = ("prompt", "chosen", "rejected")
_CHECKED = (*_TEXTS, CHOSEN_PROB, MARGIN)


def checked_preferences(dataset: Any, name: str, *, needs_prompt: bool = False) -> Any:
    """The same pairs, their rows known to be usable, prompt and answers in one form, see `rlaif_sdk.conversations.aligned`.

    Args:
        dataset: A `datasets.Dataset`, checked at once, or an `IterableDataset`, checked row by row as it is read.
        name: Stands in errors: ``the train set``, say.
        needs_prompt: Whether messages need a prompt, of their own or shared by both answers.

    Raises:
        DataError: A row lacks an answer, its ``chosen_prob`` or ``margin`` is no usable number, or its prompt and answers
            do not belong together; names the row.
    """
    known: dict[str, Any] = {"name": name, "needs_prompt": needs_prompt}
    if not hasattr(dataset, "__len__"):
        return dataset.map(_checked_row, with_indices=True, fn_kwargs=known)
    for side in ("chosen", "rejected"):
        if not {side, f"{side}_ids", f"{side}_input_ids"} & set(dataset.column_names):
            hint = f"columns present: {listed(dataset.column_names)}; rename yours"
            raise DataError(f"has no column {side!r}", file=name, hint=hint)
    read = dataset.select_columns([column for column in _CHECKED if column in dataset.column_names])
    checked = [_checked_row(row, index, **known) for index, row in enumerate(read)]
    if all(row == found for row, found in zip(read, checked, strict=True)):
        return dataset
    return _with_columns(dataset, [{column: row[column] for column in _TEXTS if column in row} for row in checked])


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
    if prompt is None and needs_prompt and chosen != rejected and _begins(chosen, rejected):
        raise DataError(
            "one of 'chosen' and 'rejected' begins with the other, which does not tell what was asked from what was answered",
            file=name,
            row=index + 1,
            hint="give the column 'prompt'",
        )
    answered = {"chosen": chosen, "rejected": rejected}
    return {**row, **answered} if prompt is None else {**row, "prompt": prompt, **answered}


def _begins(one: Any, other: Any) -> bool:
    """Whether one of two answers that are text begins with the other."""
    return isinstance(one, str) and isinstance(other, str) and (one.startswith(other) or other.startswith(one))


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
    if not hasattr(pairs, "__len__") or not {"chosen", "rejected"} <= set(pairs.column_names):
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


def too_long(
    name: str, rows: int, skipped: int, truncated: int, max_length: int | None, *, kind: str = "pairs", method: str = ""
) -> Iterator[str]:
    """How many rows are longer than a trainer takes, and what becomes of them.

    Args:
        name: Of their table.
        rows: How many rows there are.
        skipped: How many are not trained on.
        truncated: How many are trained on in part.
        max_length: The most tokens that the trainer takes.
        kind: What the rows are.
        method: The key of the config that has ``max_length``.

    Raises:
        DataError: All are skipped.
    """
    longer = f"longer than max_length, {max_length} tokens"
    if rows and skipped == rows:
        setting = f"{method}.max_length" if method else "max_length"
        raise DataError(
            f"all {rows} {kind} are {longer}, so that none is left",
            file=name,
            hint=f"raise {setting}, or shorten the texts",
        )
    for count, what in ((skipped, "are skipped"), (truncated, "are truncated")):
        if count:
            yield f"{name}: {count} of {rows} {kind} are {longer}, and {what}"


class SameAnswersWarning(UserWarning):
    """Both answers of some pairs are the same."""


class TooLongWarning(UserWarning):
    """Some pairs are longer than the trainer takes."""
