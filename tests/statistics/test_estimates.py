"""Shares, means and agreement with their intervals, beside slow references and published figures."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from rlaif_sdk.statistics.agreement import cohens_kappa
from rlaif_sdk.statistics.estimates import (
    Estimate,
    at_least_wilson,
    bootstrap_mean,
    effective_size,
    share_over_groups,
    wilson,
)

COUNTS = st.lists(st.integers(0, 30), min_size=9, max_size=9).map(lambda flat: np.array(flat, float).reshape(3, 3))


def test_one_group_has_no_interval() -> None:
    """A bootstrap over one prompt would say that nothing can be off."""
    found = bootstrap_mean(np.array([0.0, 1.0, 1.0]), np.zeros(3, dtype=np.int64))
    assert found.value == pytest.approx(2 / 3)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_wilson_is_the_published_interval() -> None:
    """Newcombe 1998, Statistics in Medicine 17, table I, method 3: 81 of 263, and 0 of 20."""
    found = wilson(81, 263)
    assert (found.low, found.high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    assert (wilson(0, 20).low, wilson(0, 20).high) == (0.0, pytest.approx(0.1611, abs=5e-5))


@given(st.integers(1, 200), st.data())
def test_wilson_holds_the_shares_that_a_score_test_does_not_refuse(n: int, data: st.DataObject) -> None:
    """An end p of the interval is where |share - p| is 1.96 standard errors under p, or the border."""
    wins = data.draw(st.integers(0, n))
    found = wilson(wins, n)
    assert 0 <= found.low <= found.value <= found.high <= 1
    for end in (found.low, found.high):
        if 1e-9 < end < 1 - 1e-9 and end != found.value:
            assert abs(wins / n - end) == pytest.approx(1.959963985 * math.sqrt(end * (1 - end) / n), rel=1e-6)


def test_nothing_counted_is_nan_and_null_in_a_record() -> None:
    """No comparison is not a share of 0."""
    assert math.isnan(wilson(0, 0).value)
    assert wilson(0, 0).record() == {"value": None, "low": None, "high": None, "n": 0}


def test_the_bootstrap_draws_whole_groups() -> None:
    """Ten copies of each value in its group leave the interval of the mean as wide as without the copies."""
    values = np.random.default_rng(0).normal(size=40)
    alone = bootstrap_mean(values, np.arange(40))
    copied = bootstrap_mean(np.repeat(values, 10), np.repeat(np.arange(40), 10))
    assert (copied.low, copied.high) == (pytest.approx(alone.low), pytest.approx(alone.high))
    pretended = bootstrap_mean(np.repeat(values, 10), np.arange(400))
    assert pretended.high - pretended.low < 0.5 * (alone.high - alone.low)
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(40), rel=0.15)


def test_the_bootstrap_weighs_groups_by_their_size() -> None:
    """A mean of equal values is that value in every resample, however unequal the groups."""
    found = bootstrap_mean(np.ones(60), np.repeat([0, 1, 2], [50, 9, 1]))
    assert (found.low, found.high) == (1, 1)


@pytest.mark.parametrize(("right", "prompts"), [(10, 10), (0, 10), (1, 1), (3, 3), (19, 20), (50, 100)])
def test_a_share_is_no_surer_than_wilson_over_its_prompts(right: int, prompts: int) -> None:
    """Ten of ten are right in every resample, and 95% is [0.72, 1] all the same."""
    found = share_over_groups(np.repeat([1.0, 0.0], [right, prompts - right]), np.arange(prompts))
    expected = binomtest(right, prompts).proportion_ci(method="wilson")
    assert found.low <= expected.low + 1e-9
    assert found.high >= expected.high - 1e-9
    if right in {0, prompts}:
        assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_copies_of_a_prompt_make_a_share_no_surer() -> None:
    """Forty right pairs of four prompts are four trials; one prompt with most of the pairs is little more than one."""
    expected = binomtest(4, 4).proportion_ci(method="wilson").low
    assert share_over_groups(np.ones(40), np.repeat(np.arange(4), 10)).low == pytest.approx(expected)
    uneven = share_over_groups(np.ones(100), np.repeat(np.arange(4), [97, 1, 1, 1]))
    assert uneven.low < 0.25
    assert effective_size(np.array([97.0, 1, 1, 1])) == pytest.approx(100**2 / (97**2 + 3))


def test_a_wider_interval_stays_and_a_range_scales() -> None:
    """Wilson's is the least; of a mean in [-1, 1] it is twice as wide as of a share."""
    wide = Estimate(0.5, 0.0, 1.0, 100)
    assert at_least_wilson(wide, 100) == wide
    expected = binomtest(8, 8).proportion_ci(method="wilson").low
    found = at_least_wilson(Estimate(1.0, 1.0, 1.0, 8), 8, within=(-1, 1))
    assert (found.low, found.high) == (pytest.approx(2 * expected - 1), 1)
    assert math.isnan(at_least_wilson(Estimate(0.0, 0.0, 0.0, 0), 0).low)


@pytest.mark.parametrize(("share", "prompts"), [(0.97, 15), (0.9, 30), (0.5, 30)])
def test_the_interval_of_a_share_covers_the_truth_at_least_as_often_as_it_says(share: float, prompts: int) -> None:
    """Over 300 samples of prompts with three pairs each that go together; a bootstrap covers 0.97 of 15 in 37%."""
    draw = np.random.default_rng(3)
    groups = np.repeat(np.arange(prompts), 3)
    samples = [np.repeat((draw.random(prompts) < share).astype(float), 3) for _ in range(300)]
    found = [share_over_groups(sample, groups, resamples=60) for sample in samples]
    assert sum(each.low <= share <= each.high for each in found) / len(found) >= 0.92


@given(COUNTS)
def test_kappa_and_its_interval_are_those_of_the_literature(counts: np.ndarray) -> None:
    """Kappa from its definition, its variance from the long formula of Fleiss, Cohen and Everitt 1969, equation 13."""
    found = cohens_kappa(counts)
    n = counts.sum()
    if not n:
        assert math.isnan(found.value)
        return
    p = counts / n
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    observed = sum(p[k, k] for k in range(3))
    chance = sum(rows[k] * columns[k] for k in range(3))
    if chance == pytest.approx(1):
        assert math.isnan(found.value)
        return
    assert found.value == pytest.approx((observed - chance) / (1 - chance))
    diagonal = sum(p[i, i] * ((1 - chance) - (rows[i] + columns[i]) * (1 - observed)) ** 2 for i in range(3))
    off = (1 - observed) ** 2 * sum(
        p[i, j] * (columns[i] + rows[j]) ** 2 for i, j in itertools.permutations(range(3), 2)
    )
    variance = (diagonal + off - (observed * chance - 2 * chance + observed) ** 2) / (n * (1 - chance) ** 4)
    half = 1.959963985 * math.sqrt(max(variance, 0))
    if half < 1e-6:
        assert half > 1e-10 or math.isnan(found.low)
        return
    assert found.low == pytest.approx(max(-1, found.value - half), abs=1e-6)
    assert found.high == pytest.approx(min(1, found.value + half), abs=1e-6)


@given(COUNTS)
def test_kappa_does_not_depend_on_who_is_first(counts: np.ndarray) -> None:
    """Rows and columns may be exchanged, and categories renamed."""
    found, turned = cohens_kappa(counts), cohens_kappa(counts.T[::-1, ::-1])
    assert (turned.value, turned.low) == (
        pytest.approx(found.value, nan_ok=True),
        pytest.approx(found.low, nan_ok=True, abs=1e-6),
    )


def test_kappa_of_a_published_table() -> None:
    """Fleiss, Cohen and Everitt (1969): kappa .429 of 200 patients with a standard error of .054 (unweighted)."""
    found = cohens_kappa(np.array([[106.0, 10, 4], [22, 28, 10], [2, 12, 6]]))
    assert found.value == pytest.approx(0.429, abs=5e-4)
    assert (found.high - found.value) / 1.96 == pytest.approx(0.054, abs=5e-4)


def test_the_interval_of_kappa_covers_the_truth_about_as_often_as_it_says() -> None:
    """Over 400 samples of 100 items from a known table, the 95% interval holds the true kappa in 92 to 98%."""
    shares = np.array([[0.4, 0.1], [0.15, 0.35]])
    truth = cohens_kappa(1e6 * shares).value
    draw = np.random.default_rng(7)
    found = [cohens_kappa(draw.multinomial(100, shares.ravel()).reshape(2, 2).astype(float)) for _ in range(400)]
    assert 0.92 <= sum(each.low <= truth <= each.high for each in found) / 400 <= 0.98


def test_an_interval_of_no_width_is_not_given() -> None:
    """Perfect agreement on four items is no proof of kappa 1, so its interval is not [1, 1]."""
    perfect = cohens_kappa(np.diag([2.0, 2.0]))
    assert perfect.value == 1
    assert math.isnan(perfect.low)
    assert math.isnan(perfect.high)
