from __future__ import annotations

import math
from itertools import groupby, pairwise
from statistics import fmean, pstdev

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rlaif_sdk import Composer, ConfigError, RewardBatch
from rlaif_sdk.composer import Component
from rlaif_sdk.composer.normalizers import (
    FixedZScore,
    FixedZScoreParams,
    GroupCenter,
    GroupZScore,
    MinMax,
    Passthrough,
    Rank,
    ZScore,
    ZScoreParams,
)
from rlaif_sdk.testing import FixedReward

values_strategy = st.lists(st.none() | st.floats(-1e4, 1e4).map(lambda x: round(x, 3)), max_size=20)


@st.composite
def grouped(draw) -> tuple[list[float | None], list[int]]:
    values = draw(values_strategy)
    group = draw(st.lists(st.integers(0, 4), min_size=len(values), max_size=len(values)))
    first_seen = {label: index for index, label in enumerate(dict.fromkeys(group))}
    return values, [first_seen[label] for label in group]


def array(values: list[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def members(values: list[float | None], group: list[int] | None, row: int) -> list[float]:
    """The present scores of a row's group, one by one."""
    labels = group or [0] * len(values)
    return [value for value, label in zip(values, labels, strict=True) if label == labels[row] and value is not None]


def slow_group_zscore(values: list[float | None], group: list[int] | None) -> list[float]:
    out = []
    for row, value in enumerate(values):
        if value is None:
            out.append(math.nan)
            continue
        present = members(values, group, row)
        spread = pstdev(present)
        out.append(0.0 if spread == 0 else max(-10.0, min(10.0, (value - fmean(present)) / (spread + 1e-8))))
    return out


def slow_rank(values: list[float | None], group: list[int] | None) -> list[float]:
    out = []
    for row, value in enumerate(values):
        if value is None:
            out.append(math.nan)
            continue
        present = members(values, group, row)
        below = sum(other < value for other in present)
        ties = sum(other == value for other in present)
        midrank = below + (ties - 1) / 2
        out.append(0.0 if len(present) == 1 else 2 * midrank / (len(present) - 1) - 1)
    return out


@given(grouped(), st.booleans())
@example(([1e4 + 0.1] * 3 + [None], [0, 0, 0, 0]), True)
def test_group_zscore_is_the_mean_and_deviation_of_each_group(rows, with_groups: bool) -> None:
    """Equal to a slow loop over groups; without groups the batch is one."""
    values, group = rows
    labels = group if with_groups else None
    got = GroupZScore().normalize(array(values), None if labels is None else np.array(labels, dtype=np.intp))
    np.testing.assert_allclose(got, slow_group_zscore(values, labels), rtol=1e-6, atol=1e-6)


@given(grouped(), st.booleans())
def test_rank_is_the_midrank_within_the_group(rows, with_groups: bool) -> None:
    """Ties share their rank; best is 1, worst -1, alone is 0."""
    values, group = rows
    labels = group if with_groups else None
    got = Rank().normalize(array(values), None if labels is None else np.array(labels, dtype=np.intp))
    np.testing.assert_allclose(got, slow_rank(values, labels), atol=1e-12)


@given(grouped())
def test_group_center_is_the_score_less_the_mean_of_its_group(rows) -> None:
    """Beside a slow reference; the scale stays the reward's own."""
    values, group = rows
    found = GroupCenter().normalize(array(values), np.array(group, dtype=np.intp))
    expected = [
        math.nan if value is None else value - fmean(members(values, group, row)) for row, value in enumerate(values)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-7)


@given(st.floats(-1e9, 1e9), st.integers(1, 9))
def test_a_group_without_spread_gives_no_advantage(value: float, size: int) -> None:
    """Rounding in the mean of equal scores is not blown up into a signal."""
    same = np.full(size, value)
    np.testing.assert_allclose(GroupZScore().normalize(same, np.zeros(size, dtype=np.intp)), 0, atol=1e-6)
    np.testing.assert_array_equal(Rank().normalize(same, None), np.zeros(size))
    zscore = ZScore()
    zscore.update(same, None)
    np.testing.assert_allclose(zscore.normalize(same, None), 0, atol=1e-6)


@given(values_strategy, st.lists(st.integers(0, 20), max_size=4))
def test_running_statistics_do_not_depend_on_how_rows_are_cut_into_batches(values, cuts) -> None:
    """One batch, many small ones, empty ones: the same mean and deviation as a loop over everything."""
    whole, parts = ZScore(), ZScore()
    whole.update(array(values), None)
    edges = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    for start, end in pairwise(edges):
        parts.update(array(values[start:end]), None)
    present = [value for value in values if value is not None]
    assert whole.count == parts.count == len(present)
    if present:
        assert parts.mean == pytest.approx(fmean(present), abs=1e-9)
        assert math.sqrt(parts.m2 / parts.count) == pytest.approx(pstdev(present), abs=1e-6)
        assert whole.m2 == pytest.approx(parts.m2, abs=1e-3)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
def test_zscore_clips_and_standardises(values) -> None:
    """Equal to the slow formula over all that was seen."""
    zscore = ZScore(ZScoreParams(clip=1.5))
    zscore.update(array(values), None)
    spread = pstdev(values)
    if spread < 1e-6:
        return
    slow = [max(-1.5, min(1.5, (value - fmean(values)) / (spread + 1e-8))) for value in values]
    np.testing.assert_allclose(zscore.normalize(array(values), None), slow, rtol=1e-6, atol=1e-6)


def test_a_zscore_that_has_seen_nothing_gives_0() -> None:
    """The first evaluation before training has no scale yet."""
    np.testing.assert_array_equal(ZScore().normalize(array([3.0, None]), None), [0.0, math.nan])


@given(values_strategy, st.sampled_from([Passthrough, GroupZScore, Rank, ZScore]))
def test_missing_stays_missing_and_nothing_else_becomes_so(values, kind) -> None:
    """Normalising neither invents nor loses a score."""
    normalizer = kind()
    normalizer.update(array(values), None)
    got = normalizer.normalize(array(values), None)
    assert [math.isnan(value) for value in got] == [value is None for value in values]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12))
def test_minmax_maps_the_declared_range_to_0_and_1(values) -> None:
    """The batch's own extremes play no part."""
    minmax = MinMax()
    minmax.bind((-5.0, 5.0))
    np.testing.assert_allclose(minmax.normalize(array(values), None), [(value + 5) / 10 for value in values])


@pytest.mark.parametrize("value_range", [None, (0.0, math.inf), (1.0, 1.0)])
def test_minmax_without_a_finite_range_is_refused(value_range) -> None:
    """The hint names those that do not need one."""
    component = Component(FixedReward(0.5, range=value_range), normalizer=MinMax())
    with pytest.raises(ConfigError, match=r"minmax needs a finite declared range.*use zscore, group_zscore or rank"):
        Composer({"a": component})


def test_a_cost_is_turned_before_it_is_normalised() -> None:
    """Higher is better for whatever is weighed, and its minmax is that of the turned range."""
    cost = FixedReward([0.0, 1.0, 4.0], higher_is_better=False, range=(0.0, 4.0))
    with Composer({"cost": Component(cost, normalizer=MinMax())}) as composer:
        composition = composer.compose(RewardBatch(prompts=["a"] * 3, completions=["b"] * 3))
    assert composition.to_list() == [1.0, 0.75, 0.0]
    assert composition.rewards["cost"].raw.tolist() == [0.0, 1.0, 4.0]


def test_evaluation_reads_running_statistics_and_does_not_change_them() -> None:
    """A held-out batch must not move the scale of training."""
    rows = RewardBatch(prompts=["a"] * 2, completions=["b"] * 2)
    reward = FixedReward([1.0, 3.0])
    with Composer({"a": Component(reward, normalizer=ZScore())}) as composer:
        composer.compose(rows)
        learned = composer.state_dict()
        reward.scores = [100.0, 200.0]
        held_out = RewardBatch(prompts=["a"] * 2, completions=["b"] * 2, training=False)
        assert composer.compose(held_out).to_list() == [10.0, 10.0]
        assert composer.state_dict() == learned


def test_groups_need_not_be_contiguous_or_integers() -> None:
    """Rows of one prompt may be spread over the batch, under any labels."""
    group = ["x", (1, 2), "x", (1, 2)]
    assert [key for key, _ in groupby(group)] == group
    batch = RewardBatch(prompts=["a"] * 4, completions=["b"] * 4, group=group)
    with Composer({"a": Component(FixedReward([1.0, 5.0, 2.0, 4.0]), normalizer=Rank())}) as composer:
        assert composer.compose(batch).to_list() == [-1.0, 1.0, 1.0, -1.0]


@pytest.mark.parametrize("offset", [0.0, 1e9, -1e12, 1e12, 4e13])
@pytest.mark.parametrize("kind", [ZScore, GroupZScore])
def test_small_differences_of_large_scores_are_kept(offset: float, kind) -> None:
    """Tokens counted in trillions tell answers apart as small numbers do."""
    values = offset + np.arange(4.0)
    normalizer = kind()
    normalizer.update(values, None)
    expected = (np.arange(4.0) - 1.5) / np.std(np.arange(4.0))
    np.testing.assert_allclose(normalizer.normalize(values, None), expected, rtol=1e-6)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=4), st.floats(-1e30, 1e30), st.integers(1, 9))
def test_the_mean_of_equal_scores_is_the_score(others, value: float, size: int) -> None:
    """In every group, whatever stands in the others, so that equal answers never get an advantage from rounding."""
    values = np.array([*others, *[value] * size])
    labels = np.array([0] * len(others) + [1] * size)
    assert GroupCenter().normalize(values, labels)[len(others) :].tolist() == [0.0] * size
    running = ZScore()
    for _ in range(3):
        running.update(values[len(others) :], None)
    assert (running.mean, running.m2) == (value, 0.0)


@pytest.mark.parametrize("absurd", [1e155, -1e155, 1e308, -1e308, 3.5e38])
def test_one_score_that_no_trainer_can_hold_does_not_flatten_a_running_zscore(absurd: float) -> None:
    """It is refused by name, and what follows stands where it would have stood."""
    batch = RewardBatch(["p"] * 4, ["c"] * 4)
    answers = iter([[absurd, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0]])
    with Composer({"a": Component(lambda completions: next(answers), normalizer=ZScore())}) as composer:
        first, second = composer.compose(batch), composer.compose(batch)
    assert "32-bit floats" in first.rewards["a"].failures[0]
    assert second.totals.std() > 0.5


def test_a_fixed_zscore_goes_by_the_stated_numbers_alone() -> None:
    """Nothing that it sees moves them, and what it gives for a score does not depend on the batch."""
    fixed = FixedZScore(FixedZScoreParams(mean=2.0, std=4.0, clip=3.0))
    fixed.update(array([100.0, 200.0]), None)
    np.testing.assert_allclose(fixed.normalize(array([2.0, 6.0, None, 99.0]), None), [0.0, 1.0, math.nan, 3.0])
    assert fixed.state_dict() == {}
    assert fixed.working(array([6.0]), None)(0) == "(6 - 2) / 4, at most 3 from 0 (stated mean and deviation)"
