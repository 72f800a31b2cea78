"""Beliefs of a model compared with labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk.statistics.calibration import calibrate, calibrate_probs

pairs = st.lists(st.tuples(st.floats(-8, 8), st.floats(0, 1)), min_size=1, max_size=30)


def test_a_model_that_believes_its_labels_is_calibrated() -> None:
    """Differences that are the log-odds of the labels have no error, full agreement and no distance."""
    labels = np.array([0.1, 0.35, 0.6, 0.75, 0.97])
    found = calibrate(np.log(labels / (1 - labels)), labels)
    assert found.error == pytest.approx(0, abs=1e-12)
    assert found.label_distance == pytest.approx(0, abs=1e-12)
    assert found.agreement == 1


def test_beliefs_may_be_probabilities() -> None:
    """Probabilities are calibrated as their log-odds are; of 0 and 1 the cross-entropy stays finite."""
    probs, labels = np.array([0.1, 0.4, 0.9]), np.array([0.0, 1.0, 1.0])
    assert calibrate_probs(probs, labels).error == pytest.approx(calibrate(np.log(probs / (1 - probs)), labels).error)
    assert math.isfinite(calibrate_probs(np.array([0.0, 1.0]), np.array([1.0, 0.0])).cross_entropy)


def slow_error(rows: list[tuple[float, float]], bins: int) -> float:
    """The expected calibration error, pair by pair."""
    sorted_into: dict[int, list[tuple[float, float]]] = {}
    for gap, label in rows:
        confidence = 1 / (1 + math.exp(-abs(gap)))
        favoured = label if gap > 0 else 1 - label if gap < 0 else 0.5
        index = min(int(np.searchsorted(np.linspace(0.5, 1, bins + 1), confidence, side="right")) - 1, bins - 1)
        sorted_into.setdefault(index, []).append((confidence, favoured))
    total = 0.0
    for members in sorted_into.values():
        confidence, favoured = (sum(values) / len(members) for values in zip(*members, strict=True))
        total += len(members) * abs(confidence - favoured)
    return total / len(rows)


@given(pairs, st.integers(1, 20))
def test_the_error_is_that_of_the_definition(rows: list[tuple[float, float]], bins: int) -> None:
    """The binned figures equal a loop over pairs, and every pair is in one bin."""
    found = calibrate(*zip(*rows, strict=True), bins=bins)
    assert found.error == pytest.approx(slow_error(rows, bins), abs=1e-9)
    assert sum(part.pairs for part in found.bins) == found.pairs == len(rows)


@given(pairs)
def test_which_completion_is_called_chosen_does_not_matter(rows: list[tuple[float, float]]) -> None:
    """Swapped pairs with 1 - p have the same figures."""
    gaps, labels = (np.array(column) for column in zip(*rows, strict=True))
    found, swapped = calibrate(gaps, labels), calibrate(-gaps, 1 - labels)
    assert found.metrics() == pytest.approx(swapped.metrics(), abs=1e-9, nan_ok=True)


@given(pairs)
def test_the_cross_entropy_is_the_mean_loss_of_a_pair(rows: list[tuple[float, float]]) -> None:
    """Written out with the two probabilities."""
    beliefs = [1 / (1 + math.exp(-gap)) for gap, _ in rows]
    losses = [
        -label * math.log(belief) - (1 - label) * math.log(1 - belief)
        for belief, (_, label) in zip(beliefs, rows, strict=True)
    ]
    found = calibrate(*zip(*rows, strict=True))
    assert found.cross_entropy == pytest.approx(sum(losses) / len(rows), abs=1e-9)


def test_confidence_without_ground_is_an_error() -> None:
    """A model that is sure of pairs whose label is even is off by its confidence less a half."""
    assert calibrate([30.0, -30.0], [0.5, 0.5]).error == pytest.approx(0.5)


def test_agreement_leaves_out_even_labels_and_halves_undecided_beliefs() -> None:
    """Right, wrong and undecided count 1, 0 and 0.5; a label of 0.5 favours none."""
    assert calibrate([1.0, 1.0, 0.0, 3.0], [0.9, 0.2, 0.8, 0.5]).agreement == 0.5
    assert math.isnan(calibrate([1.0], [0.5]).agreement)


@pytest.mark.parametrize(("gaps", "labels", "bins"), [([], [], 10), ([1.0], [1.0, 0.0], 10), ([1.0], [1.0], 0)])
def test_what_cannot_be_compared_is_refused(gaps: list[float], labels: list[float], bins: int) -> None:
    """No pairs, unequal numbers, no bins."""
    with pytest.raises(ValueError, match=r"must be"):
        calibrate(gaps, labels, bins=bins)
