"""Laws that hold for every composition, over random rewards, weights, failures, groups, normalizers and gates."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rlaif_sdk import Composer, Composition, RewardBatch, Score
from rlaif_sdk.composer import Component, FailurePolicy, Gate
from rlaif_sdk.composer.normalizers import GroupZScore, MinMax, Passthrough, Rank, ZScore
from rlaif_sdk.testing import FixedReward
from tests.composer.random_compositions import POLICIES

pytestmark = pytest.mark.filterwarnings("ignore:.*inverted twice", "ignore:.*compares completions to the same prompt")
"""Random weights and groups make what a person is warned of."""

NORMALIZERS = (Passthrough, MinMax, ZScore, GroupZScore, Rank)
entries = st.one_of(
    st.floats(-10, 10), st.floats(-10, 10), st.floats(-10, 10), st.none(), st.just(Score.failed("outage"))
)
weights = st.floats(-5, 5).filter(lambda weight: abs(weight) > 1e-3)


@dataclass
class Case:
    """A random composition and its batch."""

    scores: dict[str, list]
    weights: dict[str, float]
    normalizers: dict[str, type]
    policies: dict[str, FailurePolicy]
    costs: dict[str, bool]
    group: list[int] | None
    gates: list[Gate] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return len(next(iter(self.scores.values())))

    def composer(self, names: list[str] | None = None, rows: list[int] | None = None) -> Composer:
        return Composer(
            {
                name: Component(
                    FixedReward(
                        [self.scores[name][row] for row in (range(self.rows) if rows is None else rows)],
                        range=(-10.0, 10.0),
                        higher_is_better=not self.costs[name],
                    ),
                    weight=self.weights[name],
                    normalizer=self.normalizers[name](),
                    failure=self.policies[name],
                )
                for name in names or list(self.scores)
            },
            gates=self.gates,
        )

    def batch(self, rows: list[int] | None = None) -> RewardBatch:
        rows = list(range(self.rows)) if rows is None else rows
        group = None if self.group is None else [self.group[row] for row in rows]
        return RewardBatch(prompts=["a"] * len(rows), completions=["b"] * len(rows), group=group)

    def compose(self, names: list[str] | None = None, rows: list[int] | None = None) -> Composition:
        with self.composer(names, rows) as composer:
            return composer.compose(self.batch(rows))


@st.composite
def cases(draw) -> Case:
    rows = draw(st.integers(0, 8))
    names = [f"r{index}" for index in range(draw(st.integers(1, 4)))]
    grouped = draw(st.booleans())
    gates = []
    for name in draw(st.lists(st.sampled_from(names), max_size=2)):
        missing = draw(st.sampled_from(["unscored", "floor", "pass"]))
        gates.append(Gate(name, floor=draw(st.floats(-5, 5)), min=draw(st.floats(-10, 10)), on_missing=missing))

    def each(strategy) -> dict:
        return {name: draw(strategy) for name in names}

    return Case(
        scores=each(st.lists(entries, min_size=rows, max_size=rows)),
        weights=each(weights),
        normalizers=each(st.sampled_from(NORMALIZERS)),
        policies=each(st.sampled_from(POLICIES)),
        costs=each(st.booleans()),
        group=draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows)) if grouped else None,
        gates=gates,
    )


def close(left: np.ndarray, right: np.ndarray) -> None:
    np.testing.assert_allclose(left, right, rtol=1e-7, atol=1e-7)


@given(cases(), st.data())
def test_permuting_rows_permutes_the_totals(case: Case, data) -> None:
    """No row's total depends on where it stands."""
    order = data.draw(st.permutations(range(case.rows)))
    close(case.compose(rows=order).totals, case.compose().totals[list(order)])


@given(cases(), st.data())
def test_permuting_the_names_of_rewards_changes_nothing(case: Case, data) -> None:
    """Weights go by name, never by position."""
    names = data.draw(st.permutations(list(case.scores)))
    turned, straight = case.compose(names=list(names)), case.compose()
    close(turned.totals, straight.totals)
    for name in names:
        close(turned.rewards[name].weighted, straight.rewards[name].weighted)


@given(
    scores=st.integers(1, 6).flatmap(
        lambda rows: st.dictionaries(
            st.sampled_from("abcd"), st.lists(st.floats(-10, 10), min_size=rows, max_size=rows), min_size=1
        )
    ),
    weight=weights,
    factor=st.floats(0.01, 100),
)
def test_scaling_a_reward_and_its_weight_inversely_changes_nothing(scores: dict, weight: float, factor: float) -> None:
    """Units do not matter, where every reward has answered."""
    rows = len(next(iter(scores.values())))
    batch = RewardBatch(prompts=["a"] * rows, completions=["b"] * rows)
    changed, *others = scores
    with Composer({name: FixedReward(column) for name, column in scores.items()}, weights={changed: weight}) as plain:
        expected = plain.compose(batch).totals
    rewards = {changed: FixedReward([factor * score for score in scores[changed]])}
    rewards |= {name: FixedReward(scores[name]) for name in others}
    with Composer(rewards, weights={changed: weight / factor}) as inverse:
        close(inverse.compose(batch).totals, expected)


@given(cases(), st.floats(0.5, 4), st.floats(-2, 2))
def test_ranks_and_group_scores_do_not_feel_a_change_of_units(case: Case, factor: float, shift: float) -> None:
    """An affine change of a reward's units leaves its normalised values where they are."""
    assume(case.rows)
    for kind in (Rank, GroupZScore):
        columns = []
        for scores in (
            next(iter(case.scores.values())),
            [_affine(entry, factor, shift) for entry in next(iter(case.scores.values()))],
        ):
            spread = [entry for entry in scores if isinstance(entry, float)]
            assume(len({round(entry, 2) for entry in spread}) == len(spread))
            with Composer({"a": Component(FixedReward(scores), normalizer=kind(), failure=POLICIES[0])}) as composer:
                columns.append(composer.compose(case.batch()).rewards["a"].normalized)
        np.testing.assert_allclose(*columns, atol=1e-4)


def _affine(entry, factor: float, shift: float):
    return factor * entry + shift if isinstance(entry, float) else entry


@given(cases())
def test_missing_rewards_are_made_up_for_by_the_weights_of_the_others(case: Case) -> None:
    """The sizes of the weights that act on a row sum to what all weights sum to; each share follows from its weight."""
    composition = case.compose()
    everything = sum(abs(weight) for weight in case.weights.values())
    for row in range(case.rows):
        present = [column for column in composition.rewards.values() if not math.isnan(column.weighted[row])]
        scale = everything / sum(abs(column.weight) for column in present) if present else 0.0
        for column in present:
            assert math.isclose(column.weighted[row], scale * column.weight * column.normalized[row], abs_tol=1e-9)


@given(cases())
def test_the_steps_of_an_explanation_add_up_to_the_total(case: Case) -> None:
    """The waterfall hides nothing: the running sum is the total before the gates."""
    composition = case.compose()
    for row in range(case.rows):
        explanation = composition.explain(row)
        steps = [step.weighted for step in explanation.steps if not math.isnan(step.weighted)]
        before = composition.before_gates[row]
        assert math.isnan(explanation.total) == bool(explanation.note)
        if not math.isnan(before):
            assert math.isclose(sum(steps), before, abs_tol=1e-9)
            assert math.isclose(explanation.steps[-1].running, before, abs_tol=1e-9)
        assert f"row {row}" in str(explanation)


@given(cases())
def test_a_total_is_finite_or_missing_for_a_reason(case: Case) -> None:
    """NaN never reaches a trainer as a number."""
    composition = case.compose()
    for row, total in enumerate(composition.to_list()):
        if total is None:
            assert composition.explain(row).note
        else:
            assert math.isfinite(total)


@given(cases(), st.integers(1, 3))
def test_a_saved_and_restored_composer_continues_identically(case: Case, batches: int) -> None:
    """State goes through JSON, as in a trainer's checkpoint."""
    with case.composer() as straight, case.composer() as resumed:
        for _ in range(batches):
            straight.compose(case.batch())
        resumed.load_state_dict(json.loads(json.dumps(straight.state_dict())))
        np.testing.assert_array_equal(straight.compose(case.batch()).totals, resumed.compose(case.batch()).totals)
        assert resumed.state_dict() == straight.state_dict()


@given(cases())
def test_records_are_json_and_say_what_the_arrays_say(case: Case) -> None:
    """What `rlaif score` writes can be read by anything."""
    composition = case.compose()
    records = json.loads(json.dumps(composition.to_records(), allow_nan=False))
    assert [record["total"] for record in records] == composition.to_list()
    for row, record in enumerate(records):
        for name, column in composition.rewards.items():
            assert record["rewards"][name]["status"] == column.status(row)


@given(cases())
def test_metrics_are_numbers_under_each_reward_s_name(case: Case) -> None:
    """A training log gets the same keys at every step."""
    metrics = case.compose().metrics()
    assert all(isinstance(value, (int, float)) for value in metrics.values())
    assert {f"reward/{name}/raw_mean" for name in case.scores} <= metrics.keys()
