"""Agreement of two raters, as the review tells it."""

from __future__ import annotations

import json
import math

from rlaif_sdk.preferences.review.estimates import agreement, contingency_table


def test_agreement_counts_equal_ratings_and_takes_out_chance() -> None:
    """Of ten items, eight are rated alike: .8 with Wilson's interval, and kappa .6 where chance gives half."""
    found = agreement([("1", "1")] * 4 + [("2", "2")] * 4 + [("1", "2"), ("2", "1")])
    assert (found.items, found.accuracy.value) == (10, 0.8)
    assert 0.48 < found.accuracy.low < 0.5
    assert abs(found.kappa.value - 0.6) < 1e-9
    assert found.kappa.low < 0.2


def test_no_ratings_and_one_category_measure_nothing() -> None:
    """Where chance explains all, kappa is not a number and the accuracy still is one; records have null."""
    nothing = agreement([])
    assert nothing.items == 0
    assert math.isnan(nothing.accuracy.value)
    same = agreement([("1", "1")] * 5)
    assert same.accuracy.value == 1
    assert math.isnan(same.kappa.value)
    assert json.loads(json.dumps(same.record(), allow_nan=False))["kappa"]["value"] is None


def test_a_table_counts_pairs_of_categories() -> None:
    """Rows are the first rater's categories, columns the second's, sorted."""
    assert contingency_table([("2", "tie"), ("1", "1"), ("2", "tie")]).tolist() == [[1, 0, 0], [0, 0, 2], [0, 0, 0]]
