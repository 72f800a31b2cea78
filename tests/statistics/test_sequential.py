from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif_sdk.exceptions import StateError
from rlaif_sdk.statistics.sequential import MeanTest, upper_limit

PROBABILITIES = st.floats(0.05, 0.95)


def wealth(observations: list[list[float]], bound: float) -> float:
    test = MeanTest(bound)
    for part in observations:
        test.update(np.array(part))
    return math.exp(test.log_evidence)


@settings(max_examples=20, deadline=None)
@given(bound=PROBABILITIES, lower=st.floats(0, 1))
def test_no_bettor_gains_on_average_whatever_the_mean_within_the_bound(bound: float, lower: float) -> None:
    """Over all sequences of yes and no, weighed by their chance, the wealth is 1 at the bound and at most 1 below it."""
    for chance in (bound, bound * lower):
        expected = sum(
            math.prod(chance if each else 1 - chance for each in said) * wealth([[each] for each in said], bound)
            for said in itertools.product([0.0, 1.0], repeat=7)
        )
        assert expected == pytest.approx(1.0) if chance == bound else expected <= 1 + 1e-9


@settings(max_examples=20, deadline=None)
@given(values=st.lists(st.floats(0, 1), min_size=5, max_size=5))
def test_draws_without_replacement_gain_nothing_on_average(values: list[float]) -> None:
    """After a batch that sets the stakes, all ways to draw three of five values have a mean wealth of at most what it was."""
    bound = float(np.mean(values))
    start = [[1.0] * 4]
    before = wealth(start, bound)
    drawn = [wealth([*start, list(some)], bound) for some in itertools.combinations(values, 3)]
    assert np.mean(drawn) <= before * (1 + 1e-9)


def test_few_runs_at_the_boundary_ever_reach_the_level() -> None:
    """Looked at after each of 120 batches, at most 5% of runs reach 20; 300 runs leave room for 4 standard errors."""
    rng = np.random.default_rng(3)
    over = 0
    for _ in range(300):
        test = MeanTest(0.3)
        for _ in range(120):
            test.update((rng.random(4) < 0.3).astype(float))
            if test.log_evidence >= math.log(20):
                over += 1
                break
    assert over <= 300 * 0.05 + 4 * math.sqrt(300 * 0.05 * 0.95)


def test_a_late_change_is_found_as_soon_as_an_early_one() -> None:
    """The wealth does not run out while the hypothesis holds."""
    delays = []
    for start in (0, 400):
        rng, test = np.random.default_rng(1), MeanTest(0.5)
        for step in itertools.count():
            test.update(rng.normal(0.47 if step < start else 0.6, 0.1, 8).clip(0, 1))
            if test.log_evidence >= math.log(100):
                delays.append(step - start)
                break
    assert max(delays) <= 12


def test_a_saved_test_goes_on_exactly() -> None:
    """Its state is JSON, and what is tested after it is the same."""
    rng = np.random.default_rng(0)
    parts = rng.random((10, 6))
    whole, first = MeanTest(0.4), MeanTest(0.4)
    for part in parts:
        whole.update(part)
    for part in parts[:5]:
        first.update(part)
    resumed = MeanTest.from_state(json.loads(json.dumps(first.state_dict())))
    for part in parts[5:]:
        resumed.update(part)
    assert resumed.state_dict() == whole.state_dict()
    with pytest.raises(StateError, match="3 memories"):
        MeanTest.from_state({**whole.state_dict(), "log_wealth": [0.0]})


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_an_observation_out_of_bounds_is_refused(value: float) -> None:
    """The guarantee holds for bounded observations only."""
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        MeanTest(0.5).update(np.array([0.5, value]))


@pytest.mark.parametrize("beta", [(2, 2), (1, 9), (0.2, 0.2)])
def test_the_upper_limit_misses_the_mean_no_more_often_than_it_says(beta: tuple[float, float]) -> None:
    """At 20%, of 200 samples of 60: within 4 standard errors."""
    rng = np.random.default_rng(5)
    mean = beta[0] / sum(beta)
    missed = sum(upper_limit(rng.beta(*beta, 60), 0.2) < mean for _ in range(200))
    assert missed <= 200 * 0.2 + 4 * math.sqrt(200 * 0.2 * 0.8)


def test_the_upper_limit_narrows_with_observations_and_widens_with_confidence() -> None:
    """It is 1 where nothing is known, and near the mean of many."""
    sample = np.random.default_rng(2).beta(2, 2, 4000)
    limits = [upper_limit(sample[:count], 0.05) for count in (0, 1, 40, 400, 4000)]
    assert limits[:2] == [1.0, 1.0]
    assert limits == sorted(limits, reverse=True)
    assert sample.mean() < limits[-1] < sample.mean() + 0.02
    assert upper_limit(sample[:100], 0.001) > upper_limit(sample[:100], 0.1)


def test_the_upper_limit_is_where_the_written_out_wealth_reaches_the_level() -> None:
    """Each stake goes by the variance of the observations before it, and none takes more than three quarters of the wealth."""
    sample, alpha = np.random.default_rng(4).beta(2, 5, 50), 0.05
    limit = upper_limit(sample, alpha)
    wealth, squares, total, variance = 1.0, 0.25, 0.5, 0.25
    for place, value in enumerate(sample.tolist(), start=1):
        stake = min(math.sqrt(2 * math.log(1 / alpha) / (len(sample) * variance)), 0.75 / (1 - limit))
        wealth *= 1 + stake * (limit - value)
        total += value
        squares += (value - total / (place + 1)) ** 2
        variance = squares / (place + 1)
    assert wealth == pytest.approx(1 / alpha)
