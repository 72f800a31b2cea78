"""Conditions in the ledger, in what-if, and in everything that shows or sums up a composition."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from rlaif_sdk import Composer, Composition, RewardBatch
from rlaif_sdk.cli.main import app
from rlaif_sdk.composer import Ledger, what_if
from rlaif_sdk.composer.advantages import group_advantages
from rlaif_sdk.evaluation.scored import Candidate, ScoredCompletions
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.reporting.run_report.replay import recorded_compositions
from rlaif_sdk.serving.app import create_app

REWARDS = """
from pathlib import Path

def quality(completion_texts):
    return [len(text) / 10 for text in completion_texts]

class Judge:
    name, version = "judge", "1"
    inputs = ()

    def score(self, batch):
        with (Path(__file__).parent / "asked.txt").open("a") as file:
            file.writelines(text + "\\n" for text in batch.completions)
        return [None if "?" in text else float(text.count("a")) for text in batch.completions]
"""
TEXTS = ["a", "aa", "aaaa", "b" * 6, "aa?bbb", "a" * 9]
DOMAINS = ["x", "y", "x", "y", "x", None]
BATCH = RewardBatch(["p"] * 6, TEXTS, columns={"domain": DOMAINS}, group=[0, 0, 0, 1, 1, 1])


def composition(least: float = 0.4, **others: Any) -> dict[str, Any]:
    judge = {
        "use": "./rewards.py:Judge",
        "when": [{"reward": "quality", "min": least}, {"column": "domain", "not_in": [None]}],
        "otherwise": 0,
        **others,
    }
    return {
        "rewards": {"quality": {"use": "./rewards.py:quality"}, "judge": judge},
        "ledger": {"path": "ledger.sqlite"},
    }


def write(folder: Path, config: Mapping[str, Any], name: str = "composition.json") -> Path:
    (folder / "rewards.py").write_text(REWARDS)
    (folder / name).write_text(json.dumps(config))
    return folder / name


def run(folder: Path, **changes: Any) -> Composition:
    with Composer.from_config(write(folder, composition(**changes))) as composer:
        return composer.compose(BATCH)


def asked(folder: Path) -> list[str]:
    file = folder / "asked.txt"
    return file.read_text().split() if file.exists() else []


def test_the_ledger_knows_who_was_not_asked(tmp_path: Path) -> None:
    """Explained and reported from the record it is the composition of the moment; a score is paid for once."""
    made = run(tmp_path)
    assert asked(tmp_path) == ["aaaa", "bbbbbb", "aa?bbb"]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        (kept,) = recorded_compositions(ledger, ledger.run())
        (again,) = recorded_compositions(ledger, ledger.run(), tmp_path / "composition.json")
        exported = [*ledger.rows()]
    assert kept.to_records() == made.to_records() == again.to_records()
    assert [str(kept.explain(row)) for row in range(6)] == [str(made.explain(row)) for row in range(6)]
    assert kept.metrics()["reward/judge/not_asked"] == 3.0
    assert kept.batch.columns == {"domain": DOMAINS}
    assert exported[0]["rewards"]["judge"]["not_asked"] == "needs quality >= 0.4, and quality scored 0.1"
    assert run(tmp_path, least=0.1).rewards["judge"].cached.tolist() == [False, False, True, True, False, False]
    assert asked(tmp_path) == ["aaaa", "bbbbbb", "aa?bbb", "a", "aa", "aa?bbb"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"least": 0.5},
        {"otherwise": -1},
        {"otherwise": "abstain", "weight": 3},
        {"when": [{"reward": "quality", "min": 0.4}, {"column": "domain", "in": ["x"]}]},
    ],
)
def test_what_if_says_what_stricter_conditions_would_have_given(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Equal to composing anew, where no row would be asked about that was not."""
    run(tmp_path)
    other = write(tmp_path, composition(**changes) | {"ledger": False}, "other.json")
    result = what_if(tmp_path / "ledger.sqlite", other)
    with Composer.from_config(other) as composer:
        expected = composer.compose(BATCH).totals
    np.testing.assert_array_equal(result.new_totals, expected)
    np.testing.assert_array_equal(result.new_advantages, group_advantages(expected, np.array([0, 0, 0, 1, 1, 1])))
    assert not result.unknown.any()
    assert result.unrecorded == {}


def test_what_if_invents_no_score_of_a_row_that_was_not_asked_about(tmp_path: Path) -> None:
    """Such a row has no new total, its group no new advantages, and it is said which reward lacks how many."""
    before = run(tmp_path)
    other = write(tmp_path, composition(least=0.2), "other.json")
    with pytest.warns(UserWarning, match="'judge' would be asked about 1 rows that it was not asked about"):
        result = what_if(tmp_path / "ledger.sqlite", other)
    expected = before.totals.copy()
    expected[1] = np.nan
    np.testing.assert_array_equal(result.new_totals, expected)
    np.testing.assert_array_equal(result.unknown, [True, True, True, False, False, False])
    assert np.isnan(result.new_advantages[:3]).all()
    assert result.unrecorded == {"judge": 1}
    summary = result.summary()
    assert {key: summary[key] for key in ("compared", "unknown", "lost")} == {"compared": 3, "unknown": 3, "lost": 0}


def test_what_if_without_the_conditions_or_with_others_behind_them(tmp_path: Path) -> None:
    """A missing score is no failure: not even where the policy for failures is to raise, or a later reward waits."""
    run(tmp_path)
    config = composition(on_failure="raise")
    del config["rewards"]["judge"]["when"], config["rewards"]["judge"]["otherwise"]
    other = write(tmp_path, config, "other.json")
    with pytest.warns(UserWarning, match="about 3 rows"):
        result = what_if(tmp_path / "ledger.sqlite", other)
    assert np.isnan(result.new_totals).tolist() == [True, True, False, False, False, True]


def test_what_if_refuses_a_column_that_was_not_recorded(tmp_path: Path) -> None:
    """Only the columns are recorded that conditions look at."""
    run(tmp_path)
    other = write(tmp_path, composition(when={"column": "level", "in": [1]}), "other.json")
    with pytest.raises(ConfigError, match="the column 'level', which is not recorded") as refusal:
        what_if(tmp_path / "ledger.sqlite", other)
    assert "domain" in str(refusal.value)


def test_commands_show_who_was_not_asked(tmp_path: Path) -> None:
    """``rlaif score``, ``--check``, ``rlaif explain``, ``rlaif what-if`` and the page of ``rlaif report``."""
    config = write(tmp_path, composition())
    table = tmp_path / "rows.jsonl"
    rows = [{"prompt": "p", "completion": text, "domain": domain} for text, domain in zip(TEXTS, DOMAINS, strict=True)]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = CliRunner()

    def said(*arguments: object) -> str:
        result = command.invoke(app, [*map(str, arguments)])
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    checked = said("score", table, "--config", config, "--output", tmp_path / "scored.jsonl", "--check")
    assert "reward 'judge' was only made ready, and not asked about row 1" in checked
    assert asked(tmp_path) == []
    summary = said("score", table, "--config", config, "--output", tmp_path / "scored.jsonl")
    assert "reward scored failed not asked mean" in summary
    assert "judge 2 0 3" in summary
    first = json.loads((tmp_path / "scored.jsonl").read_text().splitlines()[0])
    assert first["reward"]["rewards"]["judge"]["status"] == "not asked"
    assert "not asked" in said("explain", tmp_path / "ledger.sqlite", "--row", 1)
    assert "unknown" in said("what-if", tmp_path / "ledger.sqlite", "--config", config)
    said("report", tmp_path / "ledger.sqlite", "--output", tmp_path / "report.html")
    assert "not asked" in (tmp_path / "report.html").read_text()


def test_the_server_says_who_was_not_asked(tmp_path: Path) -> None:
    """In the details of a row; the row itself is scored."""
    config = write(tmp_path, composition() | {"ledger": False})
    with TestClient(create_app(config)) as client:
        body = {"rows": [{"prompt": "p", "completion": "a", "columns": {"domain": "x"}}], "detail": True}
        answer = client.post("/v1/score", json=body).json()["rows"][0]
    assert (answer["status"], answer["total"]) == ("scored", pytest.approx(0.1))
    assert answer["rewards"]["judge"]["status"] == "not asked"
    assert answer["rewards"]["judge"]["reason"] == "needs quality >= 0.4, and quality scored 0.1"


def test_completions_that_only_a_condition_tells_apart_are_two(tmp_path: Path) -> None:
    """A measurement scores equal completions once; a column that a condition looks at makes them unequal."""
    config = write(tmp_path, composition(least=0.0) | {"ledger": False})
    candidates = [Candidate("p", "aa", {"domain": domain, "other": domain}) for domain in ("x", None, "x")]
    with Composer.from_config(config) as composer:
        composer.components["quality"].reward.inputs = ()
        scored = ScoredCompletions(composer, candidates)
    np.testing.assert_allclose(scored.totals(), [2.2, 0.2, 2.2])
    assert scored.repeated == 1
