"""The commands that pages show, run on tiny models behind the hub's names; training runs are checked, by `--check`."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.markdown_blocks import blocks
from tests.docs.names import ROOT

COMMAND = re.compile(r"^rlaif train ([\w-]+) --config (\S+\.yaml)$", re.MULTILINE)
CHECKS = """
import json, sys, warnings
from rlaif_sdk.training.methods import load_run
from rlaif_sdk.training.run_folder import check
warnings.simplefilter("ignore")
runs = json.load(sys.stdin)
found = {page: check(load_run(method.replace("-", "_"), file)).problems for page, method, file in runs}
print(json.dumps({page: list(map(str, problems)) for page, problems in found.items() if problems}))
"""


def runs(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Page, method and config of every run whose config is on the page; the page's files are written."""
    for page in sorted((ROOT / "docs" / "howto").glob("*.md")):
        shown = blocks(page)
        files = {block.file: block.code for block in shown if block.file}
        for block in shown:
            for method, config in COMMAND.findall(block.code if block.language == "bash" else ""):
                if config in files:
                    place = folder / page.stem
                    place.mkdir(exist_ok=True)
                    for name, text in files.items():
                        (place / name).write_text(text, encoding="utf-8")
                    yield f"{page.stem}: {config}", method, str(place / config)


@pytest.mark.slow
def test_the_runs_that_are_shown_pass_their_check(hub: dict[str, str], tmp_path: Path) -> None:
    """Models, rows, columns, rewards and settings are there and fit, for every config that a page trains with."""
    pytest.importorskip("trl")
    shown = [*runs(tmp_path)]
    examples = ROOT / "examples" / "direct-rlaif" / "run.yaml"
    shown.append(("examples: direct-rlaif", "ppo", str(examples)))
    assert len(shown) >= 6
    done = subprocess.run(
        [sys.executable, "-c", CHECKS], env=hub, cwd=tmp_path, input=json.dumps(shown),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {}


@pytest.mark.slow
def test_the_commands_of_the_readme_score_and_explain(hub: dict[str, str], tmp_path: Path) -> None:
    """As they stand, and no row is unscored."""
    pytest.importorskip("rlaif_conciseness")
    shown = blocks(ROOT / "README.md")
    for block in shown:
        if block.file:
            (tmp_path / block.file).write_text(block.code, encoding="utf-8")
    lines = [line for block in shown if block.language == "bash" for line in block.code.splitlines()]
    commands = [line for line in lines if line.startswith(("rlaif score", "rlaif explain"))]
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command, comments=True)[1:]
        done = subprocess.run(
            [sys.executable, "-m", "rlaif_sdk", *words],
            env=hub,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    scored = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(scored) == 4
