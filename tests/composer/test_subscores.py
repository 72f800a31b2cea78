"""What a score is made of travels with it: through processes and ledgers, to explanations, metrics and records."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rlaif_sdk import Composer, RewardBatch, Score, SubScore, reward
from rlaif_sdk.composer.ledger import Ledger
from rlaif_sdk.testing import FixedReward

BATCH = RewardBatch(["Why?"] * 2, ["Because of section 12.", "So."])
CITES = SubScore(1.0, weight=2.0, reason="met", evidence=("section 12",))
MISSED = SubScore(0.0, weight=2.0, reason="not met")
SCORES = [
    Score(2 / 3, subscores={"cites": CITES, "brief": SubScore(0.0, 1.0), "#1": SubScore(1.0, per_row=True)}),
    Score(1 / 3, subscores={"cites": MISSED, "brief": SubScore(1.0, 1.0), "#1": SubScore(0.0, per_row=True)}),
]


@reward
def made_of_parts(completion_texts: list[str]) -> list[Score]:
    """A reward with two parts, for a process of its own."""
    return [Score(0.5, subscores={"cites": CITES}) for _ in completion_texts]


def test_an_explanation_shows_each_part_below_its_reward() -> None:
    """A reader sees which criterion was missed, what it weighs and what was quoted, in the table and as JSON."""
    with Composer({"rubric": FixedReward(SCORES)}) as composer:
        explanation = composer.compose(BATCH).explain(0)
    lines = str(explanation).splitlines()
    (cites,) = (line for line in lines if line.lstrip().startswith("rubric/cites"))
    assert cites.split()[1:3] == ["1.0000", "2"]
    assert "met: \u201csection 12\u201d" in cites
    said = json.loads(json.dumps(explanation.record()))["rewards"]["rubric"]["subscores"]
    assert said["cites"] == {"value": 1.0, "weight": 2.0, "reason": "met", "evidence": ["section 12"]}
    assert math.isclose(sum(added for _, added in explanation.additions()), explanation.total)


def test_metrics_average_each_part_and_leave_out_those_of_a_row_alone() -> None:
    """A training log has one number a criterion, and does not grow with the rows' own."""
    with Composer({"rubric": FixedReward(SCORES)}) as composer:
        metrics = composer.compose(BATCH).metrics()
    found = {name: value for name, value in metrics.items() if "/subscore/" in name}
    assert found == {"reward/rubric/subscore/cites": 0.5, "reward/rubric/subscore/brief": 0.5}


def test_a_part_without_a_value_is_not_averaged_as_zero() -> None:
    """What could not be judged is missing."""
    scores = [Score(1.0, subscores={"a": SubScore(1.0)}), Score(1.0, subscores={"a": SubScore(None, reason="no")})]
    with Composer({"rubric": FixedReward(scores)}) as composer:
        assert composer.compose(BATCH).metrics()["reward/rubric/subscore/a"] == 1.0


@pytest.mark.parametrize("bad", [SubScore(math.nan), SubScore(1.0, weight=math.inf), SubScore("x"), 0.5])  # type: ignore[arg-type]
def test_a_part_that_is_no_number_fails_its_row(bad: Any) -> None:
    """As a score that is none does, by name."""
    scores = [Score(1.0, subscores={"cites": bad}), Score(1.0)]
    with Composer({"rubric": FixedReward(scores)}) as composer:
        failures = composer.compose(BATCH).rewards["rubric"].failures
    assert failures == {0: "gave the sub-score 'cites', which is no SubScore of finite numbers"}


def test_a_row_that_failed_still_says_what_is_known_of_it() -> None:
    """Which criterion failed is seen in the explanation, and averaged nowhere."""
    failed = Score(None, error="one criterion failed", subscores={"cites": CITES, "brief": SubScore(None)})
    with Composer({"rubric": FixedReward([failed, Score(1.0)])}) as composer:
        composition = composer.compose(BATCH)
    assert composition.explain(0).steps[0].subscores["cites"] == CITES
    assert not [name for name in composition.metrics() if "/subscore/" in name]


def test_parts_come_back_from_a_process_of_its_own(tmp_path: Path) -> None:
    """Isolation changes nothing of what a reward says."""
    config = {
        "rewards": {
            "parts": {"use": f"{Path(__file__).resolve()}:made_of_parts", "execution": {"isolation": "process"}}
        }
    }
    with Composer.from_config(config) as composer:
        composition = composer.compose(BATCH)
    assert composition.rewards["parts"].subscores(0) == {"cites": CITES}


def test_a_ledger_keeps_parts_and_its_record_explains_with_them(tmp_path: Path) -> None:
    """A score out of the cache, and a row explained from the record, say the same as the first time."""
    for known in (False, True):
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            with Composer({"parts": made_of_parts}, ledger=ledger) as composer:
                column = composer.compose(BATCH).rewards["parts"]
            assert column.subscores(0) == {"cites": CITES}
            assert column.status(0) == ("cached" if known else "scored")
            (*_, run) = ledger.runs()
            (entry,) = ledger.batches(run)
        assert entry.composition(run.rewards).explain(0).steps[0].subscores == {"cites": CITES}


def test_a_scored_row_records_its_parts() -> None:
    """`rlaif score` writes them; a reward without parts has no key for them."""
    with Composer({"rubric": FixedReward(SCORES), "plain": FixedReward(1.0)}) as composer:
        first, _ = composer.compose(BATCH).to_records()
    assert first["rewards"]["rubric"]["subscores"]["brief"] == {"value": 0.0, "weight": 1.0}
    assert "subscores" not in first["rewards"]["plain"]
