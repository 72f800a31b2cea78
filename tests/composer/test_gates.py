from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk import Composer, ConfigError, RewardBatch, Score
from rlaif_sdk.composer import Component, FailurePolicy, Gate
from rlaif_sdk.testing import FixedReward

numbers = st.floats(-1e6, 1e6)
maybe = st.none() | numbers


def compose(rewards: dict, gates: list[Gate], rows: int):
    batch = RewardBatch(prompts=["a"] * rows, completions=["b"] * rows)
    with Composer(rewards, gates=gates) as composer:
        return composer.compose(batch)


def test_a_gate_bounds_the_whole_sum_and_not_its_own_reward_alone() -> None:
    """However good the rest is, a toxic answer gets no more than the floor."""
    rewards = {
        "quality": FixedReward([10.0, 10.0, -5.0]),
        "toxicity": Component(FixedReward([0.1, 0.9, 0.9]), weight=0.0),
    }
    composition = compose(rewards, [Gate("toxicity", floor=-1.0, max=0.5)], 3)
    assert composition.to_list() == [10.0, -1.0, -5.0]
    assert composition.before_gates.tolist() == [10.0, 10.0, -5.0]
    assert composition.metrics()["gate/toxicity/closed"] == pytest.approx(2 / 3)


def test_the_bounds_themselves_pass() -> None:
    """`min` is the least score that passes, `max` the greatest."""
    composition = compose({"a": FixedReward([0.0, 1.0, -0.01, 1.01])}, [Gate("a", floor=-9.0, min=0.0, max=1.0)], 4)
    assert composition.to_list() == [0.0, 1.0, -9.0, -9.0]


@pytest.mark.parametrize(("on_missing", "total"), [("unscored", None), ("floor", -1.0), ("pass", 4.0)])
def test_a_row_whose_gate_has_no_score_goes_the_stated_way(on_missing, total) -> None:
    """Fail closed, fail open or stay out: the config says which."""
    rewards = {
        "a": FixedReward(2.0),
        "g": Component(FixedReward([Score.failed("outage")]), failure=FailurePolicy(fail_fast=False)),
    }
    composition = compose(rewards, [Gate("g", floor=-1.0, min=0.0, on_missing=on_missing)], 1)
    assert composition.to_list() == [total]


def test_a_gate_sees_the_stated_default_of_a_failed_reward() -> None:
    """The default stands in everywhere."""
    component = Component(
        FixedReward([Score.failed("outage")]), failure=FailurePolicy("default", value=-3.0, fail_fast=False)
    )
    composition = compose({"a": FixedReward(2.0), "g": component}, [Gate("g", floor=-9.0, min=0.0)], 1)
    assert composition.to_list() == [-9.0]
    assert str(composition.explain(0).gates[0]) == "gate g >= 0: default, does not pass: at most -9"


def test_a_gate_sees_a_score_that_its_group_masked() -> None:
    """Masking takes a reward out of the sum; whether this row is toxic is known all the same."""
    batch = RewardBatch(prompts=["a"] * 2, completions=["b"] * 2, group=[0, 0])
    rewards = {"a": FixedReward(2.0), "g": FixedReward([-1.0, Score.failed("outage")])}
    with Composer(rewards, gates=[Gate("g", floor=-9.0, min=0.0, on_missing="pass")]) as composer:
        assert composer.compose(batch).to_list() == [-9.0, 4.0]


@given(
    scores=st.lists(st.tuples(maybe, maybe), min_size=1, max_size=8),
    floors=st.lists(numbers, min_size=1, max_size=3),
    bound=numbers,
    on_missing=st.sampled_from(["unscored", "floor", "pass"]),
)
def test_no_gate_ever_raises_a_total(scores, floors, bound, on_missing) -> None:
    """Failing a gate never helps a row, whatever the floor."""
    gates = [Gate("g", floor=floor, min=bound, on_missing=on_missing) for floor in floors]
    rewards = {"a": FixedReward([a for a, _ in scores]), "g": FixedReward([g for _, g in scores])}
    composition = compose(rewards, gates, len(scores))
    scored = ~np.isnan(composition.totals)
    assert (composition.totals[scored] <= composition.before_gates[scored]).all()
    closed = scored & composition.gates[0][1]
    assert (composition.totals[closed] <= min(floors)).all()
    assert not (scored & np.isnan(composition.before_gates)).any()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"floor": math.nan, "min": 0.0}, "floor must be a finite number, not nan"),
        ({"floor": True, "min": 0.0}, "floor must be a finite number, not True"),
        ({"floor": 0.0, "min": math.inf}, "min must be a finite number"),
        ({"floor": 0.0, "max": "1"}, "max must be a finite number"),
        ({"floor": 0.0}, "needs min, max or both"),
        ({"floor": 0.0, "min": 2.0, "max": 1.0}, "nothing would pass"),
        ({"floor": 0.0, "min": 0.0, "on_missing": "ignore"}, "on_missing is one of"),
    ],
)
def test_a_gate_that_makes_no_sense_is_refused_in_python_too(fields: dict, problem: str) -> None:
    """A NaN floor would turn every closed row into NaN."""
    with pytest.raises(ConfigError, match=problem):
        Gate("a", **fields)


def test_a_gate_on_an_unknown_reward_is_refused() -> None:
    """It would never close."""
    with pytest.raises(ConfigError, match="a gate names 'toxicty'; there are toxicity"):
        Composer({"toxicity": FixedReward(0.0)}, gates=[Gate("toxicty", floor=0.0, min=0.0)])
