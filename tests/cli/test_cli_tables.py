"""Commands that take a table take it in every form, and write every form."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rlaif_sdk.cli.main import app
from rlaif_sdk.io.tables import read_rows, write_table

pytest.importorskip("pyarrow")

ROWS = [
    {"prompt": "p", "completion": "a b", "tests": [{"a": 1}], "n": 1},
    {"prompt": "q", "completion": [{"role": "assistant", "content": "c d e"}], "tests": [{"b": "x"}], "n": 2},
]
FORMS = ["jsonl", "ndjson", "jsonl.gz", "json", "csv", "parquet", "arrow", "feather"]
REWARDS = "def words(completion_texts):\n    return [float(len(text.split())) for text in completion_texts]\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rewards.py").write_text(REWARDS)
    (tmp_path / "c.yaml").write_text("rewards:\n  words: {use: 'rewards.py:words'}\n")
    return tmp_path


def rlaif(*arguments: str, standard_input: bytes | None = None) -> str:
    from rlaif_sdk.io import tables

    tables._standard_input.cache_clear()
    ended = CliRunner().invoke(app, [*arguments], input=standard_input)
    assert ended.exit_code == 0, (ended.output, ended.exception)
    return ended.output


def totals(output: str) -> list[Any]:
    rewards = [row["reward"] for row in read_rows(output)]
    return [(json.loads(reward) if isinstance(reward, str) else reward)["total"] for reward in rewards]


@pytest.mark.parametrize("form", FORMS)
def test_a_table_of_each_form_is_scored_and_explained(form: str) -> None:
    """CSV holds text alone, so that its messages are JSON that is scored as text."""
    write_table(ROWS, f"in.{form}")
    rlaif("score", f"in.{form}", "-c", "c.yaml")
    assert totals(f"in.scored.{form}")[0] == 2.0
    if form != "csv":
        assert totals(f"in.scored.{form}") == [2.0, 3.0]
        assert [row["tests"] for row in read_rows(f"in.scored.{form}")] == [row["tests"] for row in ROWS]
    assert "words" in rlaif("explain", f"in.{form}", "-c", "c.yaml", "--row", "2")


@pytest.mark.parametrize("form", FORMS)
def test_the_output_has_the_form_that_its_name_says(form: str) -> None:
    """Whatever the input's is."""
    write_table(ROWS, "in.jsonl")
    rlaif("score", "in.jsonl", "-c", "c.yaml", "-o", f"out.{form}")
    assert totals(f"out.{form}") == [2.0, 3.0]


@pytest.mark.parametrize("form", ["jsonl", "json", "jsonl.gz", "parquet", "arrow"])
def test_standard_input_says_by_itself_what_it_is(form: str) -> None:
    """Its first bytes do; and explain reads it too."""
    write_table(ROWS, f"in.{form}")
    content = Path(f"in.{form}").read_bytes()
    rlaif("score", "-", "-c", "c.yaml", "-o", "out.jsonl", standard_input=content)
    assert totals("out.jsonl") == [2.0, 3.0]
    assert "words" in rlaif("explain", "-", "-c", "c.yaml", standard_input=content)


def test_a_folder_of_parts_is_one_table(folder: Path) -> None:
    """In the order of their names, whatever else lies in it beginning with an underscore."""
    (folder / "parts").mkdir()
    write_table(ROWS[:1], "parts/part-0.parquet")
    with gzip.open("parts/part-1.jsonl.gz", "wt") as part:
        part.write(json.dumps(ROWS[1]) + "\n")
    (folder / "parts" / "_job.json").write_text("{}")
    rlaif("score", "parts", "-c", "c.yaml", "-o", "out.jsonl")
    assert totals("out.jsonl") == [2.0, 3.0]


def test_a_data_set_of_the_hub_is_named_with_its_split(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its configuration, for score and explain; a folder of several splits likewise."""
    datasets = pytest.importorskip("datasets")
    (folder / "set").mkdir()
    plain = [{"prompt": "p", "completion": words} for words in ("a b", "c d e")]
    write_table(plain[:1], "set/train.parquet")
    write_table(plain, "set/test.parquet")
    load = datasets.load_dataset
    asked: list[Any] = []

    def of_the_hub(name: str, config: str | None, *, split: str | None) -> Any:
        asked.append((name, config, split))
        return load(str(folder / "set"), split=split, cache_dir=str(folder / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", of_the_hub)
    rlaif("score", "org/name", "--split", "test", "--subset", "main", "-c", "c.yaml", "-o", "out.jsonl")
    assert totals("out.jsonl") == [2.0, 3.0]
    assert set(asked) == {("org/name", "main", "test")}
    assert "words" in rlaif("explain", "org/name", "--split", "test", "-c", "c.yaml", "--row", "2")
    rlaif("score", "set", "--split", "train", "-c", "c.yaml", "-o", "train.jsonl")
    assert totals("train.jsonl") == [2.0]


def test_a_job_labels_a_folder_of_parts(folder: Path) -> None:
    """And knows it again by the content of all of them."""
    from rlaif_sdk.io.tables import table_digest
    from rlaif_sdk.preferences.tables import PairsConfig, check_pairs

    (folder / "pairs").mkdir()
    pair = {"prompt": "p", "response_1": "a", "response_2": "b"}
    write_table([pair], "pairs/part-0.jsonl")
    write_table([pair, pair], "pairs/part-1.parquet")
    before = check_pairs(folder / "pairs", PairsConfig(file="pairs"))
    assert before.rows == 3
    write_table([{**pair, "response_2": "c"}], "pairs/part-0.jsonl")
    assert table_digest(folder / "pairs") != before.digest
