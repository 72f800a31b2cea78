"""Batches of data sets, data frames and rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from rlaif_sdk import Composer, DataError, RewardBatch
from rlaif_sdk.io.tables import open_dataset, write_table

CHAT = [{"role": "user", "content": "2 + 2?"}]
ROWS: list[dict[str, Any]] = [
    {"prompt": "2 + 2?", "completion": "4", "reference": "4", "tests": {"a": 1}, "id": 7},
    {"prompt": "3 + 3?", "completion": "9", "reference": None, "tests": {"b": [2]}, "id": 7},
    {"prompt": "5 + 5?", "completion": "10", "reference": "10", "tests": {"a": 2.5}, "id": None},
]
SOURCES = {
    "mappings": lambda rows: rows,
    "a generator": iter,
    "a data set": open_dataset,
    "a slice of one": lambda rows: open_dataset(rows)[:],
    "a data set that formats": lambda rows: open_dataset(rows).with_format("numpy"),
    "a stream": lambda rows: datasets.IterableDataset.from_generator(lambda: iter(rows)),
    "a data frame": pd.DataFrame,
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_batch_has_the_rows_as_they_were_written(source: str) -> None:
    """Whatever holds them: no key is added to an object, none is guessed, and null is no label of a group."""
    batch = RewardBatch.from_records(SOURCES[source](ROWS), group="id")
    assert batch.prompts == ["2 + 2?", "3 + 3?", "5 + 5?"]
    assert batch.completions == ["4", "9", "10"]
    assert batch.columns["reference"] == ["4", None, "10"]
    if source != "a stream":  # `datasets` types it by its first rows
        assert batch.columns["tests"] == [row["tests"] for row in ROWS]
    assert batch.group == [7, 7, None]
    assert set(batch.columns) == {"reference", "tests"}


def test_each_name_reads_its_kind() -> None:
    """A data set and a data frame have names of their own."""
    of_dataset = RewardBatch.from_dataset(open_dataset(ROWS), group="id", training=False)
    of_frame = RewardBatch.from_pandas(pd.DataFrame(ROWS), group="id", training=False)
    assert of_dataset == of_frame == RewardBatch.from_records(ROWS, group="id", training=False)
    assert not of_frame.training


def test_streams_are_scored_batch_by_batch() -> None:
    """A batch of an ``IterableDataset`` is a mapping of columns."""
    stream = datasets.Dataset.from_list(
        [{"prompt": "p", "completion": "c" * n} for n in range(5)]
    ).to_iterable_dataset()
    with Composer({"length": lambda completion_texts: [float(len(text)) for text in completion_texts]}) as composer:
        batches = [RewardBatch.from_dataset(batch) for batch in stream.iter(batch_size=2)]
        assert [composer.compose(batch).to_list() for batch in batches] == [[0, 1], [2, 3], [4]]


def test_chat_prompts_and_blocks_are_read() -> None:
    """Messages are what they are in any table."""
    blocks = [{"role": "assistant", "content": [{"type": "text", "text": "Four."}]}]
    batch = RewardBatch.from_dataset(open_dataset([{"prompt": CHAT, "completion": blocks}]))
    assert (batch.prompt_texts, batch.completion_texts) == (("2 + 2?",), ("Four.",))


def test_the_config_says_which_column_a_reward_reads() -> None:
    """Columns keep their names in the batch; ``columns:`` of a reward maps them."""
    config = {"rewards": {"exact": {"use": f"{__file__}:exact", "columns": {"wanted": "reference"}}}}
    with Composer.from_config(config) as composer:
        assert composer.compose(RewardBatch.from_records(ROWS[:2])).to_list() == [1, 0]


def exact(completion_texts: list[str], wanted: list[str]) -> list[float]:
    """1 where the completion is what was wanted."""
    return [float(text == want) for text, want in zip(completion_texts, wanted, strict=True)]


def test_a_table_by_its_path(tmp_path: Path) -> None:
    """The door for rows reads it, and errors have its name."""
    file = tmp_path / "rows.csv"
    write_table(ROWS, file)
    assert RewardBatch.from_records(file).columns["id"] == ["7", "7", ""]
    with pytest.raises(DataError, match=r"rows\.csv:1: has no column 'question'"):
        RewardBatch.from_records(file, prompt="question")


WRONG = {
    "another name": ([{"question": "q", "completion": "a"}], {}, "row 1: has no column 'prompt'.*columns: question"),
    "a row without": ([*ROWS, {"prompt": "p"}], {}, "row 4: has no column 'completion'.*completion=, or --completion"),
    "no group": (ROWS, {"group": "prompt_id"}, "has no column 'prompt_id'.*columns: prompt, completion, .*group="),
    "a text": ([*ROWS, "row"], {}, "4: a str where a row is wanted"),
    "one row": (ROWS[0], {}, "has a str as the column 'prompt'.*a list of mappings, or a mapping of lists"),
    "ragged": ({"prompt": ["a"], "completion": []}, {}, "several lengths: prompt has 1, completion has 0"),
    "splits": (datasets.DatasetDict(train=open_dataset(ROWS)), {}, "has several splits.*name one: train"),
    "reserved": ([{**ROWS[0], "training": 1}], {}, "'training' has a reserved name.*rename the column"),
    "two of a name": (pd.DataFrame([[1, 2]], columns=["a", "a"]), {}, "has two columns 'a'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_refused_says_where_and_what_to_do(case: str) -> None:
    """With the row, the column and the next step."""
    source, how, message = WRONG[case]
    with pytest.raises(DataError, match=re.compile(message, re.DOTALL)):
        RewardBatch.from_records(source, **how)


def test_columns_missing_from_some_rows_are_none_there() -> None:
    """A reference that only some rows have, or none of these, reaches the rewards as None elsewhere."""
    batch = RewardBatch.from_records(
        [{"prompt": "a", "completion": "b", "reference": "r"}, {"prompt": "a", "completion": "c"}], columns=["source"]
    )
    assert batch.columns == {"source": [None, None], "reference": ["r", None]}


def test_a_row_that_cannot_be_read_is_a_failure_of_its_own() -> None:
    """The others are scored."""
    batch = RewardBatch.from_records([*ROWS, {"prompt": "p", "completion": 42}])
    assert list(batch.unreadable) == [3]


def test_a_batch_says_what_it_holds_and_not_its_texts() -> None:
    """In one line, however many rows and columns there are."""
    assert repr(RewardBatch.from_records(ROWS, group="id")) == (
        "<RewardBatch of 3 rows: prompts, completions, group, reference, tests>"
    )
    many = RewardBatch(
        ["p" * 500] * 100, ["c"] * 100, columns={f"column {number}\n": [0] * 100 for number in range(50)}
    )
    assert len(repr(many)) < 120
    assert "\n" not in repr(many)
