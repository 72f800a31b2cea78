"""Loading of prompts."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

pytest.importorskip("datasets")

from rlaif_sdk import ConfigError, DataError
from rlaif_sdk.training.config import DataSettings
from rlaif_sdk.training.data import load_prompts


def write(file: Path, rows: list[object]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_last_rows_are_held_out_when_no_file_is_named(tmp_path: Path):
    """Nothing that is held out is trained on, and other columns come along."""
    write(tmp_path / "a.jsonl", [{"prompt": f"p{row}", "answer": row} for row in range(10)])
    train, held_out = load_prompts(DataSettings(train="a.jsonl", held_out_rows=3), tmp_path)
    assert train["prompt"][:] == [f"p{row}" for row in range(7)]
    assert held_out["answer"][:] == [7, 8, 9]


def test_several_files_are_joined_and_the_prompt_column_may_have_any_name(tmp_path: Path):
    """``data.prompt`` names the column; the rewards see it as the prompt."""
    write(tmp_path / "a.jsonl", [{"question": "one", "prompt": "not this"}])
    write(tmp_path / "b.jsonl", [{"question": [{"role": "user", "content": "two"}], "prompt": "nor this"}])
    settings = DataSettings(train=["a.jsonl"], held_out=["b.jsonl"], prompt="question")
    train, held_out = load_prompts(settings, tmp_path)
    assert train["prompt"][:] == ["one"]
    assert held_out["prompt"][0][0]["content"] == "two"
    assert train.column_names == ["prompt"]


def test_null_references_stay_null(tmp_path: Path):
    """A reward abstains on None: a missing reference must not become an empty text."""
    write(tmp_path / "a.jsonl", [{"prompt": "p", "reference": None}, {"prompt": "q", "reference": "r"}])
    train, _ = load_prompts(DataSettings(train="a.jsonl", held_out="a.jsonl"), tmp_path)
    assert train["reference"][:] == [None, "r"]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [("", "empty"), ("  ", "empty"), (None, "neither"), (7, "neither"), ([], "empty"), ([{"role": "user"}], "empty")],
)
def test_an_unusable_prompt_is_named_by_its_row(tmp_path: Path, prompt: object, message: str):
    """A bad prompt is found before training, not in the middle of it."""
    write(tmp_path / "a.jsonl", [{"prompt": prompt}])
    with pytest.raises(DataError, match=message) as refused:
        load_prompts(DataSettings(train="a.jsonl", held_out="a.jsonl"), tmp_path)
    assert refused.value.row == 1


def test_rows_are_counted_from_one(tmp_path: Path):
    """The row in the message is the line in the file."""
    write(tmp_path / "a.jsonl", [{"prompt": "x"}, {"prompt": ""}])
    with pytest.raises(DataError) as refused:
        load_prompts(DataSettings(train="a.jsonl"), tmp_path)
    assert refused.value.row == 2


def test_a_missing_column_is_named_with_those_present(tmp_path: Path):
    """The message carries what to write under ``data.prompt``."""
    write(tmp_path / "a.jsonl", [{"question": "x"}])
    with pytest.raises(DataError, match="columns present: question"):
        load_prompts(DataSettings(train="a.jsonl", held_out="a.jsonl"), tmp_path)


@pytest.mark.parametrize(("share", "count"), [(0.05, 1), (0.25, 5), (0.51, 10), (0.001, 1)])
def test_a_share_of_the_rows_is_held_out(tmp_path: Path, share: float, count: int):
    """The last ones, at least one of them; a config that was written out is read again."""
    write(tmp_path / "a.jsonl", [{"prompt": f"p{row}"} for row in range(20)])
    settings = DataSettings(train="a.jsonl", held_out=share)
    train, held_out = load_prompts(DataSettings.model_validate(settings.model_dump()), tmp_path)
    assert [*train["prompt"], *held_out["prompt"]] == [f"p{row}" for row in range(20)]
    assert len(held_out) == count


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"held_out": 64}, "between 0 and 1, not 64: a count of rows stands under held_out_rows"),
        ({"held_out": 1.0}, "between 0 and 1, not 1.0"),
        ({"held_out": 0}, "between 0 and 1, not 0"),
        ({"held_out": True}, "between 0 and 1, not True"),
        ({"held_out": -0.5}, "between 0 and 1, not -0.5"),
        ({"held_out": math.nan}, "between 0 and 1, not nan"),
        ({"held_out": 0.1, "held_out_rows": 5}, "held_out, 0.1, says already how many rows are kept back"),
        ({"held_out": 0.1, "held_out_split": "test"}, "held_out, which is not set|a split of held_out"),
    ],
)
def test_a_share_that_is_none_is_refused(given: dict[str, object], message: str):
    """With where a count stands."""
    with pytest.raises(ValueError, match=message):
        DataSettings(train="a.jsonl", **given)


def test_a_share_of_a_single_row_is_refused(tmp_path: Path):
    """Nothing would be left to train on."""
    write(tmp_path / "a.jsonl", [{"prompt": "x"}])
    with pytest.raises(ConfigError, match=r"data\.held_out: there are 1 rows and 1 are to be held out"):
        load_prompts(DataSettings(train="a.jsonl", held_out=0.5), tmp_path)


def test_too_few_prompts_to_hold_any_out_are_refused(tmp_path: Path):
    """Training on nothing is an error, not an empty run."""
    write(tmp_path / "a.jsonl", [{"prompt": "x"}])
    with pytest.raises(ConfigError, match="held_out"):
        load_prompts(DataSettings(train="a.jsonl", held_out_rows=1), tmp_path)


@pytest.mark.parametrize("split", ["train", "test", "validation", "test[:10]"])
def test_a_held_out_split_of_nothing_is_refused(split: str):
    """It named a split of `held_out`, which is not set, and the last rows of `train` were taken instead, unsaid."""
    with pytest.raises(ValueError, match="held_out, which is not set"):
        DataSettings(train="org/name", held_out_split=split)
    dumped = DataSettings(train="org/name", held_out="org/name", held_out_split=split).model_dump()
    assert DataSettings.model_validate(dumped).held_out_split == split
    assert DataSettings.model_validate(DataSettings(train="org/name").model_dump()).held_out_split is None


def test_a_folder_is_a_data_set_and_one_of_its_subsets_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What a user does with a data set of the hub works with a folder laid out like one."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for name in ("easy", "hard"):
        (tmp_path / "sums" / name).mkdir(parents=True)
        write(tmp_path / "sums" / name / "train.jsonl", [{"prompt": f"{name} {row}"} for row in range(3)])
    subsets = "".join(f"- config_name: {name}\n  data_files: {name}/train.jsonl\n" for name in ("easy", "hard"))
    (tmp_path / "sums" / "README.md").write_text(f"---\nconfigs:\n{subsets}---\n")
    train, held_out = load_prompts(DataSettings(train="sums", subset="hard", held_out_rows=1), tmp_path)
    assert (train["prompt"][:], held_out["prompt"][:]) == (["hard 0", "hard 1"], ["hard 2"])
    with pytest.raises(DataError, match=r"easy.*hard"):
        load_prompts(DataSettings(train="sums"), tmp_path)


@pytest.mark.parametrize("source", ["no/such-set", "prompts.txt"])
def test_a_data_set_that_is_not_there_is_named(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch):
    """Anything but the known kinds of file is taken for a name on the hub: the message says which these are."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"split: train.*ends in its form, such as \.jsonl") as refused:
        load_prompts(DataSettings(train=source), tmp_path)
    assert refused.value.file == source


def test_a_missing_file_is_named(tmp_path: Path):
    """The path that was looked at is in the message."""
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        load_prompts(DataSettings(train="nowhere.jsonl"), tmp_path)
