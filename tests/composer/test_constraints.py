from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk import Composer, ConfigError, Registry, Reward, RewardBatch, Score
from rlaif_sdk.composer import Component, FailurePolicy
from rlaif_sdk.composer.constraints import Constraint
from rlaif_sdk.exceptions import StateError

ABSTAIN = FailurePolicy()
AT_MOST = Constraint("toxicity", max=0.1, step_size=0.5)


class Column(Reward):
    """Gives what stands in the column of its name."""

    def __init__(self, name: str, *, higher_is_better: bool = True) -> None:
        self.columns = (name,)
        self.higher_is_better = higher_is_better

    def score(self, batch: RewardBatch) -> list:
        return list(batch.column(self.columns[0]))


def composer(*constraints: Constraint, policy: FailurePolicy = ABSTAIN) -> Composer:
    rewards = {
        "helpfulness": Column("helpfulness"),
        "toxicity": Component(Column("toxicity", higher_is_better=False), weight=0.0, failure=policy),
    }
    return Composer(rewards, constraints=constraints or [AT_MOST])


def batch(toxicity: list, *, helpfulness: float = 1.0, training: bool = True) -> RewardBatch:
    rows = len(toxicity)
    columns = {"toxicity": toxicity, "helpfulness": [helpfulness] * rows}
    return RewardBatch(["p"] * rows, ["c"] * rows, columns=columns, training=training)


def test_the_multiplier_rises_by_its_step_size_times_the_mean_violation() -> None:
    """By hand: 0 + 0.5 x (0.5 - 0.1), in force from the next batch on."""
    with composer() as composed:
        assert composed.compose(batch([0.2, 0.8])).totals.tolist() == [1.0, 1.0]
        second = composed.compose(batch([0.1, 0.6]))
    assert second.metrics()["constraint/toxicity/max/multiplier"] == pytest.approx(0.2)
    assert second.metrics()["constraint/toxicity/max/violation"] == pytest.approx(0.25)
    assert second.totals.tolist() == pytest.approx([1.0, 1.0 - 0.2 * 0.5])


def test_the_multiplier_falls_to_0_and_no_further_while_there_is_room() -> None:
    """A constraint that holds costs nothing in the end."""
    with composer(Constraint("toxicity", max=0.1, step_size=0.5, initial=0.2)) as composed:
        multipliers = [composed.compose(batch([0.0])).constraints[0].multiplier for _ in range(8)]
    assert multipliers == pytest.approx([0.2, 0.15, 0.1, 0.05, 0.0, 0.0, 0.0, 0.0])


def test_a_least_mean_is_a_constraint_too() -> None:
    """``min`` pushes up what ``max`` would push down."""
    with composer(Constraint("helpfulness", min=2.0, step_size=0.1)) as composed:
        composed.compose(batch([0.0], helpfulness=1.0))
        composition = composed.compose(batch([0.0], helpfulness=3.0))
    assert composition.constraints[0].multiplier == pytest.approx(0.1)
    assert composition.totals.tolist() == pytest.approx([3.0 + 0.1 * 1.0])


def test_a_ceiling_bounds_the_multiplier_of_a_constraint_that_cannot_be_met() -> None:
    """It does not drown everything else."""
    with composer(Constraint("toxicity", max=0.1, step_size=5.0, ceiling=3.0)) as composed:
        assert [composed.compose(batch([1.0])).constraints[0].multiplier for _ in range(3)] == [0.0, 3.0, 3.0]


@given(
    st.lists(st.lists(st.floats(-2, 2) | st.none(), max_size=4), max_size=6),
    st.floats(0.01, 2),
    st.floats(0, 3),
    st.sampled_from(["min", "max"]),
)
def test_the_multiplier_follows_projected_dual_ascent(
    run: list[list[float | None]], step_size: float, initial: float, side: str
) -> None:
    """Beside a slow reference; batches without scores change nothing; it is never negative."""
    expected = initial
    constraint = Constraint("toxicity", step_size=step_size, initial=initial, **{side: 0.3})
    with composer(constraint) as composed:
        for toxicity in run:
            found = composed.compose(batch(toxicity)).constraints[0].multiplier
            assert found == pytest.approx(expected, abs=1e-12)
            assert found >= 0
            present = [score for score in toxicity if score is not None]
            if present:
                mean = sum(present) / len(present)
                violation = mean - 0.3 if side == "max" else 0.3 - mean
                expected = max(0.0, expected + step_size * violation)


def test_a_policy_that_trades_the_two_rewards_meets_the_constraint() -> None:
    """Dual ascent against a policy that follows the gradient of its reward: it ends at the bound, not at an extreme."""
    share, shares = 0.9, []
    with composer(Constraint("toxicity", max=0.1, step_size=0.2)) as composed:
        for _ in range(3000):
            toxicity, helpfulness = share, 2 * share - share**2
            composed.compose(batch([toxicity], helpfulness=helpfulness))
            multiplier = composed.state_dict()["constraints"]["toxicity/max"]["state"]["multiplier"]
            share = min(max(share + 0.02 * (2 - 2 * share - multiplier), 0.0), 1.0)
            shares.append(share)
    assert np.mean(shares[-500:]) == pytest.approx(0.1, abs=0.005)
    assert multiplier == pytest.approx(1.8, abs=0.05)


def test_a_row_without_the_score_is_unscored_while_the_multiplier_is_above_0() -> None:
    """An outage is no way around a constraint; while nothing is taken off, it takes nothing."""
    with composer() as composed:
        assert composed.compose(batch([1.0, Score.failed("outage"), None])).totals.tolist() == [1.0, 1.0, 1.0]
        composition = composed.compose(batch([0.1, Score.failed("outage"), None]))
    assert composition.to_list() == [1.0, None, None]
    assert composition.explain(1).note == "a constraint's reward has no score"
    assert "no score" in str(composition.explain(1))


def test_a_stated_default_stands_in_for_the_penalty_and_not_for_the_mean() -> None:
    """A default is no measurement."""
    with composer(policy=FailurePolicy("default", value=1.0)) as composed:
        composed.compose(batch([0.3, Score.failed("outage")]))
        composition = composed.compose(batch([0.1, Score.failed("outage")]))
    assert composition.constraints[0].multiplier == pytest.approx(0.5 * 0.2)
    assert composition.totals.tolist() == pytest.approx([1.0, 1.0 - 0.1 * 0.9])


def test_evaluation_uses_the_multiplier_and_does_not_move_it() -> None:
    """As every learned number."""
    with composer() as composed:
        composed.compose(batch([1.0]))
        for _ in range(3):
            evaluated = composed.compose(batch([1.0], training=False))
            assert evaluated.constraints[0].multiplier == pytest.approx(0.45)


def test_a_multiplier_goes_on_from_a_checkpoint() -> None:
    """Through JSON."""
    with composer() as first, composer() as second:
        first.compose(batch([1.0]))
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert second.compose(batch([0.0])).constraints[0].multiplier == pytest.approx(0.45)


def test_the_state_of_another_constraint_is_refused_by_name() -> None:
    """What differs is said, and nothing is loaded."""
    with composer() as first, composer(Constraint("toxicity", max=0.2, step_size=0.5)) as second:
        first.compose(batch([1.0]))
        before = second.state_dict()
        with pytest.raises(StateError, match=r"constraint 'toxicity/max': saved with max 0\.1, now 0\.2"):
            second.load_state_dict(first.state_dict())
        assert second.state_dict() == before


def test_the_waterfall_and_the_records_show_the_penalty() -> None:
    """A total never differs from its parts without a word."""
    with composer(Constraint("toxicity", max=0.1, initial=2.0)) as composed:
        composition = composed.compose(batch([0.6]))
    (constraint,) = composition.explain(0).constraints
    assert str(constraint) == "constraint mean toxicity <= 0.1: multiplier 2"
    assert constraint.adds == pytest.approx(-1.0)
    assert composition.to_records()[0]["penalties"] == {"toxicity/max": pytest.approx(1.0)}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "'max' or 'min', and not both"),
        ({"max": 1.0, "min": 0.0}, "'max' or 'min', and not both"),
        ({"max": math.nan}, "finite numbers"),
        ({"max": 1.0, "step_size": 0.0}, "'step_size' must be greater than 0"),
        ({"max": 1.0, "initial": -1.0}, "'initial' must be at least 0"),
        ({"max": 1.0, "initial": 2.0, "ceiling": 1.0}, "'ceiling' must be at least 'initial'"),
    ],
)
def test_an_ill_formed_constraint_is_refused_in_python(options: dict[str, float], problem: str) -> None:
    """Before the first batch."""
    with pytest.raises(ConfigError, match=problem):
        Constraint("toxicity", **options)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "{reward: nobody, max: 0.1}",
            r"constraints\.0\.reward: a constraint names 'nobody'; there are help, toxicity",
        ),
        ("{reward: toxicity}", r"constraints\.0: a constraint needs 'max' or 'min'"),
        ("{reward: toxicity, max: .nan}", r"constraints\.0\.max: input should be a finite number"),
        ("{reward: toxicity, max: 0.1, step_size: -1}", r"constraints\.0\.step_size: input should be greater than 0"),
        ("{reward: toxicity, max: 0.1, initial: -1}", r"constraints\.0\.initial: input should be greater"),
        (
            "{reward: toxicity, max: 0.1, initial: 2, ceiling: 1}",
            r"constraints\.0\.ceiling: must be at least 'initial'",
        ),
        ("{reward: toxicity, max: 0.1, steps: 1}", r"constraints\.0\.steps: unknown key"),
        ("{reward: toxicity, max: 1}, {reward: toxicity, max: 2}", r"constraints\.1: 'toxicity' is constrained twice"),
    ],
)
def test_an_ill_formed_constraint_is_refused_at_load_with_its_line(
    text: str, problem: str, write: Callable[[str, str], Path], registry: Registry
) -> None:
    """The message names the file, the line and the key."""
    write("scores.py", "def score(prompts, completions): return [1.0] * len(prompts)")
    path = write(
        "c.yaml",
        f"""
        rewards:
          help: {{use: "./scores.py:score"}}
          toxicity: {{use: "./scores.py:score", weight: 0}}
        constraints: [{text}]
        """,
    )
    with pytest.raises(ConfigError, match=rf"c\.yaml:5: {problem}"):
        Composer.from_config(path, registry=registry)


def test_a_constraint_in_a_config(write: Callable[[str, str], Path], registry: Registry) -> None:
    """As the how-to shows it."""
    write("scores.py", "def score(prompts, completions): return [0.5] * len(prompts)")
    path = write(
        "c.yaml",
        """
        rewards:
          help: {use: "./scores.py:score"}
          toxicity: {use: "./scores.py:score", weight: 0}
        constraints: [{reward: toxicity, max: 0.1, step_size: 0.05, initial: 1}]
        """,
    )
    with Composer.from_config(path, registry=registry) as composed:
        assert composed.compose(RewardBatch(["p"], ["c"])).totals.tolist() == pytest.approx([0.5 - 0.4])
        assert composed.compose(RewardBatch(["p"], ["c"])).constraints[0].multiplier == pytest.approx(1.02)
