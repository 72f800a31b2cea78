"""What the diagnostics measure, beside slow references that follow the formulas word by word."""

from __future__ import annotations

import math
import statistics
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rlaif_sdk import BatchError, Composer, RewardBatch
from rlaif_sdk.composer import Component, Gate
from rlaif_sdk.composer.advantages import group_advantages
from rlaif_sdk.diagnostics import flat_groups, group_spread, saturation, variance_shares
from rlaif_sdk.statistics.correlation import correlation_interval, pearson, ranks, spearman
from tests.composer.random_compositions import Reading, runs, setups

NAN = math.nan

few = st.integers(-3, 3).map(float) | st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
with_gaps = few | st.just(NAN)


def tables(elements: st.SearchStrategy[float], *, rewards: int = 3, max_rows: int = 9) -> st.SearchStrategy[np.ndarray]:
    return st.integers(0, max_rows).flatmap(lambda rows: arrays(np.float64, (rewards, rows), elements=elements))


def slow_pearson(x: list[float], y: list[float]) -> float:
    pairs = [(a, b) for a, b in zip(x, y, strict=True) if not (math.isnan(a) or math.isnan(b))]
    if len({a for a, _ in pairs}) < 2 or len({b for _, b in pairs}) < 2:
        return NAN
    return statistics.correlation(*zip(*pairs, strict=True))


def slow_ranks(values: list[float]) -> list[float]:
    return [sum(other < value for other in values) + (values.count(value) + 1) / 2 for value in values]


def slow_spearman(x: list[float], y: list[float]) -> float:
    pairs = [(a, b) for a, b in zip(x, y, strict=True) if not (math.isnan(a) or math.isnan(b))]
    if not pairs:
        return NAN
    first, second = zip(*pairs, strict=True)
    return slow_pearson(slow_ranks(list(first)), slow_ranks(list(second)))


@pytest.mark.parametrize(("fast", "slow"), [(pearson, slow_pearson), (spearman, slow_spearman)])
@given(values_RB=tables(with_gaps))
def test_each_pair_is_correlated_over_the_rows_that_both_scored(fast, slow, values_RB):
    """A missing score takes its row out of the pairs that it is in, and of no other."""
    expected = [[slow(list(x), list(y)) for y in values_RB] for x in values_RB]
    np.testing.assert_allclose(fast(values_RB), expected, atol=1e-6)


@given(tables(few), st.floats(0.01, 100), st.floats(-1e3, 1e3))
def test_correlation_knows_neither_unit_nor_origin(values_RB, scale, shift):
    """Scaling and shifting a reward leaves its correlations as they are; turning it turns their sign."""
    moved_RB = values_RB * scale + shift
    np.testing.assert_allclose(pearson(moved_RB), pearson(values_RB), atol=1e-4)
    turned_RB = np.vstack([-values_RB[:1], values_RB[1:]])
    np.testing.assert_allclose(pearson(turned_RB)[0, 1:], -pearson(values_RB)[0, 1:], atol=1e-9)


@pytest.mark.parametrize("value", [0.1, 1e-300, 1e200, 0.1 + 0.2])
def test_a_constant_reward_has_no_correlation(value):
    """Rounding in the mean of equal numbers is not taken for variation, at any scale."""
    values_RB = np.array([[value] * 7, [1.0, 5.0, 2.0, 3.0, 9.0, 7.0, 4.0]])
    assert np.isnan(pearson(values_RB)[0]).all()
    assert pearson(values_RB)[1, 1] == pytest.approx(1.0)


def test_huge_scores_correlate_without_overflow():
    """Scores near the largest floats are scaled before they are squared."""
    row = np.array([1.0, 2.0, 4.0, 3.0])
    assert pearson(np.stack([row * 1e200, row * 1e-200]))[0, 1] == pytest.approx(1.0)


@given(st.lists(few, min_size=1, max_size=12))
def test_ties_share_their_mean_rank(values):
    """Ranks count what is smaller, and half of what is equal."""
    assert ranks(np.array(values)).tolist() == slow_ranks(values)


def test_the_interval_of_a_correlation_holds_it_in_19_of_20_samples():
    """Fisher's interval covers the true correlation about 95% of the time."""
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        x, noise = generator.normal(size=(2, 40))
        sample = np.stack([x, 0.6 * x + 0.8 * noise])
        low, high = correlation_interval(pearson(sample)[0, 1], 40)
        covered += low < 0.6 < high
    assert 0.93 < covered / 1000 < 0.97


@pytest.mark.parametrize(
    ("correlation", "rows", "interval"), [(0.5, 3, (-1, 1)), (1.0, 9, (1, 1)), (-1.0, 9, (-1, -1))]
)
def test_the_interval_at_its_limits(correlation, rows, interval):
    """Three rows say nothing; a perfect correlation has no error."""
    assert correlation_interval(correlation, rows) == interval
    assert all(map(math.isnan, correlation_interval(NAN, rows)))


@given(tables(few, max_rows=12))
def test_variance_shares_follow_the_covariances_and_sum_to_one(parts_RB):
    """Each share is cov(part, total) / var(total)."""
    totals_B = parts_RB.sum(axis=0)
    assume(totals_B.size > 1 and np.ptp(totals_B) > 1e-3)
    shares = variance_shares(parts_RB, totals_B)
    centred = [total - math.fsum(totals_B) / totals_B.size for total in totals_B]
    variance = math.fsum(distance**2 for distance in centred)
    expected = [
        math.fsum(part * distance for part, distance in zip(row, centred, strict=True)) / variance for row in parts_RB
    ]
    np.testing.assert_allclose(shares, expected, rtol=1e-6, atol=1e-6)
    assert shares.sum() == pytest.approx(1.0)


@given(setups(), runs())
def test_the_shares_of_a_composition_without_gates_and_constraints_sum_to_one(setup, batches):
    """It holds for every aggregator, normaliser and failure policy, since a row's parts sum to its total."""
    setup.gates, setup.constraints = [], []
    with setup.composer() as composer:
        for batch in batches:
            composition = composer.compose(batch)
            metrics = composition.metrics()
            shares = [metrics[f"reward/{name}/variance_share"] for name in composition.rewards]
            totals = composition.totals[~np.isnan(composition.totals)]
            if totals.size > 1 and np.ptp(totals) > 1e-6 * np.abs(totals).max():
                assert sum(shares) == pytest.approx(1.0, abs=1e-6)
            elif not totals.size or not np.ptp(totals):
                assert np.isnan(shares).all()


@pytest.mark.parametrize("totals", [[], [NAN, NAN], [2.0], [0.1, 0.1, 0.1]])
def test_a_total_that_does_not_vary_has_no_shares(totals):
    """There is no variance to share out, so the shares are NaN and not 0."""
    assert np.isnan(variance_shares(np.ones((2, len(totals))), np.array(totals))).all()


def slow_tied(values: list[float], near: float) -> float:
    return max(sum(low <= value <= low + near for value in values) for low in values) / len(values)


@given(
    st.lists(st.integers(0, 20).map(lambda n: n / 20) | st.just(NAN), max_size=15), st.sampled_from([None, (0.0, 1.0)])
)
def test_saturation_counts_the_edges_and_the_largest_tie(values, declared):
    """Shares of the scores that there are; NaN counts nowhere."""
    present = [value for value in values if not math.isnan(value)]
    measured = saturation(np.array(values), declared, tolerance=0.125)
    if not present:
        assert all(map(math.isnan, measured))
        return
    low, high = declared or (min(present), max(present))
    near = 0.125 * (high - low)
    assert measured.low == pytest.approx(sum(value <= low + near for value in present) / len(present))
    assert measured.high == pytest.approx(sum(value >= high - near for value in present) / len(present))
    assert measured.tied == pytest.approx(slow_tied(present, near))


@given(tables(with_gaps, rewards=2), st.data())
def test_group_spread_is_the_range_within_each_group(values_RB, data):
    """A group of fewer than two scores has none, and labels may stand in any order."""
    rows = values_RB.shape[1]
    labels = data.draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows))
    codes = {label: code for code, label in enumerate(dict.fromkeys(labels))}
    group_B = np.array([codes[label] for label in labels], dtype=np.intp)
    spread_RG = group_spread(values_RB, group_B)
    assert spread_RG.shape == (2, len(codes))
    for reward, group in ((r, g) for r in range(2) for g in range(len(codes))):
        members = [v for v, g in zip(values_RB[reward], group_B, strict=True) if g == group and not math.isnan(v)]
        expected = max(members) - min(members) if len(members) > 1 else NAN
        np.testing.assert_equal(spread_RG[reward, group], expected)


@given(arrays(np.float64, 8, elements=st.sampled_from([0.0, 0.5, 0.5 + 1e-3, 1.0, NAN])), st.integers(1, 4))
def test_a_group_without_variance_is_one_whose_advantages_are_all_zero(values, groups):
    """As GRPO computes them, by the total and by a named reward; small differences count, gaps do not."""
    labels = [row % groups for row in range(8)]
    rewards = {
        "named": lambda column: [None if math.isnan(value) else value for value in column],
        "other": lambda column: [0.0] * 8,
    }
    weights = {"named": 1.0, "other": 1.0}
    batch = RewardBatch(["q"] * 8, ["a"] * 8, columns={"column": list(values)}, group=labels)
    with Composer(rewards, weights=weights) as composer:
        composition = composer.compose(batch)
    idle = np.isclose(group_advantages(composition.rewards["named"].raw, np.array(labels)), 0.0) | np.isnan(values)
    expected = np.array([all(idle[row] for row in range(8) if labels[row] == label) for label in labels])
    assert (composition.no_variance("named") == expected).all()
    assert composition.no_variance("other").all()
    assert composition.metrics()["reward/total/no_variance"] == pytest.approx(
        len({label for label, flat in zip(labels, composition.no_variance(), strict=True) if flat}) / groups
    )


def test_variance_within_groups_needs_groups():
    """Nothing is guessed of a batch that has none."""
    with Composer({"some": lambda completions: [1.0] * len(completions)}) as composer:
        composition = composer.compose(RewardBatch(["q"], ["a"]))
        with pytest.raises(BatchError, match="no 'group'"):
            composition.no_variance()
    assert "reward/total/no_variance" not in composition.metrics()


def test_flat_groups_are_a_share_of_the_groups_that_have_two_scores():
    """One of three comparable groups is flat; the group with a single score is not counted."""
    assert flat_groups(np.array([0.0, 0.5, 1.0, NAN])) == pytest.approx(1 / 3)
    assert flat_groups(np.array([0.0, 0.5, 1.0, NAN]), epsilon=0.5) == pytest.approx(2 / 3)
    assert math.isnan(flat_groups(np.array([NAN])))


def test_the_training_log_has_every_diagnostic():
    """Length in tokens, shares, edges of the declared range, flat groups, pairs, and what is held out."""
    columns = {"a": [0.0, 4.0, 8.0, 8.0], "b": [1.0, 1.0, 2.0, 3.0], "judge": [10.0, 10.0, 9.0, 8.0]}
    batch = RewardBatch(
        ["p"] * 4, ["x"] * 4, completion_ids=[[1], [1, 2], [1, 2, 3], [1, 2, 3, 4]], columns=columns, group=[0, 0, 1, 1]
    )
    rewards = {
        name: Component(Reading(name, cost=name == "judge"), weight=0.0 if name == "judge" else 1.0) for name in columns
    }
    with Composer(rewards) as composer:
        composition = composer.compose(batch)
    metrics = composition.metrics()
    lengths = [1.0, 2.0, 3.0, 4.0]
    totals = [1.0, 5.0, 10.0, 11.0]
    assert metrics["reward/b/length_correlation"] == pytest.approx(statistics.correlation(columns["b"], lengths))
    assert metrics["reward/total/length_correlation"] == pytest.approx(statistics.correlation(totals, lengths))
    assert metrics["reward/a/variance_share"] + metrics["reward/b/variance_share"] == pytest.approx(1.0)
    assert metrics["reward/judge/variance_share"] == 0.0
    assert (metrics["reward/judge/at_low"], metrics["reward/judge/at_high"]) == (0.0, 0.5)
    assert metrics["reward/a/tied"] == 0.5
    flat = {name: metrics[f"reward/{name}/flat_groups"] for name in (*columns, "total")}
    assert flat == {"a": 0.5, "b": 0.5, "judge": 0.5, "total": 0.0}
    for first, second in combinations(columns, 2):
        expected = statistics.correlation(columns[first], columns[second])
        assert metrics[f"correlation/{first}/{second}"] == pytest.approx(expected)
    assert {key: value for key, value in metrics.items() if key.startswith("held_out/")} == {"held_out/judge": -9.25}
    assert composition.metrics(detail=False).keys() < metrics.keys()


def test_what_a_gate_takes_is_nobody_s_share():
    """Rows that a gate floors move the total, and the rewards' shares leave room for it."""
    columns = {"a": [0.0, 1.0, 2.0, 3.0], "b": [0.0, 1.0, 0.0, 1.0]}
    batch = RewardBatch(["p"] * 4, ["x"] * 4, columns=columns)
    with Composer({name: Reading(name) for name in columns}, gates=[Gate("b", min=0.5, floor=-9.0)]) as composer:
        metrics = composer.compose(batch).metrics()
    assert metrics["reward/a/variance_share"] + metrics["reward/b/variance_share"] < 0.5


@given(setups(), runs(max_size=2))
def test_diagnostics_are_numbers_whatever_is_missing(setup, batches):
    """Empty batches, outages and gates give NaN at most, without a warning, and correlations within [-1, 1]."""
    with setup.composer() as composer:
        for batch in batches:
            metrics = composer.compose(batch).metrics()
            assert all(isinstance(value, float) for value in metrics.values())
            bounded = [value for key, value in metrics.items() if "correlation" in key and not math.isnan(value)]
            assert all(-1 <= value <= 1 for value in bounded)
