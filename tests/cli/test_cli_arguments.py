"""How commands are grouped, and how their config is named."""

import json
import os
import re
import subprocess
import sys
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from rlaif_sdk.cli.main import app
from rlaif_sdk.cli.options import ConfigCommand
from rlaif_sdk.exceptions import ConfigError


def run(*arguments, cwd=None, **also):
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "rlaif_sdk", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=environment, **also)


def unboxed(output):
    """A message as one line, without the frame around it."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", output).split())


def test_help_groups_the_commands_in_the_order_of_use():
    """Who composes, labels, trains, evaluates and serves reads the help from top to bottom."""
    shown = run("--help").stdout
    order = ["Begin", "quickstart", "Compose", "score", "Label", "label", "Train", "train", "Evaluate", "Serve"]
    places = [shown.index(f" {word} ", shown.index("─ Begin ") - 2) for word in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "command",
    [
        *(
            "train ppo CONFIG",
            "label -c CONFIG",
            "serve --config=CONFIG",
            "judge probe --config CONFIG",
            "iterate CONFIG",
        ),
        *("attack judge CONFIG", "make merge -c CONFIG", "sweep CONFIG", "difficulty CONFIG -o out.jsonl"),
        *("quickstart CONFIG", "score t.jsonl CONFIG", "explain t.jsonl CONFIG", "eval answers t.jsonl CONFIG"),
        *(
            "eval answers t.jsonl -c CONFIG t.jsonl",
            "eval answers t.jsonl t.jsonl CONFIG",
            "eval reward t.jsonl CONFIG",
        ),
        *("eval benchmark pairs t.jsonl CONFIG", "what-if . CONFIG", "report . CONFIG", "report --config=CONFIG ."),
    ],
)
def test_a_config_is_the_last_argument_or_follows_its_option(tmp_path, monkeypatch, command):
    """All spellings reach the same check of the file, of every command that has a config."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.jsonl").write_text("{}\n")
    done = CliRunner().invoke(app, command.replace("CONFIG", "nope.yaml").split())
    assert isinstance(done.exception, ConfigError), done.output
    assert str(done.exception).startswith("nope.yaml: there is no such file")


@pytest.mark.parametrize("command", ["label", "score t.jsonl", "eval answers t.jsonl t.jsonl", "report ."])
def test_a_config_that_is_given_twice_is_refused(tmp_path, monkeypatch, command):
    """Neither wins: both are named, and nothing is read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.jsonl").write_text("{}\n")
    done = CliRunner().invoke(app, [*command.split(), "one.yaml", "-c", "other.yaml"])
    assert done.exit_code == 2
    assert "is given twice: --config other.yaml, and one.yaml as the last argument" in unboxed(done.output)


def test_help_shows_the_config_among_the_arguments():
    """In the usage line; in brackets where the command does without."""
    assert "score [OPTIONS] {file} {config}" in CliRunner().invoke(app, ["score", "--help"]).output
    assert "report [OPTIONS] {run} [config]" in CliRunner().invoke(app, ["report", "--help"]).output
    assert "config" not in CliRunner().invoke(app, ["doctor", "--help"]).output


def test_pairs_without_a_job_or_its_parts_say_what_to_give():
    """The missing keys of a config that nobody wrote helped nobody."""
    for given in ([], ["--candidates", "t.jsonl"], ["--composition", "c.yaml"]):
        done = CliRunner().invoke(app, ["make", "pairs", *given])
        assert "give the config of a job, or --candidates and --composition" in unboxed(done.output)


def test_the_shell_completes_rewards():
    """Wherever a reward's name is wanted."""
    for words in ("rlaif rewards show conc", "rlaif init config toxicity conc"):
        variables = {"_RLAIF_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        program = "import sys; from rlaif_sdk.cli import app; sys.argv = ['rlaif']; app(prog_name='rlaif')"
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.split() == ["conciseness"], done


def test_a_composition_in_yaml_is_no_table(tmp_path, monkeypatch):
    """A command that may have a table, two, or none: what ends in .yaml is the composition."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def length(completions):\n    return [len(c) for c in completions]\n")
    (tmp_path / "c.yaml").write_text("rewards: {length: {use: './mine.py:length'}}\n")
    done = CliRunner().invoke(app, ["explain", "c.yaml", "--prompt", "p", "--completion", "four", "--json"])
    assert json.loads(done.stdout)["total"] == 4.0


def test_a_job_is_named_where_c_is_another_option(tmp_path):
    """``-c`` of ``make pairs`` is the composition; ``--config`` is the job, as its help says."""
    for given in (["--config", "nope.yaml"], ["--config=nope.yaml"], ["-c", "some.yaml", "nope.yaml"]):
        assert run("make", "pairs", *given, cwd=tmp_path).stderr.startswith("error: nope.yaml: there is no such file")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["t", "-o", "-c", "c.yaml"], "t c.yaml -c False"),
        (["t", "-c", "c.yaml", "--out", "--config"], "t c.yaml --config False"),
        (["t", "--out", "--config=x", "--config=c.yaml"], "t c.yaml --config=x False"),
        (["--loud", "t", "c.yaml"], "t c.yaml . True"),
        (["t", "-lo", "c.yaml", "c.yaml"], "t c.yaml c.yaml True"),
        (["--out=x", "--", "t", "-c"], "t -c x False"),
        (["--out=x", "t", "--", "--config"], "t --config x False"),
    ],
)
def test_what_looks_like_the_option_and_is_a_value_stays(given, found):
    """A value belongs to the option before it, and what follows ``--`` is an argument."""
    program = typer.Typer()

    @program.command(cls=ConfigCommand)
    def command(
        file: str,
        config: Annotated[str, typer.Option("--config", "-c")],
        out: Annotated[str, typer.Option("--out", "-o")] = ".",
        loud: Annotated[bool, typer.Option("--loud", "-l")] = False,
    ) -> None:
        typer.echo(f"{file} {config} {out} {loud}")

    done = CliRunner().invoke(program, given)
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


@pytest.mark.parametrize(
    "command",
    [
        "score t.jsonl c.json -o c.json",
        "score t.jsonl c.json -o t.jsonl",
        "score t.jsonl c.json -o link.jsonl",
        "score t.jsonl c.json --state s.json -o s.json",
        "fit t.jsonl -c c.json -o ./c.json",
        "fit t.jsonl -c c.json -o new.json --plot t.jsonl",
        "difficulty c.json -o c.json",
        "eval labels t.jsonl --report t.jsonl",
        "eval reward t.jsonl c.json --report c.json",
        "attack rewards t.jsonl c.json --witness a --plot t.jsonl",
        "review t.jsonl --export t.jsonl",
        "cache export s.json s.json",
        "report s.json -o s.json",
        "what-if s.json c.json --plot c.json",
    ],
)
def test_a_file_that_a_command_reads_is_never_written_over(tmp_path, monkeypatch, command):
    """By no option that names a file to write, and by no other name of the same file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    files = {"t.jsonl": '{"prompt": "p", "completion": "c"}\n', "c.json": '{"rewards": {"a": {}}}', "s.json": "{}"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "link.jsonl").symlink_to("t.jsonl")
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 2
    assert "the output would overwrite the input" in unboxed(done.output)
    assert {name: (tmp_path / name).read_text() for name in files} == files
    assert len(list(tmp_path.iterdir())) == 4
