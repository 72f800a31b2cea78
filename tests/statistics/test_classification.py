"""Metrics of two classes beside their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk.statistics.agreement import cohens_kappa, fleiss_kappa, symmetric_kappa
from rlaif_sdk.statistics.classification import LabelledScores, auc_over_groups, brier
from rlaif_sdk.statistics.estimates import bootstrap

ROWS = st.lists(st.tuples(st.integers(-3, 3), st.sampled_from([0, 1])), min_size=1, max_size=30)


@given(ROWS)
def test_the_area_is_how_often_a_positive_stands_above_a_negative(rows: list[tuple[int, int]]) -> None:
    """Pair by pair, ties half."""
    positives = [score for score, label in rows if label]
    negatives = [score for score, label in rows if not label]
    scores, labels = np.array(rows, dtype=float).T
    wins = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positives for n in negatives]
    found = LabelledScores(scores, labels).roc_auc()
    assert (math.isnan(found) and not wins) or found == pytest.approx(np.mean(wins))


@given(ROWS)
def test_average_precision_sums_precision_over_recall(rows: list[tuple[int, int]]) -> None:
    """Threshold by threshold, as scikit-learn defines it."""
    scores, labels = np.array(rows, dtype=float).T
    found, before, total = 0.0, 0.0, labels.sum()
    for level in sorted(set(scores.tolist()), reverse=True):
        hits = labels[scores >= level].sum()
        found += (hits - before) / max(total, 1) * hits / (scores >= level).sum()
        before = hits
    value = LabelledScores(scores, labels).average_precision()
    assert (math.isnan(value) and not total) or value == pytest.approx(found)


@given(ROWS, st.integers(0, 99))
def test_a_weight_of_two_is_a_row_twice(rows: list[tuple[int, int]], seed: int) -> None:
    """So resampling may count rows instead of copying them."""
    scores, labels = np.array(rows, dtype=float).T
    weights = np.random.default_rng(seed).integers(0, 3, len(rows))
    copied = (np.repeat(scores, weights), np.repeat(labels, weights))
    once, often = LabelledScores(scores, labels), LabelledScores(*copied)
    assert once.roc_auc(weights.astype(float)) == pytest.approx(often.roc_auc(), nan_ok=True)
    assert once.average_precision(weights.astype(float)) == pytest.approx(often.average_precision(), nan_ok=True)


def test_values_of_scikit_learn() -> None:
    """Its example of both metrics, and Brier's score."""
    labels, scores = np.array([0.0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    assert LabelledScores(scores, labels).roc_auc() == pytest.approx(0.75)
    assert LabelledScores(scores, labels).average_precision() == pytest.approx(0.8333333333)
    assert brier(np.array([0.1, 0.9, 0.8, 0.3]), np.array([0.0, 1, 1, 0])) == pytest.approx(0.0375)
    assert math.isnan(brier(np.array([]), np.array([])))


def test_the_best_threshold_tells_the_classes_apart() -> None:
    """It stands halfway between the scores that it separates; one class has none."""
    assert LabelledScores(np.array([0.0, 1, 2, 3]), np.array([0.0, 0, 1, 1])).best_threshold() == 1.5
    assert math.isnan(LabelledScores(np.array([0.0, 1]), np.ones(2)).best_threshold())


def test_intervals_keep_the_rows_of_a_group_together() -> None:
    """Ten copies of each row make the interval of the rows, not one of ten times as many."""
    draw = np.random.default_rng(0)
    scores, labels = draw.normal(size=60), (np.arange(60) % 2).astype(float)
    one = bootstrap(lambda weights: LabelledScores(scores, labels).roc_auc(weights), np.arange(60), resamples=200)
    many = [np.repeat(values, 10) for values in (scores, labels, np.arange(60))]
    copies = bootstrap(lambda weights: LabelledScores(many[0], many[1]).roc_auc(weights), many[2], resamples=200)
    assert (copies.low, copies.high) == pytest.approx((one.low, one.high), abs=0.01)


def test_a_resample_that_lacks_a_class_is_left_out_of_the_interval() -> None:
    """With one positive of ten rows a third of the resamples have none, and the others still make an interval."""
    scores, labels = np.arange(10.0), (np.arange(10) == 7).astype(float)
    found = bootstrap(LabelledScores(scores, labels).roc_auc, np.arange(10), resamples=200)
    assert found.value == pytest.approx(7 / 9)
    assert found.low < found.value < found.high


def test_one_group_of_rows_has_no_interval() -> None:
    """One prompt does not show how prompts differ."""
    found = bootstrap(LabelledScores(np.arange(4.0), np.array([0.0, 1, 0, 1])).roc_auc, np.full(4, 9), resamples=5)
    assert (found.value, found.n) == (0.75, 4)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_the_symmetric_kappa_rests_on_as_many_pairs() -> None:
    """Either numbering is looked at, and no pair counts twice."""
    counts = np.array([[20.0, 5, 1], [3, 12, 2], [0, 4, 3]])
    turned = counts[[1, 0, 2]][:, [1, 0, 2]]
    found, both = symmetric_kappa(counts), cohens_kappa((counts + turned) / 2)
    assert (found.value, found.low, found.high) == (both.value, both.low, both.high)
    assert found.n == cohens_kappa(counts).n == 50


def test_kappa_is_scikit_learns() -> None:
    """Of a rater who always says one category 0, whatever the other says; else ``cohen_kappa_score``'s value."""
    always = np.array([[27.0, 13.0, 0], [0, 0, 0], [0, 0, 0]])
    assert cohens_kappa(always).value == pytest.approx(0)
    assert cohens_kappa(np.array([[20.0, 5.0, 1], [3.0, 12.0, 2], [0, 4, 3]])).value == pytest.approx(0.5009980040)


def test_kappa_of_several_annotators_is_fleiss() -> None:
    """The worked example of Fleiss 1971 as commonly printed: ten subjects, fourteen raters, five categories: 0.210."""
    counts = np.array(
        [
            [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
            [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
        ],
        dtype=float,
    )  # fmt: skip
    found = fleiss_kappa(counts)
    assert found.value == pytest.approx(0.20993070442195522)
    assert found.low < found.value < found.high
    assert math.isnan(fleiss_kappa(np.array([[1.0, 0], [0, 1]])).value)
    assert math.isnan(fleiss_kappa(np.array([[2.0, 0], [3, 0]])).value)


@pytest.mark.parametrize("each", [1, 2, 5, 40])
def test_classes_told_apart_are_not_certain_to_be(each: int) -> None:
    """Every resample is told apart too; the interval ends where so much luck has the chance that is asked for."""
    scores, labels = np.arange(2.0 * each), np.repeat([0.0, 1.0], each)
    found, turned = (auc_over_groups(scores, own, np.arange(2 * each)) for own in (labels, labels[::-1]))
    z2, others = 1.959964**2, each - 1
    spread = 1 + others * ((1 - found.low) / (2 - found.low) + found.low / (1 + found.low))
    assert (found.value, found.high) == (1, pytest.approx(1))
    assert 1 - found.low == pytest.approx(z2 * found.low * spread / each**2)
    assert (turned.low, turned.high) == pytest.approx((0, 1 - found.low))


def test_copies_of_a_prompt_make_an_area_no_surer() -> None:
    """Two prompts with ten rows of either class each are two trials of either."""
    scores, labels, prompts = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 1, 0, 1])
    once = auc_over_groups(scores, labels, prompts)
    often = auc_over_groups(*(np.tile(values, 10) for values in (scores, labels, prompts)))
    assert (often.low, often.high, often.n) == (pytest.approx(once.low), pytest.approx(once.high), 40)


@pytest.mark.slow
def test_the_interval_of_an_area_covers_the_truth_about_as_often_as_it_says() -> None:
    """Of few rows with normal scores, for which the area is known."""
    shift, draw = 2.5, np.random.default_rng(3)
    truth = 0.5 * (1 + math.erf(shift / 2))
    labels = np.repeat([0.0, 1.0], 12)
    found = [auc_over_groups(draw.normal(size=24) + shift * labels, labels, np.arange(24)) for _ in range(40)]
    assert sum(each.low <= truth <= each.high for each in found) >= 36


def test_resamples_that_are_all_alike_give_no_interval() -> None:
    """Neither of the average precision and the threshold of classes told apart nor of a kappa of 1."""
    scores = LabelledScores(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.0, 0.0, 1.0, 1.0]))
    one_class = bootstrap(lambda weights: scores.average_precision() * float(weights.sum() > 0), np.arange(4))
    agreed = fleiss_kappa(np.array([[3.0, 0.0], [0.0, 3.0]] * 4))
    assert (one_class.value, agreed.value) == (1, pytest.approx(1))
    assert math.isnan(one_class.low + one_class.high)
    assert math.isnan(agreed.low + agreed.high)
