"""Rankings beside slow references."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif_sdk.statistics.ranking import (
    bradley_terry,
    bradley_terry_intervals,
    compared_sets,
    elo,
    informative_games,
    mean_elo,
    undetermined,
)

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


def test_a_long_run_of_wins_is_fitted_too() -> None:
    """Newton's whole first step would lead where the curvature is 0."""
    one, other = bradley_terry(np.array([[0.0, 1e4], [0, 0]]), prior=1e-3)
    lost = 2e-3 / (1 + math.exp(-other)) + 1e4 / (1 + math.exp(one - other))
    assert one == -other
    assert lost == pytest.approx(1e-3, rel=1e-3)


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


def test_an_undefeated_policy_has_no_upper_bound() -> None:
    """Three wins of three: at least even with the loser, whatever the prior says; the loser has no lower bound."""
    first, second = bradley_terry_intervals(np.array([[[0.0, 3], [0, 0]]]), resamples=50)
    assert first.high == math.inf
    assert second.low == -math.inf
    reach = math.log(0.025 ** (1 / 3) / (1 - 0.025 ** (1 / 3)))
    assert first.low - second.value == pytest.approx(reach, abs=1e-6)
    assert second.high - first.value == pytest.approx(-reach, abs=1e-6)
    assert first.record()["high"] is None


def test_policies_that_never_met_are_not_compared() -> None:
    """Of two pairs without a game between them, each strength is open at both ends, and the sets are told."""
    wins = np.zeros((4, 4))
    wins[0, 1], wins[1, 0], wins[2, 3], wins[3, 2] = 3, 1, 2, 1
    assert compared_sets(wins) == [[0, 1], [2, 3]]
    found = bradley_terry_intervals(wins[None], resamples=50)
    assert all((each.low, each.high) == (-math.inf, math.inf) for each in found)
    wins[1, 0] = 0  # who won every game is no stronger than those that were not met
    assert np.all(undetermined(wins))


def test_players_far_apart_in_a_chain_of_games_are_one_set() -> None:
    """Each met the next one only; the seventh has no game."""
    wins = np.zeros((7, 7))
    wins[range(5), range(1, 6)] = 1
    assert compared_sets(wins) == [[0, 1, 2, 3, 4, 5], [6]]


def test_sets_that_only_won_or_only_lost_are_open_on_one_side() -> None:
    """A and B beat each other and C; D lost to C only: C has losses above and a win below, so nothing bounds it."""
    wins = np.zeros((4, 4))
    wins[0, 1] = wins[1, 0] = wins[0, 2] = wins[2, 3] = 2
    below, above = undetermined(wins)
    assert above.tolist() == [True, True, True, False]
    assert below.tolist() == [False, False, True, True]
    wins[3, 0] = 1
    assert not np.any(undetermined(wins))


def test_tables_of_games_are_fitted_together_as_each_by_itself() -> None:
    """A stack of tables has the strengths of its parts."""
    tables = np.random.default_rng(2).integers(0, 6, (5, 4, 4)).astype(float)
    assert bradley_terry(tables) == pytest.approx(np.array([bradley_terry(one) for one in tables]), abs=1e-8)


def test_elo_moves_by_k_times_the_surprise_and_keeps_the_sum() -> None:
    """The first game between equals moves half of k; a favourite gains less."""
    games = np.array([[0, 1], [0, 1]])
    [[first, second]] = elo(games[None, :1], np.array([[1.0]]), 2)
    assert (first, second) == (1008, 992)
    [[after, _]] = elo(games[None], np.ones((1, 2)), 2)
    assert after - 1008 == pytest.approx(16 * (1 - 1 / (1 + 10 ** (-16 / 400))))


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


def gain_of_a_game(wins: np.ndarray, one: int, other: int, prior: float = 0.5) -> float:
    """By how much the log-determinant of the precision rises, with the verdict's information expected by plain sums."""
    strengths = bradley_terry(wins, prior=prior)
    games, players = wins + wins.T, len(wins)
    precision = np.eye(players) * prior / 2
    for a in range(players):
        for b in range(a):
            chance = 1 / (1 + math.exp(strengths[b] - strengths[a]))
            d = np.eye(players)[a] - np.eye(players)[b]
            precision += games[a, b] * chance * (1 - chance) * np.outer(d, d)
    d = np.eye(players)[one] - np.eye(players)[other]
    deviation = math.sqrt(d @ np.linalg.inv(precision) @ d)
    grid = np.linspace(-8, 8, 4001)
    density = np.exp(-(grid**2) / 2)
    chances = 1 / (1 + np.exp(-(d @ strengths + grid * deviation)))
    information = float((density * chances * (1 - chances)).sum() / density.sum())
    return float(np.linalg.slogdet(precision + information * np.outer(d, d))[1] - np.linalg.slogdet(precision)[1])


@given(st.integers(3, 6).flatmap(lambda size: st.lists(st.floats(0, 1), min_size=size * size, max_size=size * size)))
@settings(max_examples=40, deadline=None)
def test_the_most_informative_game_is_that_of_the_greatest_gain(chances: list[float]) -> None:
    """No other game that was not played would raise the log-determinant of the strengths' precision more."""
    size = math.isqrt(len(chances))
    table = np.array(chances).reshape(size, size)
    wins = np.triu(np.where(table < 0.5, 2 * table, 0.0), 1)
    wins += np.where(wins.T > 0, 1 - wins.T, 0.0)
    open_games = [(a, b) for a in range(size) for b in range(a + 1, size) if not wins[a, b] + wins[b, a]]
    found = informative_games(wins, 1)
    assert len(found) == bool(open_games)
    if found:
        gains = {game: gain_of_a_game(wins, *game) for game in open_games}
        assert gains[found[0]] == pytest.approx(max(gains.values()), rel=1e-3)


def test_games_are_chosen_given_those_before_them() -> None:
    """Of four players who never met, two games concern all four; none that is not allowed is played."""
    assert {*itertools.chain(*informative_games(np.zeros((4, 4)), 2))} == {0, 1, 2, 3}
    allowed = np.zeros((4, 4), dtype=bool)
    allowed[1, 2] = True
    assert informative_games(np.zeros((4, 4)), 5, allowed_PP=allowed) == [(1, 2)]
    assert informative_games(np.zeros((4, 4)), 5, allowed_PP=np.zeros((4, 4), dtype=bool)) == []
