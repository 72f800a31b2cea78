"""Panels and cascades against slow references, and the spread of a group as a number of its own."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk import Composer, Composition, ConfigError, RewardBatch, Score, SubScore
from rlaif_sdk.composer import Component
from rlaif_sdk.composer.aggregators import RewardGroup
from rlaif_sdk.composer.normalizers import MinMax
from rlaif_sdk.composer.panels import Cascade, Panel, PanelParams, spread
from rlaif_sdk.testing import FixedReward

Member = tuple[float | None, int]
"""A value, and a weight that is a whole number, so that the reference can repeat it."""

members = st.lists(st.tuples(st.none() | st.floats(-3, 3), st.integers(0, 3)), min_size=1, max_size=6)


def repeated(panel: list[Member]) -> list[float]:
    """Each value as often as its weight says, in order."""
    return sorted(value for value, weight in panel for _ in range(weight) if value is not None)


def panel_value(panel: list[Member], **params: Any) -> float:
    values_RB = np.array([[math.nan if value is None else value] for value, _ in panel])
    totals_B, shares_RB = Panel(PanelParams(**params)).aggregate(values_RB, np.array([float(w) for _, w in panel]))
    if not math.isnan(totals_B[0]):
        assert np.nansum(shares_RB) == pytest.approx(totals_B[0], abs=1e-9)
    return float(totals_B[0])


def trimmed_slowly(values: list[float], trim: float, steps: int = 2000) -> float:
    """The mean of the quantile function between the two cuts, by the midpoint rule."""
    places = [trim + (1 - 2 * trim) * (step + 0.5) / steps for step in range(steps)]
    return statistics.fmean(values[min(int(place * len(values)), len(values) - 1)] for place in places)


@given(members)
def test_a_panel_is_what_statistics_says_of_its_members(panel):
    values = repeated(panel)
    if not values:
        assert all(math.isnan(panel_value(panel, by=by)) for by in ("mean", "median", "trimmed", "worst", "majority"))
        return
    assert panel_value(panel, by="mean") == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert panel_value(panel, by="median") == pytest.approx(statistics.median(values), abs=1e-9)
    assert panel_value(panel, by="worst") == pytest.approx(values[0], rel=1e-12)
    yes = sum(value >= 0.5 for value in values) / len(values)
    assert panel_value(panel, by="majority") == pytest.approx(0.5 if yes == 0.5 else float(yes > 0.5))
    assert panel_value(panel, by="trimmed", trim=0.25) == pytest.approx(trimmed_slowly(values, 0.25), abs=0.02)
    doubt = statistics.pstdev(values) if sum(w > 0 and v is not None for v, w in panel) > 1 else 0.0
    assert panel_value(panel, by="mean", doubt=2) == pytest.approx(statistics.fmean(values) - 2 * doubt, abs=1e-6)


@given(members)
def test_trimming_nothing_is_the_mean_and_trimming_nearly_half_is_the_median(panel):
    assert panel_value(panel, by="trimmed", trim=0) == pytest.approx(
        panel_value(panel, by="mean"), nan_ok=True, abs=1e-9
    )
    almost = panel_value(panel, by="trimmed", trim=0.5 - 1e-9)
    assert almost == pytest.approx(panel_value(panel, by="median"), nan_ok=True, abs=1e-6)


@given(members)
def test_a_cascade_is_its_last_member_that_was_asked(panel):
    values_RB = np.array([[math.nan if value is None else value] for value, _ in panel])
    totals_B, _ = Cascade().aggregate(values_RB, np.array([float(weight) for _, weight in panel]))
    asked = [value for value, weight in panel if value is not None and weight]
    assert totals_B[0] == pytest.approx(asked[-1] if asked else math.nan, nan_ok=True)


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=6), st.integers(0, 5), st.floats(0, 3))
def test_a_little_doubt_never_punishes_a_better_value(values, member, rise):
    """Up to 1 / sqrt(n - 1) spreads; of more, one member that rises alone pays more for the spread than it adds."""
    better = [*values]
    better[member % len(values)] += rise
    doubt = 1 / math.sqrt(len(values) - 1)
    before, after = (panel_value([(value, 1) for value in row], doubt=doubt) for row in (values, better))
    assert after >= before - 1e-9
    assert panel_value([(0, 1), (0, 1), (3, 1)], doubt=1) < panel_value([(0, 1), (0, 1), (0, 1)], doubt=1)


def composed(group: RewardGroup, **scores: list[float | None]) -> Composition:
    rewards = {name: Component(FixedReward(column)) for name, column in scores.items()}
    with Composer(rewards, groups={"quality": group}) as composer:
        rows = len(next(iter(scores.values())))
        return composer.compose(RewardBatch(["p"] * rows, ["c"] * rows))


def test_doubt_lowers_what_the_judges_disagree_about():
    """Both rows have the mean 0.5; the second's judges are 0.5 apart from it."""
    group = RewardGroup(["a", "b"], 2.0, Panel(PanelParams(doubt=1.0)))
    composition = composed(group, a=[0.5, 0.0], b=[0.5, 1.0])
    assert composition.totals.tolist() == [1.0, 0.0]


def test_the_spread_is_a_number_of_its_own_wherever_a_composition_is_shown():
    group = RewardGroup(["a", "b", "c"], 1.0, Panel(PanelParams(by="median")))
    composition = composed(group, a=[0.0, 1.0, 1.0], b=[1.0, 1.0, None], c=[None, 1.0, None])
    assert composition.spreads()["quality"].tolist()[:2] == [0.5, 0.0]
    assert composition.metrics()["group/quality/spread"] == 0.25
    assert [record["spreads"]["quality"] for record in composition.to_records()] == [0.5, 0.0, None]
    assert composition.to_pandas()["quality/spread"].tolist()[:2] == [0.5, 0.0]
    assert "group quality: weight 1, of a, b, c, made by Panel; spread 0.5" in str(composition.explain(0))
    assert "spread" not in str(composition.explain(2))


def test_one_member_alone_has_no_spread_and_loses_nothing_to_doubt():
    assert math.isnan(spread(np.array([[1.0], [math.nan]]), np.ones(2))[0])
    assert panel_value([(1.0, 1), (None, 1)], doubt=3) == 1.0


unsure = st.tuples(st.floats(-3, 3), st.integers(1, 3), st.floats(0.1, 2))


@given(st.lists(unsure, min_size=1, max_size=5))
def test_a_panel_by_certainty_weighs_by_the_inverse_of_the_variance(panel):
    values, weights, deviations = (np.array(part, dtype=float) for part in zip(*panel, strict=True))
    by_certainty = Panel(PanelParams(certainty=True))
    totals_B, shares_RB = by_certainty.aggregate_unsure(values[:, None], weights, deviations[:, None])
    precisions = weights / deviations**2
    assert totals_B[0] == pytest.approx((precisions * values).sum() / precisions.sum(), abs=1e-9)
    assert shares_RB.sum() == pytest.approx(totals_B[0], abs=1e-9)


def test_certainty_that_is_not_said_is_that_of_the_least_sure():
    """And where no member says it, the weights are those of the config."""
    panel, values_RB = Panel(PanelParams(certainty=True)), np.array([[0.0], [1.0], [1.0]])
    unsaid = math.nan
    for said, total in (([0.2, 0.4, unsaid], 1 / 3), ([unsaid] * 3, 2 / 3), ([0.0, 0.1, 0.1], 2 / 3)):
        totals_B, _ = panel.aggregate_unsure(values_RB, np.ones(3), np.array(said)[:, None])
        assert totals_B[0] == pytest.approx(total)


def _said(value: float, std: float) -> Score:
    return Score(value, subscores={"std": SubScore(std)})


def test_the_surer_judge_decides_in_a_composition():
    """The deviations are in the rewards' units, and stand on the common scale when they are compared."""
    surer, doubter = [_said(10.0, 1.0), _said(10.0, 5.0)], [_said(0.0, 0.5), _said(0.0, 0.1)]
    rewards = {
        "surer": Component(FixedReward(surer, range=(0.0, 10.0)), normalizer=MinMax()),
        "doubter": Component(FixedReward(doubter, range=(0.0, 1.0))),
    }
    group = RewardGroup(["surer", "doubter"], 1.0, Panel(PanelParams(certainty=True)))
    with Composer(rewards, groups={"quality": group}) as composer:
        composition = composer.compose(RewardBatch(["p"] * 2, ["c"] * 2))
    assert composition.totals == pytest.approx([25 / 26, 1 / 26])
    assert composition.metrics()["reward/surer/subscore/std"] == 3.0


def test_a_deviation_below_0_fails_its_row():
    with Composer({"odd": FixedReward([_said(0.5, -0.1)])}) as composer:
        composition = composer.compose(RewardBatch(["p"], ["c"], training=False))
    assert "at least 0" in composition.rewards["odd"].failures[0]


@pytest.mark.parametrize(
    ("aggregate", "said"),
    [
        ({"kind": "panel", "certainty": True, "least_std": 0}, "least_std"),
        ({"kind": "panel", "by": "mode"}, "by"),
        ({"kind": "panel", "trim": 0.5}, "trim"),
        ({"kind": "panel", "doubt": -1}, "doubt"),
        ({"kind": "cascade", "threshold": 1}, "threshold"),
    ],
)
def test_a_panel_that_means_nothing_is_refused(aggregate, said):
    config = {
        "rewards": {"conciseness": {"params": {"target": 20}}},
        "groups": {"g": {"members": ["conciseness"], "aggregate": aggregate}},
    }
    with pytest.raises(ConfigError, match=said):
        Composer.from_config(config)


@pytest.mark.parametrize("kind", ["panel", "cascade"])
def test_a_judge_of_negative_weight_is_no_member(kind):
    config = {
        "rewards": {"conciseness": {"params": {"target": 20}, "weight": -1}},
        "groups": {"g": {"members": ["conciseness"], "aggregate": kind}},
    }
    with pytest.raises(ConfigError, match="must not be negative"):
        Composer.from_config(config)
