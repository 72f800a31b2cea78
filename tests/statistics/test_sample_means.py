"""Means, standard errors and paired changes."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk.statistics.estimates import SampleMean, comparison, paired_change, sample_mean, weighted_mean

numbers = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30)


@given(numbers)
def test_the_standard_error_is_that_of_the_sample_mean(values: list[float]):
    """Sample deviation (n - 1) over the root of n, as the standard library has it."""
    found = sample_mean(np.array(values))
    assert found.mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert found.standard_error == pytest.approx(statistics.stdev(values) / math.sqrt(len(values)), abs=1e-9)


@given(numbers, st.floats(-10, 10))
def test_a_constant_shift_is_measured_without_error(values: list[float], shift: float):
    """The change is paired: how much the rows differ among themselves does not blur it."""
    before = np.array(values)
    change = paired_change(before, before + shift)
    assert change.mean == pytest.approx(shift, abs=1e-9)
    assert change.standard_error == pytest.approx(0, abs=1e-9)


def test_unscored_rows_count_neither_as_zero_nor_as_rows():
    """NaN is left out, from a change if either side has it."""
    assert sample_mean(np.array([1.0, np.nan, 3.0])) == SampleMean(2.0, 1.0, 2)
    assert paired_change(np.array([1.0, np.nan, 3.0]), np.array([2.0, 5.0, np.nan])).n == 1


def test_nothing_measured_is_null_in_json():
    """NaN is no JSON, and 0 would be a lie."""
    assert sample_mean(np.array([np.nan])).to_dict() == {"mean": None, "standard_error": None, "n": 0}
    assert sample_mean(np.array([0.5])).to_dict() == {"mean": 0.5, "standard_error": None, "n": 1}


@pytest.mark.parametrize(
    ("mean", "error", "exceeds"),
    [(0.2, 0.1, True), (0.1, 0.2, False), (-0.3, 0.1, False), (math.nan, 0.1, False), (0.2, math.nan, False)],
)
def test_a_rise_counts_only_beyond_its_error(mean: float, error: float, exceeds: bool):
    """A fall, a rise within the error, and one of unknown error are none."""
    assert SampleMean(mean, error, 9).exceeds_error is exceeds


def test_unpaired_values_are_refused():
    """Broadcasting would compare each row with every other."""
    with pytest.raises(ValueError, match="one shape"):
        paired_change(np.zeros(3), np.zeros(1))


def test_estimates_that_are_not_known_are_null() -> None:
    """``metrics.json`` is JSON: a measure without values has null for mean and error."""
    estimates = comparison({"a": np.array([math.nan])}, {"a": np.array([1.0])})["a"]
    assert estimates["before"] == {"mean": None, "standard_error": None, "n": 0}
    assert estimates["change"]["n"] == 0


def test_a_mean_is_read_as_it_was_written() -> None:
    """null is NaN again."""
    assert SampleMean.from_dict(SampleMean(0.5, 0.1, 3).to_dict()) == SampleMean(0.5, 0.1, 3)
    assert math.isnan(SampleMean.from_dict(SampleMean(math.nan, math.nan, 0).to_dict()).standard_error)


def test_a_weighted_mean_of_what_never_counts_is_not_known() -> None:
    """A category that a resample lacks has no accuracy, and not one of 0."""
    assert weighted_mean(np.array([1.0, 0.0]), np.array([3.0, 1.0])) == 0.75
    assert math.isnan(weighted_mean(np.array([1.0]), np.array([0.0])))
