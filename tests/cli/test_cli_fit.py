"""``rlaif fit``, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from rlaif_sdk.cli.main import app
from rlaif_sdk.exceptions import ConfigError
from tests.evaluation.test_fit import composition, judged
from tests.preferences.review.conftest import Page
from tests.preferences.review.test_review_page import start_command


def rlaif(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A table of judged pairs and a composition, on a wide terminal."""
    monkeypatch.setenv("COLUMNS", "160")
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in judged(100)))
    return pairs, composition(tmp_path)


def test_the_fitted_composition_is_written_with_its_card_and_can_be_used(files: tuple[Path, Path]) -> None:
    """The tables have the weights and what agrees with people; `rlaif score` takes the file."""
    pairs, config = files
    fitted, plot = config.with_name("fitted.yaml"), config.with_name("fit.png")
    done = rlaif("fit", pairs, config, "--human", "human", "-o", fitted, "--plot", plot)
    assert done.exit_code == 0, done.output
    for shown in ("Weights fitted to 100 pairs about 100 prompts", "as it was", "equal weights", "length alone"):
        assert shown in done.output
    assert yaml.safe_load(fitted.read_text())["rewards"]["a"]["weight"] > 0
    assert "## Versions" in fitted.with_name("fitted.card.md").read_text()
    assert plot.stat().st_size > 1000
    table = config.with_name("rows.jsonl")
    table.write_text(json.dumps({"prompt": "q", "completion": judged(1)[0]["response_1"]}) + "\n")
    assert rlaif("score", table, fitted, "-o", "-", "--quiet").exit_code == 0


def test_pairs_that_a_reward_leaves_out_are_no_success(files: tuple[Path, Path]) -> None:
    """The fit is there without them, and the command exits with 3."""
    pairs, config = files
    (config.with_name("r.py")).write_text(
        "def r(completions):\n    return [None if len(c) % 7 == 0 else float(len(c)) for c in completions]\n"
    )
    settings = yaml.safe_load(config.read_text())
    settings["rewards"]["r"] = {"use": "./r.py:r"}
    config.write_text(yaml.safe_dump(settings))
    done = rlaif("fit", pairs, config, "--human", "human")
    assert done.exit_code == 3, done.output
    assert "pairs with a score on one side only are left out (r " in " ".join(done.output.split())


def test_next_writes_pairs_that_nobody_judged(files: tuple[Path, Path]) -> None:
    """As they were written, for `rlaif review`."""
    pairs, config = files
    pool, chosen = config.with_name("pool.jsonl"), config.with_name("next.jsonl")
    pool.write_text("".join(json.dumps({**row, "human": None}) + "\n" for row in judged(40, seed=1)))
    done = rlaif("fit", pairs, pool, config, "--human", "human", "--next", "5", "-o", chosen)
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in chosen.read_text().splitlines()]
    assert len(rows) == 5
    assert all(row["human"] is None for row in rows)


def test_next_writes_to_standard_output(files: tuple[Path, Path]) -> None:
    """Rows alone, for the next command of a pipe; a composition, which has a card beside it, does not go there."""
    pairs, config = files
    rows = "".join(json.dumps({**row, "human": None}) + "\n" for row in judged(40, seed=1))
    done = CliRunner().invoke(app, ["fit", "-", str(config), "--human", "human", "--next", "3", "-o", "-"], input=rows)
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 3
    done = rlaif("fit", pairs, config, "--human", "human", "-o", "-")
    assert done.exit_code == 2
    assert "name a file" in done.output


def test_a_fitted_file_stands_beside_its_composition(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Its paths are relative to that folder."""
    pairs, config = files
    done = rlaif("fit", pairs, config, "--human", "human", "-o", tmp_path / "elsewhere" / "fitted.yaml")
    assert done.exit_code == 2
    assert "write it into" in done.output


@pytest.mark.parametrize("taken", ["pairs.jsonl", "rewards.yaml"])
def test_nothing_that_is_read_is_overwritten(files: tuple[Path, Path], taken: str) -> None:
    """Neither the pairs by those that are chosen, nor the composition by the fitted one."""
    pairs, config = files
    before = [pairs.read_text(), config.read_text()]
    chosen = ["--next", "1"] if taken == "pairs.jsonl" else []
    done = rlaif("fit", pairs, config, "--human", "human", *chosen, "-o", config.with_name(taken))
    assert done.exit_code == 2
    assert "would overwrite the input" in done.output
    assert [pairs.read_text(), config.read_text()] == before


def test_a_plot_that_cannot_be_drawn_costs_no_fit(files: tuple[Path, Path]) -> None:
    """The composition is written before it; the error names the file."""
    pairs, config = files
    fitted = config.with_name("fitted.yaml")
    done = rlaif("fit", pairs, config, "--human", "human", "-o", fitted, "--plot", config.with_name("fit.doc"))
    assert isinstance(done.exception, ConfigError)
    assert "'doc' is no form of plot" in str(done.exception)
    assert fitted.exists()


@pytest.mark.parametrize("other", [["--json"], ["--plot", "fit.png"]])
def test_next_shows_no_fit(files: tuple[Path, Path], other: list[str]) -> None:
    """What would show one is refused."""
    pairs, config = files
    done = rlaif("fit", pairs, config, "--next", "1", "-o", config.with_name("next.jsonl"), *other)
    assert done.exit_code == 2
    assert "no fit is shown" in done.output


def test_json_is_printed(files: tuple[Path, Path]) -> None:
    """The whole record, and nothing else on standard output."""
    pairs, config = files
    done = rlaif("fit", pairs, config, "--human", "human", "--json")
    assert json.loads(done.stdout)["pairs"] == 100


def test_review_asks_what_teaches_most(files: tuple[Path, Path], tmp_path: Path) -> None:
    """The page's first pair is the first that --next chooses; the fit is said on standard error."""
    _, config = files
    pool, chosen = tmp_path / "pool.jsonl", tmp_path / "next.jsonl"
    rows = [{name: row[name] for name in ("prompt", "response_1", "response_2")} for row in judged(40, seed=1)]
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert rlaif("fit", pool, config, "--next", "1", "-o", chosen).exit_code == 0
    process, address = start_command(pool, "--fit", config, "--audit", 0, "--port", 0)
    try:
        base, _, token = address.partition("/#token=")
        status, state = Page(base, token, store=None).post("next", {"reviewer": "ana"})
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert status == 200
    assert state["pair"]["prompt"][0]["text"] == json.loads(chosen.read_text())["prompt"]
