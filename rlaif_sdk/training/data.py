"""Prompts from files or from the hub, checked row by row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import ConfigError, DataError, MissingExtraError
from rlaif_sdk.training.config import DataSettings

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = (".jsonl", ".json", ".parquet")


def load_prompts(settings: DataSettings, folder: Path) -> tuple[Dataset, Dataset]:
    """The prompts to train on, and the held-out ones.

    Args:
        settings: What to load.
        folder: What relative paths are relative to.

    Returns:
        Two data sets with a column ``prompt``, text or messages, and every other column of the source.

    Raises:
        ConfigError: A file is missing, or nothing would be left to train on.
        DataError: A row is no JSON, or has no usable prompt; the message has file and row.
        MissingExtraError: datasets, or for Parquet pyarrow, is not installed.
    """
    train = _load(settings.train, settings.train_split, folder, settings.prompt)
    if settings.held_out is not None:
        held_out = _load(settings.held_out, settings.held_out_split, folder, settings.prompt)
        return train, held_out.select(range(min(settings.held_out_rows, len(held_out))))
    kept = len(train) - settings.held_out_rows
    if kept < 1:
        raise ConfigError(
            f"there are {len(train)} prompts and {settings.held_out_rows} are to be held out",
            key="data.held_out_rows",
            hint="lower it, or name a file of held-out prompts under data.held_out",
        )
    return train.select(range(kept)), train.select(range(kept, len(train)))


def _load(source: str | list[str], split: str, folder: Path, prompt: str) -> Dataset:
    try:
        from datasets import Dataset, load_dataset
    except ImportError as error:
        raise MissingExtraError("datasets", extra="train") from error

    names = [source] if isinstance(source, str) else source
    if isinstance(source, str) and Path(source).suffix not in SUFFIXES:
        dataset = load_dataset(source, split=split)
        place = source
    else:
        rows = [row for name in names for row in read_rows(folder / name)]
        dataset = Dataset.from_list(rows)
        place = ", ".join(names)
    if len(dataset) == 0:
        raise DataError("holds no rows", file=place)
    if prompt not in dataset.column_names:
        raise DataError(
            f"has no column {prompt!r}",
            file=place,
            hint=f"columns present: {', '.join(dataset.column_names)}; name the right one under data.prompt",
        )
    if prompt != "prompt":
        dataset = dataset.rename_column(prompt, "prompt")
    for row, value in enumerate(dataset["prompt"], start=1):
        _check_prompt(value, place, row)
    return dataset


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL, JSON (a list of objects) or Parquet file.

    Raises:
        ConfigError: There is no such file, or its suffix says nothing.
        DataError: A row is no JSON object.
    """
    if not file.is_file():
        raise ConfigError("there is no such file", file=str(file))
    if file.suffix == ".parquet":
        return _parquet_rows(file)
    if file.suffix not in SUFFIXES:
        raise ConfigError(f"the suffix {file.suffix!r} is none of {', '.join(SUFFIXES)}", file=str(file))
    text = file.read_text(encoding="utf-8")
    lines = [text] if file.suffix == ".json" else text.split("\n")
    rows: list[Any] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (json.JSONDecodeError, RecursionError) as error:
                raise DataError(f"no valid JSON: {error}", file=str(file), row=number) from error
    if file.suffix == ".json":
        rows = rows[0] if rows and isinstance(rows[0], list) else rows
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"is {type(row).__name__}, not an object with columns", file=str(file), row=number)
    return rows


def _parquet_rows(file: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", extra="parquet") from error
    rows: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
    return rows


def _check_prompt(prompt: Any, file: str, row: int) -> None:
    if isinstance(prompt, str) and prompt.strip():
        return
    if isinstance(prompt, Sequence) and not isinstance(prompt, str) and prompt:
        if all(isinstance(message, Mapping) and {"role", "content"} <= message.keys() for message in prompt):
            return
        raise DataError("a message of the prompt lacks role or content", file=file, row=row)
    raise DataError("the prompt is empty, or neither text nor messages", file=file, row=row)
