"""Length control and rankings beside slow references."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk.evaluation import length_controlled
from rlaif_sdk.evaluation.length_control import fit_logistic
from rlaif_sdk.statistics.ranking import bradley_terry, bradley_terry_intervals, elo, mean_elo


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-3, 3)), min_size=1, max_size=40), st.floats(0.01, 1))
def test_newton_finds_the_minimum(rows: list[tuple[float, float]], ridge: float) -> None:
    """The slope of the penalised cross-entropy is 0 there, and every neighbour is higher."""
    targets, feature = np.array(rows).T
    design = np.column_stack([np.ones(len(rows)), feature])

    def loss(at: np.ndarray) -> float:
        odds = design @ at
        return float(sum(np.logaddexp(0, o) - t * o for o, t in zip(odds, targets, strict=True)) + ridge / 2 * at @ at)

    found = fit_logistic(design, targets, ridge=ridge)
    for step in ([1e-3, 0], [-1e-3, 0], [0, 1e-3], [0, -1e-3]):
        assert loss(found) <= loss(found + step) + 1e-12


def test_newton_survives_labels_that_a_length_separates() -> None:
    """Separable outcomes would drive the coefficients to infinity; the penalty keeps them, and the interval wide."""
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
    assert found.value == pytest.approx(0.5, abs=1e-4)
    assert 0.02 < found.high - found.low < 0.1


@given(st.floats(-2, 2), st.integers(0, 99))
def test_length_control_turns_with_the_policies(theta: float, seed: int) -> None:
    """Exchanging the policies turns the win rate and its interval around one half."""
    draw = np.random.default_rng(seed)
    lengths = draw.uniform(50, 300, (60, 2))
    outcomes = (draw.uniform(size=60) < 1 / (1 + math.exp(-theta))).astype(float)
    found, turned = length_controlled(outcomes, lengths), length_controlled(1 - outcomes, lengths[:, ::-1])
    assert turned.value == pytest.approx(1 - found.value, abs=1e-6)
    assert turned.low == pytest.approx(1 - found.high, abs=1e-6)


def test_one_constant_difference_of_length_is_no_base_for_control() -> None:
    """All responses longer by ten cannot be told from a better policy; without any difference nothing is to control."""
    outcomes = np.array([1.0, 1, 0, 1])
    assert math.isnan(length_controlled(outcomes, np.array([[30.0, 20]] * 4)).value)
    assert length_controlled(outcomes, np.array([[20.0, 20]] * 4)).value == pytest.approx(0.75, abs=0.01)


WINS = st.integers(2, 5).flatmap(
    lambda players: st.lists(st.integers(0, 8), min_size=players**2, max_size=players**2).map(
        lambda flat: np.array(flat, float).reshape(players, players) * (1 - np.eye(players))
    )
)


@given(WINS, st.floats(0.2, 2))
def test_bradley_terry_maximises_its_likelihood(wins: np.ndarray, prior: float) -> None:
    """Expected wins equal wins for every player, the imaginary games included: the likelihood's slope is 0."""
    logs = bradley_terry(wins, prior=prior)
    assert logs.mean() == pytest.approx(0, abs=1e-6)
    # The imaginary player's strength is 1 before the mean is taken out: find it again by the sum of all slopes.
    slopes = []
    for shift in np.linspace(-3, 3, 2001):
        at = logs + shift
        slopes.append(sum(prior - 2 * prior / (1 + math.exp(-value)) for value in at))
    shift = np.interp(0, slopes[::-1], np.linspace(-3, 3, 2001)[::-1])
    at = logs + shift
    for player in range(len(wins)):
        expected = 2 * prior / (1 + math.exp(-at[player]))
        for other in range(len(wins)):
            games = wins[player, other] + wins[other, player]
            expected += games / (1 + math.exp(at[other] - at[player]))
        assert expected == pytest.approx(wins[player].sum() + prior, abs=1e-3)


def test_an_undefeated_player_and_one_who_never_played_have_finite_strengths() -> None:
    """Without the imaginary games the first would be infinite and the second unknown."""
    logs = bradley_terry(np.array([[0.0, 20, 0], [0, 0, 0], [0, 0, 0]]))
    assert np.isfinite(logs).all()
    assert logs[0] > logs[2] > logs[1]


def test_bradley_terry_finds_the_odds_again() -> None:
    """Of two who met often, the difference of strengths is the log-odds; the interval holds the truth."""
    wins = np.array([[0.0, 750], [250, 0]])
    one, other = bradley_terry(wins, prior=1e-3)
    assert one - other == pytest.approx(math.log(3), abs=1e-3)
    won = np.arange(300) % 4 > 0
    games = np.zeros((300, 2, 2))
    games[:, 0, 1], games[:, 1, 0] = won, 1 - won
    first, second = bradley_terry_intervals(games, resamples=200)
    assert first.low < math.log(3) / 2 < first.high
    assert first.high - first.low == pytest.approx(1.96 / math.sqrt(300 * 0.75 * 0.25), rel=0.2)
    assert (second.low, second.n) == (pytest.approx(-first.high, abs=1e-4), 300)


def test_elo_moves_by_k_times_the_surprise_and_keeps_the_sum() -> None:
    """The first game between equals moves half of k; a favourite gains less."""
    games = np.array([[0, 1], [0, 1]])
    first, second = elo(games[:1], np.array([1.0]), 2, k=32)
    assert (first, second) == (1016, 984)
    after, _ = elo(games, np.ones(2), 2, k=32)
    assert after - 1016 == pytest.approx(32 * (1 - 1 / (1 + 10 ** (-32 / 400))))


def test_elo_over_random_orders_is_the_same_for_any_given_order() -> None:
    """The rating of one order depends on it; its spread over orders is told."""
    draw = np.random.default_rng(1)
    games = np.array([draw.permutation(3)[:2] for _ in range(60)])
    outcomes = (draw.uniform(size=60) < 0.7).astype(float)
    ratings, spread = mean_elo(games, outcomes, 3)
    backwards, _ = mean_elo(games[::-1], outcomes[::-1], 3)
    assert ratings == pytest.approx(backwards, abs=3)
    assert ratings.sum() == pytest.approx(3000)
    assert (spread > 1).all()
