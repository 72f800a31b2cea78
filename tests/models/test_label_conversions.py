"""Logits, probabilities and log-odds, and labels by name."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rlaif_sdk import ConfigError, label_index, label_log_odds, label_probabilities

LOGITS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.floats(-30, 30, width=32)
)


@given(LOGITS)
def test_probabilities_of_one_choice_sum_to_one(logits_NL: np.ndarray) -> None:
    """Softmax over two labels or more; each probability is that of its definition."""
    if logits_NL.shape[1] == 1:
        return
    probabilities_NL = label_probabilities(logits_NL)
    np.testing.assert_allclose(probabilities_NL.sum(axis=1), 1)
    slow = [[math.exp(z) / math.fsum(map(math.exp, row)) for z in row] for row in logits_NL.tolist()]
    np.testing.assert_allclose(probabilities_NL, slow, rtol=1e-9)


@given(LOGITS)
def test_each_label_of_several_questions_is_a_sigmoid(logits_NL: np.ndarray) -> None:
    """With ``multi_label``, and with a single logit, no label knows of the others."""
    slow = [[1 / (1 + math.exp(-z)) for z in row] for row in logits_NL.tolist()]
    np.testing.assert_allclose(
        label_probabilities(logits_NL, problem_type="multi_label_classification"), slow, rtol=1e-9
    )
    np.testing.assert_allclose(label_probabilities(logits_NL[:, :1])[:, 0], np.array(slow)[:, 0], rtol=1e-9)


@given(LOGITS, st.booleans())
def test_log_odds_are_those_of_the_probability(logits_NL: np.ndarray, multi_label: bool) -> None:
    """log(p / (1 - p)), checked where forming p loses no digits."""
    probabilities_NL = label_probabilities(
        logits_NL, problem_type="multi_label_classification" if multi_label else "single_label_classification"
    )
    log_odds_NL = label_log_odds(
        logits_NL, problem_type="multi_label_classification" if multi_label else "single_label_classification"
    )
    inner = (probabilities_NL > 1e-4) & (probabilities_NL < 1 - 1e-4)
    expected = np.log(probabilities_NL[inner] / (1 - probabilities_NL[inner]))
    np.testing.assert_allclose(log_odds_NL[inner], expected, atol=1e-8)


@given(LOGITS, st.floats(-50, 50))
def test_one_choice_does_not_change_when_all_logits_move(logits_NL: np.ndarray, shift: float) -> None:
    """Softmax and its log-odds depend on differences alone."""
    if logits_NL.shape[1] == 1:
        return
    moved_NL = logits_NL.astype(np.float64) + shift
    np.testing.assert_allclose(label_probabilities(moved_NL), label_probabilities(logits_NL), rtol=1e-9)
    np.testing.assert_allclose(label_log_odds(moved_NL), label_log_odds(logits_NL), atol=1e-9)


def test_log_odds_do_not_saturate_where_the_probability_does() -> None:
    """A model that is very sure still tells two texts apart; nothing overflows."""
    logits_NL = [[1000.0, -1000.0], [900.0, -1000.0]]
    assert label_probabilities(logits_NL).tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert label_log_odds(logits_NL).tolist() == [[2000.0, -2000.0], [1900.0, -1900.0]]
    assert label_probabilities([[-1000.0], [1000.0]]).tolist() == [[0.0], [1.0]]


def test_a_label_is_found_whatever_its_case() -> None:
    """Exact but for case: part of a name is no match."""
    assert label_index(("nothate", "hate"), "NotHate") == 0
    assert label_index(("nothate", "hate"), "hate") == 1
    with pytest.raises(ConfigError, match=r"'not' is no label.*labels: nothate, hate"):
        label_index(("nothate", "hate"), "not")


def test_a_name_that_two_labels_share_is_refused() -> None:
    """Which of them was meant cannot be known."""
    with pytest.raises(ConfigError, match="more than one"):
        label_index(("Hate", "hate"), "hate")
