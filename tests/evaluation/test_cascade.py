"""Where a cheap judge may be believed, learnt from a ledger, against what was put into it."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rlaif_sdk import Composer, RewardBatch
from rlaif_sdk.cli.main import app
from rlaif_sdk.composer import RewardCondition
from rlaif_sdk.composer.ledger import Ledger
from rlaif_sdk.evaluation import calibrate_cascade
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.scoring import CheckedScores
from rlaif_sdk.testing import FixedReward


def recorded(path: Path, cheap: list[float], strong: list[float | None], group_size: int = 4) -> Path:
    """A ledger of both judges' scores."""
    file = path / "ledger.sqlite"
    rows = len(cheap)
    group = None if group_size == 1 else [row // group_size for row in range(rows)]
    rewards = {"quick": FixedReward(cheap), "thorough": FixedReward(strong)}
    with Composer(rewards, ledger=Ledger(file, cache=False)) as composer:
        composer.compose(RewardBatch(["p"] * rows, [f"c{row}" for row in range(rows)], group=group))
    return file


def unsure_in_the_middle(rows: int = 400) -> tuple[list[float], list[float]]:
    """A cheap judge that is right below 0.3 and above 0.7, and guesses between."""
    draw = np.random.default_rng(3)
    strong = draw.random(rows)
    cheap = np.where((strong > 0.3) & (strong < 0.7), draw.uniform(0.3, 0.7, rows), strong)
    return cheap.tolist(), strong.tolist()


@pytest.mark.parametrize("group_size", [1, 4])
def test_the_band_is_where_the_cheap_judge_guesses(tmp_path, group_size):
    with Ledger.find(recorded(tmp_path, *unsure_in_the_middle(), group_size)) as ledger:
        curve = calibrate_cascade(ledger, "quick", "thorough")
    agreements = [point.agreement.value for point in curve.points]
    assert [curve.points[0].asked, curve.points[-1].asked] == [0.0, 1.0]
    assert agreements[0] < 0.95
    assert agreements[-1] == 1.0
    chosen = curve.cheapest(0.99)
    assert 0.25 < chosen.least < 0.35
    assert 0.65 < chosen.greatest < 0.75
    assert 0.3 < chosen.asked < 0.5
    assert curve.points[0].least > curve.points[0].greatest


def test_the_curve_is_what_the_cascade_then_gives(tmp_path):
    """A slow reference: bands chosen by all rows, their asked shares and differences counted one by one."""
    cheap, strong = unsure_in_the_middle()
    with Ledger.find(recorded(tmp_path, cheap, strong)) as ledger:
        curve = calibrate_cascade(ledger, "quick", "thorough")
    for point in curve.points:
        inside = [point.least <= value <= point.greatest for value in cheap]
        assert sum(inside) / len(cheap) == pytest.approx(point.asked, abs=0.08)
        errors = [0.0 if asked else abs(a - b) for asked, a, b in zip(inside, cheap, strong, strict=True)]
        assert sum(errors) / len(errors) == pytest.approx(point.difference, abs=0.01)


def test_a_band_is_measured_on_rows_that_did_not_choose_it(tmp_path):
    """A single slip in the middle is asked about by the band that it chose itself, and by no other."""
    cheap = [row / 40 for row in range(40)]
    with Ledger.find(recorded(tmp_path, cheap, [*cheap[:20], 10.0, *cheap[21:]], group_size=1)) as ledger:
        curve = calibrate_cascade(ledger, "quick", "thorough")
    assert curve.points[1].difference == pytest.approx(9.5 / 40)
    assert (curve.points[1].least, curve.points[1].greatest) == (19 / 40, 20 / 40)


def test_the_pairs_of_a_large_group_are_bounded_and_say_the_same(tmp_path):
    """All pairs of two groups of 2,000 would be 4 million, each with several numbers."""
    cheap, strong = unsure_in_the_middle(4000)
    with Ledger.find(recorded(tmp_path, cheap, strong, group_size=2000)) as ledger:
        tracemalloc.start()
        curve = calibrate_cascade(ledger, "quick", "thorough")
        _, most_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most_bytes < 40_000_000
    known_N, said_N = np.array(strong), np.array(cheap)
    same = (np.sign(known_N[:, None] - known_N) == np.sign(said_N[:, None] - said_N))[np.triu_indices(4000, 1)]
    assert curve.points[0].agreement.value == pytest.approx(same.mean(), abs=0.01)


def test_the_condition_asks_about_the_rows_of_the_band(tmp_path):
    """Also where many rows have the score at its end, and that has more digits than people read."""
    cheap = [place % 4 / 3 for place in range(200)]
    strong = [value if value < 0.5 else 1 - place / 400 for place, value in enumerate(cheap)]
    with Ledger.find(recorded(tmp_path, cheap, strong)) as ledger:
        (point, *_) = [point for point in calibrate_cascade(ledger, "quick", "thorough").points if point.least == 2 / 3]
    asked = RewardCondition(**point.condition("quick")).met(None, {"quick": CheckedScores(np.array(cheap), {}, cheap)})
    assert asked.tolist() == [point.least <= value <= point.greatest for value in cheap]
    assert asked.sum() >= 50


def test_only_answers_to_one_prompt_are_compared(tmp_path):
    """Two batches whose labels are equal are not of one group, and what the strong judge ties is no pair."""
    file = tmp_path / "ledger.sqlite"
    with Composer({"quick": rising, "thorough": shifted}, ledger=Ledger(file, cache=False)) as composer:
        for shift in (0, 1):
            answers = [f"{shift} {place // 2}" for place in range(40)]
            composer.compose(RewardBatch(["p"] * 40, answers, group=["one"] * 40))
    with Ledger.find(file) as ledger:
        curve = calibrate_cascade(ledger, "quick", "thorough")
    assert {point.agreement.value for point in curve.points[::20]} == {1.0}
    assert curve.points[0].agreement.n == 2 * (40 * 39 // 2 - 20)


def rising(completion_texts):
    return [float(text.split()[1]) for text in completion_texts]


def shifted(completion_texts):
    """The same order within a batch, and another scale in each."""
    return [float(place) - 100 * float(batch) for batch, place in map(str.split, completion_texts)]


def test_a_cheap_judge_that_only_guesses_saves_nothing(tmp_path):
    draw = np.random.default_rng(5)
    with Ledger.find(recorded(tmp_path, draw.random(400).tolist(), draw.random(400).tolist())) as ledger:
        curve = calibrate_cascade(ledger, "quick", "thorough")
    assert curve.points[0].agreement.low < 0.5 < curve.points[0].agreement.high
    assert curve.cheapest(0.99).asked > 0.9


def test_rows_that_the_strong_judge_was_not_asked_about_are_counted(tmp_path):
    cheap, strong = unsure_in_the_middle()
    with Ledger.find(recorded(tmp_path, cheap, [*strong[:300], *[None] * 100])) as ledger:
        curve = calibrate_cascade(ledger, "quick", "thorough")
    assert (curve.rows, curve.unasked) == (300, 100)


@pytest.mark.parametrize(
    ("cheap", "rows", "group_size", "said"),
    [
        ("fast", 400, 4, "no reward 'fast' in run 1.*quick, thorough"),
        ("quick", 20, 4, "20 rows have a score of both"),
        ("quick", 100, 100, "all rows answer one prompt"),
    ],
)
def test_what_cannot_be_calibrated_is_named(tmp_path, cheap, rows, group_size, said):
    with (
        Ledger.find(recorded(tmp_path, *unsure_in_the_middle(rows), group_size)) as ledger,
        pytest.raises(DataError, match=said),
    ):
        calibrate_cascade(ledger, cheap, "thorough")


def test_equal_verdicts_leave_nothing_to_agree_about(tmp_path):
    """A constant strong judge orders nothing; that is no agreement of 1."""
    file = recorded(tmp_path, unsure_in_the_middle()[0], [1.0] * 400)
    with Ledger.find(file) as ledger:
        assert {point.agreement.n for point in calibrate_cascade(ledger, "quick", "thorough").points} == {0}
    result = CliRunner().invoke(app, ["judge", "calibrate", str(file), "--cheap", "quick", "--strong", "thorough"])
    assert result.exit_code == 1
    assert "no band keeps 95.0% of the order" in result.stderr
    assert "no pairs" in result.stdout
    assert "nan" not in result.stdout


@pytest.mark.parametrize(
    ("errors", "agreement", "said"),
    [
        (0.0, "0.95", "quick alone: thorough need not be asked  # 100.0% of the order kept"),
        (1.0, "1", "rewards.thorough: no 'when', it must be asked always  # 100% of the rows asked"),
    ],
)
def test_the_command_says_where_no_condition_helps(tmp_path, errors, agreement, said):
    """A cheap judge that never errs, and one that always may."""
    draw = np.random.default_rng(7)
    strong = draw.random(400)
    file = recorded(tmp_path, (strong + errors * draw.standard_normal(400)).tolist(), strong.tolist())
    arguments = ["judge", "calibrate", str(file), "--cheap", "quick", "--strong", "thorough", "--agreement", agreement]
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stdout.splitlines()[-1][: len(said)]) == (0, said)


def test_the_command_prints_the_condition_to_write(tmp_path):
    file = recorded(tmp_path, *unsure_in_the_middle())
    arguments = ["judge", "calibrate", str(file), "--cheap", "quick", "--strong", "thorough", "--agreement", "0.99"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "400 rows with both scores" in result.stdout
    assert "rewards.thorough.when: {reward: quick, min: 0.3" in result.stdout
    chosen = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)["chosen"]
    assert chosen["agreement"]["value"] >= 0.99
