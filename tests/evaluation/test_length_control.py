"""Length control beside AlpacaEval's own code, whose results on these rows are recorded."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif_sdk.evaluation import length_controlled
from rlaif_sdk.evaluation.length_control import fit_logistic, length_overlap


def preferences(
    seed: int, theta: float, phi: float, gamma: float, longer: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """300 soft preferences with the responses' lengths and the instructions' difficulties."""
    draw = np.random.default_rng(seed)
    lengths = np.round(np.column_stack([draw.uniform(100, 500, 300) + longer, draw.uniform(100, 500, 300)]))
    difficulties = np.round(draw.normal(size=300), 3)
    x = np.tanh((d := lengths[:, 0] - lengths[:, 1]) / d.std(ddof=1))
    odds = theta + phi * x + gamma * difficulties + draw.normal(size=300)
    return np.round(1 / (1 + np.exp(-odds)), 3), lengths, difficulties


@pytest.mark.parametrize(
    ("rows", "minimal", "with_difficulty"),
    [
        ((0, 0.8, -1.5, 0, 60), 0.65210199, 0.64908236),
        ((1, -1.2, 2.0, 0, -80), 0.25340430, 0.25481372),
        ((2, -2.0, 1.0, 1.5, 40), 0.20664723, 0.20512621),
        ((3, 0.1, 0.05, 0, 0), 0.52399814, 0.52399730),
    ],
)
def test_the_win_rate_at_equal_length_is_alpaca_evals(
    rows: tuple[int, float, float, float, float], minimal: float, with_difficulty: float
) -> None:
    """Its ``length_controlled_minimal`` and ``length_controlled_noreg`` (scikit-learn's liblinear) give these values."""
    prob_1, lengths, difficulties = preferences(*rows)
    found = length_controlled(prob_1, lengths)
    assert found.value == pytest.approx(minimal, abs=5e-4)
    assert found.low < found.value < found.high
    assert length_controlled(prob_1, lengths, difficulty_N=difficulties).value == pytest.approx(
        with_difficulty, abs=5e-4
    )


def test_soft_preferences_are_not_rounded() -> None:
    """Probabilities of .55 are no certain wins: the win rate at equal length is theirs."""
    lengths = np.random.default_rng(4).uniform(100, 300, (200, 2))
    assert length_controlled(np.full(200, 0.55), lengths).value == pytest.approx(0.55, abs=0.01)


@pytest.mark.parametrize("shorter", [0, 4, 9])
def test_where_lengths_do_not_overlap_there_is_no_win_rate_at_equal_length(shorter: int) -> None:
    """With fewer than a tenth of the pairs on one side the fit extrapolates; a tenth is enough."""
    lengths = np.column_stack([np.full(100, 100.0), np.full(100, 200.0)])
    lengths[:shorter] = lengths[:shorter, ::-1]
    outcomes = (np.arange(100) % 3 == 0).astype(float)
    assert length_overlap(lengths) == shorter / 100
    for feature in ("difference", "ratio"):
        assert math.isnan(length_controlled(outcomes, lengths, feature=feature).value)
    lengths[:10] = [200.0, 100.0]
    assert 0 < length_controlled(outcomes, lengths).value < 1


def check_minimum(targets: np.ndarray, feature: np.ndarray, strength: float) -> None:
    """No neighbour of the fit has a lower penalised cross-entropy."""
    design = np.column_stack([np.ones(len(feature)), feature])

    def loss(at: np.ndarray) -> float:
        odds = design @ at
        return float(np.abs(at).sum() + strength * (np.logaddexp(0, odds) - targets * odds).sum())

    found = fit_logistic(design, targets, strength=strength)
    for step in ([1e-2, 0], [-1e-2, 0], [0, 1e-2], [0, -1e-2]):
        assert loss(found) <= loss(found + step) + 1e-6


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-3, 3)), min_size=1, max_size=40), st.floats(0.01, 100))
def test_the_fit_finds_the_minimum(rows: list[tuple[float, float]], strength: float) -> None:
    """No neighbour has a lower penalised cross-entropy."""
    targets, feature = np.array(rows).T
    check_minimum(targets, feature, strength)


def test_a_fit_whose_line_search_gives_up_is_begun_again() -> None:
    """Here L-BFGS-B stopped .03 above the minimum."""
    targets = np.array(
        [
            0.013757030401799764,
            1.0,
            0.5,
            0.0,
            0.0,
            0.0,
            0.013757030401799764,
            0.5,
            0.013757030401799764,
            0.5,
            1.0,
            1.0,
            1.0,
            0.5,
            1.0,
            0.013757030401799764,
            0.0,
            0.0,
            1.0,
            0.5,
            0.5,
            0.5,
            0.0,
            0.0,
            0.013757030401799764,
            0.0,
            1.0,
            0.013757030401799764,
            0.0,
            0.5,
            0.013757030401799764,
            0.013757030401799764,
            1.0,
            0.0,
            0.5,
            1.0,
            0.013757030401799764,
            0.013757030401799764,
        ]
    )
    feature = np.array(
        [
            3.0,
            3.0,
            -3.0,
            3.0,
            1.0,
            1.0,
            -3.0,
            3.0,
            0.0,
            3.0,
            1.0,
            1.0,
            2.0,
            1.0,
            1.0,
            -0.8355610885990788,
            3.0,
            2.0,
            -0.8355610885990788,
            -0.8355610885990788,
            1e-05,
            1.0,
            -0.8355610885990788,
            2.0,
            1e-05,
            2.0,
            2.0,
            3.0,
            3.0,
            -0.8355610885990788,
            0.0,
            2.0,
            -3.0,
            3.0,
            2.0,
            2.0,
            2.0,
            1e-05,
        ]
    )
    check_minimum(targets, feature, strength=26.189290703612322)


def test_labels_that_a_length_separates_have_a_wide_interval() -> None:
    """Separable outcomes would drive the coefficients to infinity; the penalty keeps them, and the interval is wide."""
    lengths = np.array([[100.0 + 50 * (row % 2), 125.0] for row in range(40)])
    found = length_controlled((lengths[:, 0] > 125).astype(float), lengths)
    assert found.value == pytest.approx(0.5, abs=1e-6)
    assert found.high - found.low > 0.5
    won = length_controlled(np.ones(40), lengths)
    assert 0.9 < won.value < 1
    assert won.low < 0.97


@pytest.mark.parametrize("feature", ["difference", "ratio"])
def test_length_control_takes_out_what_length_alone_wins(feature: str) -> None:
    """A judge that likes the longer response makes the longer policy win; at equal length it wins half."""
    draw = np.random.default_rng(0)
    lengths = np.column_stack([draw.uniform(150, 450, 4000), draw.uniform(100, 300, 4000)])
    x = np.tanh((d := lengths[:, 0] - lengths[:, 1]) / d.std()) if feature == "difference" else None
    x = lengths[:, 0] / lengths[:, 1] - 1 if x is None else x
    outcomes = 1 / (1 + np.exp(-2 * x))
    assert outcomes.mean() > 0.6
    found = length_controlled(outcomes, lengths, feature=feature)
    assert found.value == pytest.approx(0.5, abs=1e-3)
    assert 0.02 < found.high - found.low < 0.1


@settings(max_examples=10)  # each has two bootstraps
@given(st.floats(-2, 2), st.integers(0, 99))
def test_length_control_turns_with_the_policies(theta: float, seed: int) -> None:
    """Exchanging the policies turns the win rate and its interval around one half."""
    draw = np.random.default_rng(seed)
    lengths = draw.uniform(50, 300, (60, 2))
    outcomes = (draw.uniform(size=60) < 1 / (1 + math.exp(-theta))).astype(float)
    found, turned = length_controlled(outcomes, lengths), length_controlled(1 - outcomes, lengths[:, ::-1])
    assert turned.value == pytest.approx(1 - found.value, abs=1e-4)
    assert turned.low == pytest.approx(1 - found.high, abs=1e-3)


def test_without_any_difference_of_length_nothing_is_to_control() -> None:
    """The win rate at equal length is then the win rate, but for the penalty."""
    outcomes = np.tile([1.0, 1, 0, 1], 100)
    assert length_controlled(outcomes, np.full((400, 2), 20.0)).value == pytest.approx(0.75, abs=0.01)
