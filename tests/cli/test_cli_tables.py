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
    return ended.stdout


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


PLAIN = [{"prompt": "p", "completion": "a b"}, {"prompt": "q", "completion": "c d e"}]


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes ``org/NAME`` a data set of the hub, whose split ``test`` has the rows, and says what was asked for."""
    datasets = pytest.importorskip("datasets")
    load = datasets.load_dataset
    asked: list[tuple[str, str | None, str | None]] = []

    def of_the_hub(name: str, config: str | None, *, split: str | None) -> Any:
        asked.append((name, config, split))
        return load(str(folder / "hub" / Path(name).name), split=split, cache_dir=str(folder / "cache"))

    def publish(name: str, rows: list[dict[str, Any]]) -> list[tuple[str, str | None, str | None]]:
        (folder / "hub" / name).mkdir(parents=True, exist_ok=True)
        write_table(rows[:1], folder / "hub" / name / "train.parquet")
        write_table(rows, folder / "hub" / name / "test.parquet")
        return asked

    monkeypatch.setattr(datasets, "load_dataset", of_the_hub)
    return publish


def test_a_data_set_of_the_hub_is_named_with_its_split(hub: Any) -> None:
    """And its configuration, for score and explain; a folder of several splits likewise."""
    asked = hub("name", PLAIN)
    rlaif("score", "org/name", "--split", "test", "--subset", "main", "-c", "c.yaml", "-o", "out.jsonl")
    assert totals("out.jsonl") == [2.0, 3.0]
    assert set(asked) == {("org/name", "main", "test")}
    assert "words" in rlaif("explain", "org/name", "--split", "test", "-c", "c.yaml", "--row", "2")
    rlaif("score", "hub/name", "--split", "train", "-c", "c.yaml", "-o", "train.jsonl")
    assert totals("train.jsonl") == [2.0]


def test_groups_of_a_data_set_of_the_hub_are_looked_over(hub: Any) -> None:
    """The look for groups that stand apart read a file of that name."""
    hub("name", [{**row, "g": 1} for row in PLAIN])
    arguments = ["org/name", "--split", "test", "-c", "c.yaml", "--group-column", "g"]
    rlaif("score", *arguments, "-o", "out.jsonl")
    assert totals("out.jsonl") == [2.0, 3.0]
    assert "words" in rlaif("explain", *arguments)


LABELS: list[dict[str, Any]] = [
    {
        "prompt": prompt, "chosen": "a", "rejected": "b", "chosen_prob": 0.9, "chosen_response": 1,
        "prob_1": 0.9, "prob_1_when_first": 0.9, "prob_1_when_second": 0.9, "flipped": False, "winning_place": None,
        "tie": False, "label_kind": "soft", "label_mass": 1.0, "rationales": [], "flags": [], "judge": "j",
        "usage": {}, "human": 1, "policy_1": "one", "policy_2": "two",
    }
    for prompt in ("p", "q")
]  # fmt: skip


def test_labels_of_the_hub_are_evaluated_and_reviewed(hub: Any) -> None:
    """By every command that takes labels."""
    asked = hub("labels", LABELS)
    where = ["org/labels", "--split", "test", "--subset", "main"]
    assert json.loads(rlaif("eval", "labels", *where, "--human", "human", "--json"))
    assert json.loads(rlaif("eval", "win-rate", *where, "--json"))
    assert json.loads(rlaif("eval", "rank", *where, "--json"))
    rlaif("review", *where, "--store", "r.sqlite", "--export", "reviewed.jsonl")
    assert [row["prompt"] for row in read_rows("reviewed.jsonl")] == ["p", "q"]
    assert set(asked) == {("org/labels", "main", "test")}


def test_completions_of_the_hub_are_measured_paired_and_swept(hub: Any, folder: Path) -> None:
    """By every command that takes completions."""
    asked = hub("answers", [{**row, "g": 1, "prompt": "p"} for row in PLAIN])
    where = ["--split", "test", "--subset", "main"]
    assert json.loads(rlaif("eval", "answers", "org/answers", *where, "-c", "c.yaml", "--json"))
    rlaif("make", "pairs", "--candidates", "org/answers", *where, "-c", "c.yaml", "-o", "pairs", "--set", "group=g")
    (pair,) = read_rows("pairs/pairs.jsonl")
    assert (pair["chosen"], pair["rejected"]) == ("c d e", "a b")
    pytest.importorskip("trl")
    (folder / "run.yaml").write_text(
        "model: {name: none}\ndata: {train: none.jsonl}\noutput: run\n"
        "composition: {rewards: {words: {use: 'rewards.py:words'}, more: {use: 'rewards.py:words'}}}\n"
    )
    (folder / "sweep.yaml").write_text("run: run.yaml\nweights: {words: [0.5, 1]}\n")
    rlaif("sweep", "sweep.yaml", "--score-only", "org/answers", *where)
    assert set(asked) == {("org/answers", "main", "test")}


def test_a_job_names_tables_of_the_hub_in_its_config(hub: Any, folder: Path) -> None:
    """Beside the file; and is the same job as long as the rows are, wherever they come from."""
    from rlaif_sdk.preferences.candidates import CandidatesConfig
    from rlaif_sdk.preferences.label_job import load_label_job
    from rlaif_sdk.preferences.merge import merge_preferences
    from rlaif_sdk.preferences.pipeline import load_make_job
    from rlaif_sdk.preferences.tables import check_pairs

    pairs = [{"prompt": "p", "response_1": "a", "response_2": "b"}]
    asked = hub("pairs", pairs)
    source = {"pairs": {"file": "org/pairs", "split": "test", "subset": "main"}, "judge": {"model": "m"}}
    job = load_label_job(source)
    before = check_pairs(job.pairs, job.config.pairs)
    assert before.rows == 1
    assert check_pairs(job.pairs, job.config.pairs).digest == before.digest
    hub("pairs", [{**pairs[0], "response_2": "c"}])
    assert check_pairs(job.pairs, job.config.pairs).digest != before.digest
    hub("labels", LABELS)
    sources = {"hub": {"file": "org/labels", "split": "test", "subset": "main"}}
    assert merge_preferences({"sources": sources, "output": str(folder / "merged")}).counts["pairs"] == 2
    prompts = {"file": "org/labels", "split": "test", "subset": "main"}
    made = load_make_job(CandidatesConfig, {"prompts": prompts, "policies": {"a": {"model": "m"}}})
    assert [row["prompt"] for row in made.prompt_rows(made.config.prompts)] == ["p", "q"]
    assert {each[1:] for each in asked} == {("main", "test")}


@pytest.mark.parametrize("form", ["csv", "json", "arrow", "jsonl.gz"])
def test_ranges_of_any_form_are_read(folder: Path, form: str) -> None:
    """A file that has no ranges is copied into the job's folder, once; a worker reads the copy."""
    from rlaif_sdk.io.ranges import places, ranged_file, read_range

    write_table(PLAIN, f"in.{form}")
    file = ranged_file(folder / f"in.{form}", folder / "job")
    begin = [*places(file, None)][1]
    assert [*read_range(file, line=begin.line, offset=begin.offset, rows=1)] == PLAIN[1:]
    written = file.stat().st_mtime_ns
    assert ranged_file(folder / f"in.{form}", folder / "job").stat().st_mtime_ns == written


def test_ranges_of_the_hub_and_of_folders_are_read(hub: Any, folder: Path) -> None:
    """With the types that their columns have."""
    from rlaif_sdk.io.ranges import ranged_file
    from rlaif_sdk.io.tables import TableSource

    hub("name", PLAIN)
    for path in (Path("org/name"), folder / "hub" / "name"):
        file = ranged_file(TableSource(path, split="test"), folder / "job")
        assert file.suffix == ".parquet"
        assert [*read_rows(file)] == PLAIN
    assert (
        ranged_file(folder / "hub" / "name" / "test.parquet", folder / "job")
        == folder / "hub" / "name" / "test.parquet"
    )


def test_a_job_labels_a_folder_of_parts(folder: Path) -> None:
    """And knows it again by the content of all of them."""
    from rlaif_sdk.io.tables import TableSource, table_digest
    from rlaif_sdk.preferences.tables import PairsConfig, check_pairs

    (folder / "pairs").mkdir()
    pair = {"prompt": "p", "response_1": "a", "response_2": "b"}
    write_table([pair], "pairs/part-0.jsonl")
    write_table([pair, pair], "pairs/part-1.parquet")
    before = check_pairs(TableSource(folder / "pairs"), PairsConfig(file="pairs"))
    assert before.rows == 3
    write_table([{**pair, "response_2": "c"}], "pairs/part-0.jsonl")
    assert table_digest(folder / "pairs") != before.digest
