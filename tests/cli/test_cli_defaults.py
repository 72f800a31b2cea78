"""Defaults of options: `rlaif.toml` and environment variables."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rlaif_sdk.cli.main import app
from rlaif_sdk.exceptions import ConfigError

REWARDS = "def length(completion_texts):\n    return [float(len(text)) for text in completion_texts]\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a composition, a table and a sub-folder, which is the working folder."""
    for variable in [each for each in os.environ if each.startswith("RLAIF_")]:
        monkeypatch.delenv(variable)
    (tmp_path / "mine.py").write_text(REWARDS)
    (tmp_path / "c.yaml").write_text("rewards: {length: {use: './mine.py:length'}}\n")
    (tmp_path / "twice.yaml").write_text("rewards: {length: {use: './mine.py:length', weight: 2}}\n")
    (tmp_path / "t.jsonl").write_text('{"prompt": "p", "completion": "abc"}\n' * 3)
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    return tmp_path


def rlaif(line: str) -> Result:
    return CliRunner().invoke(app, line.split())


def totals(line: str) -> list[float]:
    done = rlaif(line)
    assert done.exit_code == 0, (done.output, done.exception)
    return [json.loads(row)["reward"]["total"] for row in done.stdout.splitlines()]


def refusal(line: str) -> str:
    done = rlaif(line)
    assert isinstance(done.exception, ConfigError), (done.output, done.exception)
    return str(done.exception)


def test_the_command_line_counts_before_the_environment_the_file_and_the_default(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table of a command counts before the one of all commands."""
    toml = folder / "rlaif.toml"
    toml.write_text('[defaults]\nconfig = "c.yaml"\noutput = "-"\nlimit = 1\n')
    assert totals("score ../t.jsonl") == [3.0]
    toml.write_text(toml.read_text() + "[score]\nlimit = 2\n")
    assert totals("score ../t.jsonl") == [3.0] * 2
    monkeypatch.setenv("RLAIF_SCORE_LIMIT", "3")
    monkeypatch.setenv("RLAIF_SCORE_CONFIG", "../twice.yaml")
    assert totals("score ../t.jsonl") == [6.0] * 3
    assert totals("score ../t.jsonl ../c.yaml --limit 1") == [3.0]


def test_a_path_in_the_file_is_relative_to_it(folder: Path) -> None:
    """As that of a composition is; of whichever parent the file is found in, the nearest counts."""
    (folder / "rlaif.toml").write_text('[score]\nconfig = "c.yaml"\noutput = "out.jsonl"\n')
    assert rlaif("score ../t.jsonl").exit_code == 0
    assert (folder / "out.jsonl").is_file()
    (folder / "sub" / "rlaif.toml").write_text('[score]\nconfig = "../twice.yaml"\noutput = "-"\n')
    assert totals("score ../t.jsonl") == [6.0] * 3


def test_options_that_repeat_are_lists(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the file a list, in a variable words; the option's name counts, whatever the function calls it."""
    (folder / "rlaif.toml").write_text(
        '[score]\nconfig = "c.yaml"\nset = ["rewards.length.weight=5"]\noutput = "-"\n[eval.answers]\njson = true\n'
    )
    assert totals("score ../t.jsonl") == [15.0] * 3
    monkeypatch.setenv("RLAIF_SCORE_SET", "rewards.length.weight=2 rewards.length.weight=3")
    assert totals("score ../t.jsonl") == [9.0] * 3
    assert json.loads(rlaif("eval answers ../t.jsonl ../c.yaml").stdout)["length"]["before"]["value"] == 3.0
    monkeypatch.setenv("RLAIF_EVAL_ANSWERS_JSON", "0")
    assert "95% confidence" in rlaif("eval answers ../t.jsonl ../c.yaml").stdout


def test_a_composition_for_all_is_one_only_for_commands_that_need_it(folder: Path) -> None:
    """It is no run to train, no labelling job, and not in the way where a command may do without."""
    (folder / "rlaif.toml").write_text('[defaults]\nconfig = "none.yaml"\n')
    done = rlaif("score ../t.jsonl")
    assert str(done.exception).startswith("../none.yaml: there is no such file")
    assert done.exception.__notes__ == ["defaults of options are read from ../rlaif.toml"]
    assert refusal("eval answers ../t.jsonl ../t.jsonl").startswith("../none.yaml: there is no such file")
    for command in ("train ppo", "label", "explain"):
        assert "Usage: " in rlaif(command).output


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[score]\n\nchunks = 3\n", "../rlaif.toml:3: score.chunks: there is no such option (did you mean 'chunk'?)"),
        (
            "[score]\nbatch-rows = 3\n",
            "../rlaif.toml:2: score.batch-rows: there is no such option (did you mean 'batch_rows'?)",
        ),
        (
            "[defaults]\nquite = true\n",
            "../rlaif.toml:2: defaults.quite: there is no such option (did you mean 'quiet'?)",
        ),
        ("[scores]\nchunk = 3\n", "../rlaif.toml:1: scores: there is no such command (did you mean 'score'?)"),
        ("[train.pppo]\n", "../rlaif.toml:1: train.pppo: there is no such command (did you mean 'ppo'?)"),
        ("chunk = 3\n", "../rlaif.toml:1: chunk: there is no such command (there are attack, cache, "),
        ("score = 3\n", "../rlaif.toml:1: score: is a value, where the table of a command is wanted (write [score])"),
        ("[score]\nset = 'a=1'\n", "../rlaif.toml:2: score.set: a list is wanted, not 'a=1'"),
        ("[score]\nlimit = [1]\n", "../rlaif.toml:2: score.limit: one value is wanted, not [1]"),
        ("[score]\nlimit = 0\n", "../rlaif.toml:2: score.limit: "),
        ("[defaults]\nlimit = 'x'\n", "../rlaif.toml:2: defaults.limit: "),
        ("[score\n", "../rlaif.toml: is no TOML: "),
        ("a = " + "[" * 20_000, "../rlaif.toml: is no TOML: maximum recursion depth"),
    ],
)
def test_what_is_wrong_with_the_file_is_told_with_its_line(folder: Path, toml: str, told: str) -> None:
    """Whatever command it is of, but for values, which are read with their command."""
    (folder / "rlaif.toml").write_text(toml)
    assert refusal("score ../t.jsonl ../c.yaml").startswith(told)


def test_a_working_folder_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a job whose folder another one cleared."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert refusal("score t.jsonl c.yaml").startswith("the working folder was removed")


def test_what_is_wrong_with_a_variable_is_told_with_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is no option of the command is a warning: others may have made it, as Kubernetes does for services."""
    monkeypatch.setenv("RLAIF_SCORE_LIMIT", "many")
    assert refusal("score ../t.jsonl ../c.yaml").startswith("RLAIF_SCORE_LIMIT: ")
    monkeypatch.setenv("RLAIF_SCORE_LIMIT", "1")
    monkeypatch.setenv("RLAIF_SCORE_LIMITS", "2")
    monkeypatch.setenv("RLAIF_SERVE_PORTS", "2")
    with pytest.warns(
        UserWarning, match=r"RLAIF_SCORE_LIMITS .*`rlaif score`.*did you mean RLAIF_SCORE_LIMIT\?"
    ) as told:
        assert totals("score ../t.jsonl ../c.yaml -o -") == [3.0]
    assert len(told) == 1


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="gives a file to another user: needs root")
def test_a_file_of_another_user_is_not_read(folder: Path) -> None:
    """It could name a composition, and so code: one that lies in a parent that all may write to, such as /tmp."""
    toml = folder / "rlaif.toml"
    toml.write_text('[score]\nconfig = "twice.yaml"\noutput = "-"\n')
    os.chown(toml, 12345, -1)
    with pytest.warns(UserWarning, match="belongs to another user and is not read"):
        assert "Missing option '--config'" in rlaif("score ../t.jsonl").output
    os.chown(folder / "sub", 12345, -1)
    assert totals("score ../t.jsonl") == [6.0] * 3


def test_help_shows_the_defaults_of_the_file(folder: Path) -> None:
    """Not the names of the variables, which would double its length: they follow from the options' names."""
    (folder / "rlaif.toml").write_text("[score]\nlimit = 77\n")
    shown = rlaif("score --help").output
    assert "[default: 77]" in shown
    assert "RLAIF_SCORE" not in shown
