"""The Pareto frontier and its hypervolume, against slow references."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk.statistics.estimates import mean_interval, student_t_quantile
from rlaif_sdk.statistics.pareto import hypervolume, nondominated

coordinates = st.integers(0, 5)
clouds = st.integers(1, 4).flatmap(lambda size: st.lists(st.tuples(*[coordinates] * size), min_size=1, max_size=8))


def as_array(points) -> np.ndarray:
    return np.array(points, dtype=np.float64)


def slow_frontier(points) -> list[bool]:
    def dominates(one, other):
        return all(a >= b for a, b in zip(one, other, strict=True)) and one != other

    return [not any(dominates(other, point) for other in points) for point in points]


def slow_volume(points) -> int:
    """Counts the unit cells below any point."""
    cells = itertools.product(range(6), repeat=len(points[0]))
    return sum(any(all(c < p for c, p in zip(cell, point, strict=True)) for point in points) for cell in cells)


@given(clouds)
def test_the_frontier_is_what_nothing_dominates(points) -> None:
    """Of points with ties and duplicates, in up to four objectives."""
    assert nondominated(as_array(points)).tolist() == slow_frontier(points)


@given(clouds)
def test_the_hypervolume_counts_every_cell_once(points) -> None:
    """On whole numbers it is a number of cells."""
    assert hypervolume(as_array(points), np.zeros(len(points[0]))) == pytest.approx(slow_volume(points))


@given(clouds)
def test_dominated_points_add_no_volume(points) -> None:
    """The frontier covers what all points cover, and no order of points or objectives changes it."""
    values = as_array(points)
    reference = np.full(values.shape[1], -1.0)
    whole = hypervolume(values, reference)
    assert hypervolume(values[nondominated(values)], reference) == pytest.approx(whole)
    assert hypervolume(values[::-1, ::-1], reference) == pytest.approx(whole)


def test_unmeasured_points_are_on_no_frontier() -> None:
    """NaN neither dominates nor is chosen, and has no volume."""
    values = np.array([[math.nan, 9.0], [1.0, 1.0], [0.0, 2.0]])
    assert nondominated(values).tolist() == [False, True, True]
    assert hypervolume(values, np.zeros(2)) == 1.0


def test_points_that_do_not_exceed_the_reference_have_no_volume() -> None:
    """In any one objective."""
    assert hypervolume(np.array([[5.0, 0.0], [0.0, 5.0]]), np.zeros(2)) == 0.0


@pytest.mark.parametrize(
    ("confidence", "degrees", "expected"),
    [(0.95, 1, 12.7062), (0.95, 2, 4.30265), (0.95, 3, 3.18245), (0.95, 9, 2.26216), (0.99, 4, 4.60409),
     (0.9, 30, 1.69726), (0.95, 200, 1.97190)],
)  # fmt: skip
def test_quantiles_of_student_s_t_are_those_of_the_tables(confidence, degrees, expected) -> None:
    """Of one degree of freedom and of many."""
    assert student_t_quantile(confidence, degrees) == pytest.approx(expected, abs=1e-4)


def test_an_interval_needs_two_values() -> None:
    """Of one value there is a mean alone, of none nothing; NaN counts for nothing."""
    assert mean_interval([1.0, 3.0, math.nan]) == (2.0, pytest.approx(12.7062, abs=1e-3))
    mean, half = mean_interval([5.0])
    assert mean == 5.0
    assert math.isnan(half)
    assert all(math.isnan(value) for value in mean_interval([]))
