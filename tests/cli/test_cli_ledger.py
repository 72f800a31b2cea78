"""`rlaif cache` and `rlaif what-if`, run as programs on a ledger that `rlaif score` has written."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from rlaif_sdk.cli.main import app

REWARDS = """
def words(completions):
    return [float(len(c.split())) for c in completions]

def picky(completions):
    return [None if c == 'skip' else float('nan') if c == 'fail' else 1.0 for c in completions]
"""
CONFIG = """
ledger: ledger.sqlite
rewards:
  words: {use: "./my_rewards.py:words"}
  picky: {use: "./my_rewards.py:picky"}
"""
TEXTS = ["one", "one two", "one two three", "skip", "fail", "one"]


def rlaif(*arguments, cwd):
    program = Path(sys.executable).with_name("rlaif")
    environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1"}
    return subprocess.run(
        [program, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False, env=environment
    )


@pytest.fixture
def folder(tmp_path, scored_twice):
    return Path(shutil.copytree(scored_twice, tmp_path / "run"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Runs the program in this process, which starts sooner."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def write_rows(tmp_path):
    """Writes the rewards, a composition and the rows."""

    def write(composition):
        (tmp_path / "my_rewards.py").write_text(REWARDS)
        (tmp_path / "rewards.yaml").write_text(composition)
        rows = [{"prompt": "a", "completion": text} for text in TEXTS]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    return write


@pytest.fixture(scope="module")
def scored_twice(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("scored")
    (tmp_path / "my_rewards.py").write_text(REWARDS)
    (tmp_path / "rewards.yaml").write_text(CONFIG)
    (tmp_path / "other.yaml").write_text("rewards:\n  words: {weight: -1}\n")
    rows = [{"prompt": "a", "completion": text, "group": index // 3} for index, text in enumerate(TEXTS)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for _ in range(2):
        done = rlaif("score", "rows.jsonl", "-c", "rewards.yaml", "--group-column", "group", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    return tmp_path


def test_list_shows_cached_rewards_and_runs(folder):
    """A table for people, JSON for programs; a folder stands for the ledger in it."""
    shown = rlaif("cache", "list", ".", cwd=folder)
    assert shown.returncode == 0, shown.stderr
    assert "./my_rewards.py:words" in shown.stdout
    assert "words, picky" in shown.stdout
    listed = json.loads(rlaif("cache", "list", "ledger.sqlite", "--json", cwd=folder).stdout)
    assert {entry["name"]: entry["scores"] for entry in listed["rewards"]} == {
        "./my_rewards.py:picky": 3,
        "./my_rewards.py:words": 5,
    }
    assert [(run["number"], run["batches"], run["rows"]) for run in listed["runs"]] == [(1, 1, 6), (2, 1, 6)]


def scores(folder):
    listed = json.loads(rlaif("cache", "list", ".", "--json", cwd=folder).stdout)
    return sum(entry["scores"] for entry in listed["rewards"]), len(listed["runs"])


def test_prune_forgets_what_it_is_told_and_clear_the_rest(folder):
    """By reward, by age, then everything; runs only when asked."""
    assert "forgot 0 scores and 0 runs" in rlaif("cache", "prune", ".", "--older-than", "1h", cwd=folder).stdout
    assert scores(folder) == (8, 2)
    done = rlaif("cache", "prune", ".", "--reward", "./my_rewards.py:picky", cwd=folder)
    assert "forgot 3 scores and 0 runs" in done.stdout
    assert scores(folder) == (5, 2)
    assert "forgot 5 scores and 0 runs" in rlaif("cache", "clear", ".", cwd=folder).stdout
    assert "forgot 0 scores and 2 runs" in rlaif("cache", "clear", ".", "--runs", cwd=folder).stdout
    assert scores(folder) == (0, 0)


@pytest.mark.parametrize("arguments", [(), ("--older-than", "soon"), ("--reward", "x", "--runs")])
def test_prune_refuses_what_it_cannot_read(folder, arguments):
    """Nothing is forgotten by a slip."""
    assert rlaif("cache", "prune", ".", *arguments, cwd=folder).returncode == 2
    assert scores(folder) == (8, 2)


def test_export_writes_every_recorded_row(folder):
    """Parquet has totals, raw scores, failures, and which came from the cache; `--run` takes one run."""
    done = rlaif("cache", "export", ".", "out.parquet", cwd=folder)
    assert done.returncode == 0, done.stderr
    rows = pyarrow.parquet.read_table(folder / "out.parquet").to_pylist()
    assert [row["completion"] for row in rows] == TEXTS * 2
    assert [row["run"] for row in rows] == [1] * 6 + [2] * 6
    assert [row["row"] for row in rows] == [1, 2, 3, 4, 5, 6] * 2
    assert rows[2]["rewards"]["words"]["raw"] == 3
    assert rows[4]["rewards"]["picky"]["failure"] == "returned nan"
    assert [row["rewards"]["words"]["cached"] for row in rows] == [False] * 5 + [True] * 7
    assert "wrote 6 rows" in rlaif("cache", "export", ".", "out.jsonl", "--run", 2, cwd=folder).stdout
    assert rlaif("cache", "export", ".", "no.parquet", "--run", 9, cwd=folder).returncode == 2
    assert not (folder / "no.parquet").exists()


def test_what_if_prints_flips_and_the_rows_that_change_most_and_draws_them(folder):
    """The table, the samples, and a PNG."""
    done = rlaif("what-if", ".", "-c", "other.yaml", "--top", 2, "--plot", "plot.png", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "flipped" in done.stdout
    assert done.stdout.count("sign flips") == 2
    assert "completion: one two three" in done.stdout
    data = (folder / "plot.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    assert width > height > 300


def test_what_if_answers_in_json(folder):
    """Numbers that are not there are null."""
    found = json.loads(rlaif("what-if", "ledger.sqlite", "-c", "other.yaml", "--json", "--run", 1, cwd=folder).stdout)
    assert found["summary"]["rows"] == 6
    assert found["summary"]["flipped"] == 2
    assert len(found["steps"]) == 1
    assert found["most_changed"][0]["flipped"] is True
    for entry in found["most_changed"]:
        explained = rlaif("explain", "ledger.sqlite", "--run", 1, "--row", entry["row"], "--json", cwd=folder)
        assert json.loads(explained.stdout)["total"] == entry["total"]
    cached = json.loads(rlaif("what-if", ".", "-c", "other.yaml", "--json", cwd=folder).stdout)
    assert cached == found


def test_what_if_takes_keys_of_the_command_line(folder):
    """`--set`, as `rlaif score` does: the recorded composition with one weight changed."""
    arguments = ("what-if", ".", "-c", "rewards.yaml", "--json")
    same, other = (
        json.loads(rlaif(*arguments, *more, cwd=folder).stdout)["summary"]
        for more in ([], ["--set", "rewards.words.weight=-1"])
    )
    assert (same["flipped"], same["rank_correlation"]) == (0, pytest.approx(1.0))
    assert other["rank_correlation"] < 0.5
    assert other["flipped"] > 0


def test_what_if_names_what_is_missing(folder):
    """A reward without a record, a ledger that is not there: one line, and status 2."""
    (folder / "other.yaml").write_text("rewards:\n  humour: {}\n")
    done = rlaif("what-if", ".", "-c", "other.yaml", cwd=folder)
    assert done.returncode == 2
    assert "other.yaml:2: rewards.humour: has no recorded scores" in done.stderr
    done = rlaif("cache", "list", "nowhere.sqlite", cwd=folder)
    assert done.returncode == 2
    assert "there is no such ledger" in done.stderr
    assert not (folder / "nowhere.sqlite").exists()


def test_score_keeps_a_ledger_beside_its_output(tmp_path, write_rows, here):
    """The output's name finds it, for explain and report; a model's scores are kept, a function's are only recorded."""
    write_rows("rewards:\n  words: {use: './my_rewards.py:words', normalize: zscore}\n  toxicity: {}\n")
    for name in ("one", "two"):
        done = here("score", "rows.jsonl", "-c", "rewards.yaml", "-o", f"out/{name}.jsonl")
        assert done.exit_code == 0, done.output
    scored = [json.loads(line)["reward"] for line in (tmp_path / "out/one.jsonl").read_text().splitlines()]
    explained = json.loads(here("explain", "out/one.jsonl", "--row", 3, "--json").output)
    assert explained["total"] == scored[2]["total"]
    listed = json.loads(here("cache", "list", "out/two.jsonl", "--json").output)
    assert [(entry["name"], entry["scores"]) for entry in listed["rewards"]] == [("toxicity", 5)]
    assert [run["rows"] for run in listed["runs"]] == [6]
    done = here("report", "out/one.jsonl")
    assert "wrote out/one.report.html" in done.output, done.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "__job__",
        "one.jsonl",
        "one.report.html",
        "two.jsonl",
    ]


@pytest.mark.parametrize("normalize", ["zscore", "group_zscore", "rank", "{kind: zscore, winsorize: 0.2}"])
def test_explaining_a_table_gives_the_number_of_score_and_writes_nothing(tmp_path, write_rows, here, normalize):
    """The row is normalised among the others, and no later report takes it for the run."""
    reward = f"{{use: './my_rewards.py:words', normalize: {normalize}}}"
    write_rows(f"rewards:\n  words: {reward}\nledger: ledger.sqlite\n")
    assert here("score", "rows.jsonl", "-c", "rewards.yaml", "--group-column", "prompt").exit_code == 0
    scored = [json.loads(line)["reward"] for line in (tmp_path / "rows.scored.jsonl").read_text().splitlines()]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for row, given in enumerate(scored, 1):
        explained = here(
            "explain", "rows.jsonl", "-c", "rewards.yaml", "--group-column", "prompt", "--row", row, "--json"
        )
        assert json.loads(explained.output)["total"] == given["total"]
    done = here("explain", "-c", "rewards.yaml", "--prompt", "p", "--completion", "one two")
    assert done.exit_code == 0, done.output
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_ledger_false_keeps_none_and_the_table_says_what_to_do(tmp_path, write_rows, here):
    """Nor is one kept of rows that go to standard output."""
    write_rows("rewards:\n  words: {use: './my_rewards.py:words'}\n")
    assert here("score", "rows.jsonl", "-c", "rewards.yaml", "-o", "-").exit_code == 0
    done = here("score", "rows.jsonl", "-c", "rewards.yaml", "--set", "ledger=false")
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "__job__").exists()
    done = here("explain", "rows.scored.jsonl")
    assert "there is no ledger of this table (rlaif score keeps one" in str(done.exception)
