"""Accuracy and Cohen's kappa, beside slow references."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk.preferences.review.agreement import agreement, cohen_kappa, contingency_table, wilson_interval

tables = st.integers(2, 4).flatmap(
    lambda size: st.lists(st.lists(st.integers(0, 30), min_size=size, max_size=size), min_size=size, max_size=size)
)


def kappa_of(shares: list[list[float]]) -> float:
    """Kappa by its definition, of shares that need not add up to 1 exactly."""
    total = sum(map(sum, shares))
    observed = sum(shares[i][i] for i in range(len(shares))) / total
    by_chance = sum(sum(shares[i]) * sum(row[i] for row in shares) for i in range(len(shares))) / total**2
    return (observed - by_chance) / (1 - by_chance)


def delta_error(table: list[list[int]]) -> float:
    """The standard error by the delta method: numeric gradient, multinomial covariance."""
    items = sum(map(sum, table))
    size = range(len(table))
    shares = [[count / items for count in row] for row in table]
    step = 1e-6
    gradient = []
    for i in size:
        for j in size:
            up, down = ([row[:] for row in shares] for _ in range(2))
            up[i][j] += step
            down[i][j] -= step
            gradient.append((kappa_of(up) - kappa_of(down)) / (2 * step))
    flat = [share for row in shares for share in row]
    mean = sum(g * p for g, p in zip(gradient, flat, strict=True))
    return math.sqrt(max(0.0, sum(g * g * p for g, p in zip(gradient, flat, strict=True)) - mean**2) / items)


def usable(table: list[list[int]]) -> bool:
    """Neither empty nor all in one cell, so that chance does not explain everything."""
    items = sum(map(sum, table))
    return items > 0 and all(count < items for row in table for count in row)


@given(tables.filter(usable))
def test_kappa_and_its_error_are_those_of_the_definition_and_the_delta_method(table: list[list[int]]) -> None:
    """For any table of counts, within rounding."""
    kappa, error = cohen_kappa(table)
    assert kappa == pytest.approx(kappa_of([[float(count) for count in row] for row in table]), abs=1e-9)
    assert error == pytest.approx(delta_error(table), abs=2e-4)


def test_kappa_of_a_published_table() -> None:
    """Fleiss, Cohen and Everitt (1969): kappa .429 of 200 patients with a standard error of .054 (unweighted)."""
    kappa, error = cohen_kappa([[106, 10, 4], [22, 28, 10], [2, 12, 6]])
    assert kappa == pytest.approx(0.429, abs=5e-4)
    assert error == pytest.approx(0.054, abs=5e-4)


@given(tables.filter(usable), st.randoms(use_true_random=False))
def test_kappa_does_not_depend_on_the_order_of_categories_or_of_raters(
    table: list[list[int]], shuffler: random.Random
) -> None:
    """Names mean nothing, and neither rater is the standard."""
    order = list(range(len(table)))
    shuffler.shuffle(order)
    renamed = [[table[j][i] for j in order] for i in order]
    assert cohen_kappa(renamed) == pytest.approx(cohen_kappa(table), abs=1e-9)


def test_no_ratings_and_one_category_measure_nothing() -> None:
    """Where chance explains all, kappa is not a number and the accuracy still is one."""
    nothing = agreement([])
    assert nothing.items == 0
    assert math.isnan(nothing.accuracy)
    assert math.isnan(nothing.kappa)
    same = agreement([("1", "1")] * 5)
    assert same.accuracy == 1
    assert math.isnan(same.kappa)


def test_an_interval_of_no_width_is_not_given() -> None:
    """Perfect agreement on four items is no proof of kappa 1, so its interval is not [1, 1]."""
    perfect = agreement([("1", "1"), ("2", "2")] * 2)
    assert perfect.kappa == 1
    assert all(map(math.isnan, perfect.kappa_interval))
    assert 0.5 < perfect.accuracy_interval[0] < 0.52
    assert perfect.accuracy_interval[1] == 1


def test_the_interval_of_kappa_covers_the_truth_about_as_often_as_it_says() -> None:
    """Over 400 samples of 100 items from a known table, the 95% interval holds the true kappa in 92 to 98%."""
    generator = random.Random(7)
    cells = [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")]
    shares = [0.4, 0.1, 0.15, 0.35]
    truth = kappa_of([shares[:2], shares[2:]])
    held = 0
    for _ in range(400):
        low, high = agreement(generator.choices(cells, shares, k=100)).kappa_interval
        held += low <= truth <= high
    assert 0.92 <= held / 400 <= 0.98


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_solves_its_equation(counts: tuple[int, int]) -> None:
    """Each bound is a share p with |k/n - p| = z sqrt(p (1 - p) / n), and the interval holds k/n."""
    successes, trials = counts
    low, high = wilson_interval(successes, trials)
    assert low - 1e-12 <= successes / trials <= high + 1e-12
    for bound in (low, high):
        distance = 1.959963984540054 * math.sqrt(bound * (1 - bound) / trials)
        assert abs(successes / trials - bound) == pytest.approx(distance, abs=1e-6)


def test_a_table_counts_pairs_of_categories() -> None:
    """Rows are the first rater's categories, columns the second's, sorted."""
    assert contingency_table([("2", "tie"), ("1", "1"), ("2", "tie")]) == [[1, 0, 0], [0, 0, 2], [0, 0, 0]]
