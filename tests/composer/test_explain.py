from __future__ import annotations

import io
import math
import warnings

import pytest
from hypothesis import given, settings
from rich.console import Console

from rlaif_sdk import Composer, Composition, RewardBatch, Score
from rlaif_sdk.composer import Component, Gate
from rlaif_sdk.testing import FixedReward
from tests.composer.random_compositions import Setup, runs, setups


@pytest.fixture
def composition() -> Composition:
    rewards = {
        "quality": Component(FixedReward([2.0, 3.0, Score.failed("rate limit")]), weight=2.0),
        "brevity": Component(FixedReward([Score(1.0, reason="12 words over"), 1.0, None]), weight=-1.0),
    }
    batch = RewardBatch(prompts=["a"] * 3, completions=["b"] * 3)
    with Composer(rewards, gates=[Gate("quality", floor=0.0, max=2.5)]) as composer:
        return composer.compose(batch)


def test_a_row_is_laid_out_as_a_waterfall(composition: Composition) -> None:
    """Raw, normalised, weight, what it adds, the sum so far, and why."""
    quality, brevity = composition.explain(0).steps
    assert (quality.raw, quality.weight, quality.weighted, quality.running) == (2.0, 2.0, 4.0, 4.0)
    assert (brevity.raw, brevity.weight, brevity.weighted, brevity.running) == (1.0, -1.0, -1.0, 3.0)
    assert brevity.reason == "12 words over"
    text = str(composition.explain(0))
    assert "12 words over" in text
    assert text.splitlines()[-1].split() == ["total", "3.0000"]


def test_a_closed_gate_is_shown(composition: Composition) -> None:
    """The sum and the total differ, and the line between them says why."""
    explanation = composition.explain(1)
    assert [str(gate) for gate in explanation.gates] == ["gate quality <= 2.5: 3 does not pass: at most 0"]
    assert explanation.steps[-1].running == 5.0
    assert explanation.total == 0.0


def test_a_failed_reward_is_shown_with_its_failure(composition: Composition) -> None:
    """An unscored row says why it is unscored."""
    text = str(composition.explain(2))
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in text.splitlines()}
    assert lines["quality"] == "2 failed; rate limit"
    assert lines["brevity"] == "-1 abstained"
    assert lines["total"] == "unscored no reward with a weight has a score"
    assert lines["gate"] == "quality <= 2.5 failed, so the row is unscored"


def test_rows_count_from_the_end_too_and_end_somewhere(composition: Composition) -> None:
    """Like any sequence."""
    assert composition.explain(-1).row == 2
    for row in (3, -4):
        with pytest.raises(IndexError, match="of a composition of 3 rows"):
            composition.explain(row)


@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_row_prints_as_a_rich_table(composition: Composition, row: int) -> None:
    """The same numbers, in a terminal."""
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(composition.explain(row))
    text = console.export_text()
    assert "quality" in text
    assert ("unscored" in text) == (row == 2)


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_no_number_is_cut_in_a_narrow_terminal(composition: Composition, width: int) -> None:
    """Where the table does not fit, each reward has lines of its own."""
    explanation = composition.explain(0)
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(explanation)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for step in explanation.steps:
        assert math.isnan(step.weighted) or f"{step.weighted:+.4f}" in text
    assert f"{explanation.total:.4f}" in text


@settings(max_examples=150, deadline=None)
@given(setups(), runs())
def test_the_lines_of_an_explanation_add_up_to_the_total(setup: Setup, run: list[RewardBatch]) -> None:
    """Whatever normalizers, schedules, groups, gates, failures and constraints do, nothing is left unsaid."""
    with warnings.catch_warnings(), setup.composer() as composer:
        warnings.simplefilter("ignore")
        for batch in run:
            composition = composer.compose(batch)
            for row in range(len(batch)):
                explanation = composition.explain(row)
                if math.isnan(explanation.total):
                    assert explanation.note
                    continue
                added = math.fsum(adds for _, adds in explanation.additions())
                assert added == pytest.approx(explanation.total, abs=1e-9)
                for step in explanation.steps:
                    if not math.isnan(step.effective):
                        assert step.effective * step.normalized == pytest.approx(step.weighted, abs=1e-9)
                for text in (str(explanation), explanation._repr_html_()):
                    assert f"{explanation.total:.4f}" in text


@settings(max_examples=60, deadline=None)
@given(setups(), runs())
def test_an_explanation_that_is_asked_for_later_is_that_of_the_moment(setup: Setup, run: list[RewardBatch]) -> None:
    """What normalizers have learned since changes no word of it."""
    with warnings.catch_warnings(), setup.composer() as early, setup.composer() as late:
        warnings.simplefilter("ignore")
        at_once = [[str(each.explain(row)) for row in range(len(each))] for each in map(early.compose, run)]
        composed = [late.compose(batch) for batch in run]
        assert [[str(each.explain(row)) for row in range(len(each))] for each in composed] == at_once


@pytest.mark.parametrize(("score", "added"), [(4.0, -4.0), (-3.0, 0.0)])
def test_a_closed_gate_adds_nothing_to_what_is_below_its_floor(score: float, added: float) -> None:
    """It gives at most its floor."""
    rewards = {"a": Component(FixedReward(score)), "b": Component(FixedReward(9.0), weight=0.0)}
    with Composer(rewards, gates=[Gate("b", floor=0.0, max=1.0)]) as composer:
        explanation = composer.compose(RewardBatch(prompts=["p"], completions=["c"])).explain(0)
    assert explanation.gates[0].adds == added
