"""How commands are grouped, and how their config is named."""

import os
import subprocess
import sys

import pytest


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
    assert done.stderr == "error: nope.yaml: there is no such file\n"
