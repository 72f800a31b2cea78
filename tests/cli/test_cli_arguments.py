"""How commands are grouped, and how their config is named."""

import json
import os
import subprocess
import sys
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from rlaif_sdk.cli.options import ConfigCommand


def run(*arguments, cwd=None, **also):
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "rlaif_sdk", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=environment, **also)


def test_help_groups_the_commands_in_the_order_of_use():
    """Who composes, labels, trains, evaluates and serves reads the help from top to bottom."""
    shown = run("--help").stdout
    order = ["Begin", "quickstart", "Compose", "score", "Label", "label", "Train", "train", "Evaluate", "Serve"]
    places = [shown.index(f" {word} ", shown.index("─ Begin ") - 2) for word in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "command",
    ["label", "train ppo", "serve", "judge probe", "attack judge", "make merge", "iterate", "sweep", "difficulty"],
)
@pytest.mark.parametrize(
    "given", [["nope.yaml"], ["--config", "nope.yaml"], ["-c", "nope.yaml"], ["--config=nope.yaml"]]
)
def test_a_config_is_an_argument_or_follows_its_option(tmp_path, command, given):
    """All four spellings reach the same check of the file."""
    more = ["-o", "out.jsonl"] if command == "difficulty" else []
    done = run(*command.split(), *given, *more, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nope.yaml: there is no such file")


def test_a_job_is_named_where_c_is_another_option(tmp_path):
    """``-c`` of ``make pairs`` is the composition; ``--config`` is the job, as its help says."""
    for given in (["--config", "nope.yaml"], ["--config=nope.yaml"], ["-c", "some.yaml", "nope.yaml"]):
        assert run("make", "pairs", *given, cwd=tmp_path).stderr.startswith("error: nope.yaml: there is no such file")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["-o", "-c", "c.yaml"], "c.yaml -c False"),
        (["-c", "c.yaml", "--out", "--config"], "c.yaml --config False"),
        (["--out", "--config=x", "--config=c.yaml"], "c.yaml --config=x False"),
        (["--loud", "-c", "c.yaml"], "c.yaml . True"),
        (["--out=x", "--", "-c"], "-c x False"),
    ],
)
def test_what_looks_like_the_option_and_is_a_value_stays(given, found):
    """A value belongs to the option before it, and what follows ``--`` is an argument."""
    app = typer.Typer()

    @app.command(cls=ConfigCommand)
    def command(
        config: str,
        out: Annotated[str, typer.Option("--out", "-o")] = ".",
        loud: Annotated[bool, typer.Option("--loud")] = False,
    ) -> None:
        typer.echo(f"{config} {out} {loud}")

    done = CliRunner().invoke(app, given)
    assert done.stdout == f"{found}\n", done.output


@pytest.fixture
def table(tmp_path):
    (tmp_path / "mine.py").write_text("def length(completions):\n    return [len(c) for c in completions]\n")
    (tmp_path / "c.yaml").write_text("rewards: {length: {use: './mine.py:length'}}\n")
    rows = [json.dumps({"prompt": "p", "completion": "x" * size}) + "\n" for size in range(1, 9)]
    (tmp_path / "t.jsonl").write_text("".join(rows))
    return tmp_path


def totals(text):
    return [json.loads(line)["reward"]["total"] for line in text.splitlines()]


def test_score_stands_in_a_pipe(table):
    """Standard output has nothing but rows; the summary is on standard error."""
    rows = (table / "t.jsonl").read_text()
    done = run("score", "-", "-c", "c.yaml", "--limit", 3, "--set", "rewards.length.weight=2", cwd=table, input=rows)
    assert totals(done.stdout) == [2.0, 4.0, 6.0]
    assert "wrote standard output" in done.stderr


def test_score_draws_the_same_sample_each_time(table):
    """In the order of the table."""
    first, second = (run("score", "t.jsonl", "-c", "c.yaml", "--sample", 4, "-o", "-", cwd=table) for _ in range(2))
    found = totals(first.stdout)
    assert len(found) == 4
    assert found == sorted(found) == totals(second.stdout)
