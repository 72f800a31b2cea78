"""Several policies ranked by who won against whom: Bradley and Terry's model, and Elo's ratings."""

from __future__ import annotations

import math

import numpy as np

from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.estimates import RESAMPLES, Estimate, Indices, bootstrap_weights, percentiles

PRIOR = 0.5
_MOST_ROUNDS = 20_000
ELO_PER_NAT = 400 / math.log(10)
"""Elo's points for each nat of log-strength: 400 points are odds of ten to one."""


def bradley_terry(wins_PP: Array, *, prior: float = PRIOR, tolerance: float = 1e-9) -> Array:
    """The log-strengths (P,) of P players in nats, their mean 0: log-odds of a win are differences of them.

    P(i beats j) = s_i / (s_i + s_j) (Bradley and Terry 1952), by the minorisation-maximisation of Hunter 2004 (Ann.
    Statist. 32, equation 3). Each player also has ``prior`` wins and as many losses against an imaginary player of
    strength 1, so that one who never lost, or never met the others, gets a finite strength.

    Args:
        wins_PP: How often the row's player beat the column's; a tie is half a win for each.
        prior: Above 0; imaginary wins and losses of every player.
        tolerance: The largest change of a log-strength at which the iteration ends.
    """
    games_PP = wins_PP + wins_PP.T
    won_P = wins_PP.sum(axis=1) + prior
    strength_P = np.ones(len(wins_PP))
    for _ in range(_MOST_ROUNDS):
        expected_P = (games_PP / (strength_P[:, None] + strength_P[None, :])).sum(axis=1) + 2 * prior / (strength_P + 1)
        next_P = won_P / expected_P
        change = float(np.abs(np.log(next_P / strength_P)).max())
        strength_P = next_P
        if change < tolerance:
            break
    logs_P: Array = np.log(strength_P) - np.log(strength_P).mean()
    return logs_P


def bradley_terry_intervals(
    wins_GPP: Array,
    *,
    prior: float = PRIOR,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Estimate]:
    """`bradley_terry` with percentile intervals of a bootstrap over G groups of games, such as prompts.

    Args:
        wins_GPP: The wins in each group.
        prior: See `bradley_terry`.
        confidence: Between 0 and 1.
        resamples: How many are drawn.
        seed: Of the draws.
    """
    strengths_P = bradley_terry(wins_GPP.sum(axis=0), prior=prior)
    drawn = bootstrap_weights(len(wins_GPP), resamples=resamples, seed=seed)
    resampled_RP = np.array(
        [bradley_terry(np.tensordot(weights_G, wins_GPP, 1), prior=prior, tolerance=1e-6) for weights_G in drawn]
    )
    games_P = (wins_GPP.sum(axis=0) + wins_GPP.sum(axis=0).T).sum(axis=1)
    return [
        Estimate(float(strength), *percentiles(resampled_R, confidence), int(games))
        for strength, resampled_R, games in zip(strengths_P, resampled_RP.T, games_P, strict=True)
    ]


def elo(
    players_N2: Indices,
    outcomes_N: Array,
    players: int,
    *,
    k: float = 16.0,
    start: float = 1000.0,
) -> Array:
    """Elo's ratings (players,) after N games in this order; a rating moves by ``k`` times outcome minus expectation.

    Args:
        players_N2: Who played.
        outcomes_N: 1 where the first won, 0 where the second, 0.5 for a tie.
        players: How many there are.
        k: The most points that one game moves.
        start: Everybody's rating before the first game.
    """
    ratings_P = np.full(players, start)
    for (first, second), outcome in zip(players_N2.tolist(), outcomes_N.tolist(), strict=True):
        expected = 1 / (1 + 10 ** ((ratings_P[second] - ratings_P[first]) / 400))
        ratings_P[first] += k * (outcome - expected)
        ratings_P[second] -= k * (outcome - expected)
    return ratings_P


def mean_elo(
    players_N2: Indices, outcomes_N: Array, players: int, *, k: float = 16.0, orders: int = 100, seed: int = 0
) -> tuple[Array, Array]:
    """Mean and standard deviation (players,) of Elo's ratings over random orders of the games, since the order counts.

    Args:
        players_N2: See `elo`, as for ``outcomes_N``, ``players`` and ``k``.
        outcomes_N: Who won.
        players: How many there are.
        k: The most points that one game moves.
        orders: How many orders.
        seed: Of the orders.
    """
    draw = np.random.default_rng(seed)
    shuffles = (draw.permutation(len(outcomes_N)) for _ in range(orders))
    ratings_OP = np.array([elo(players_N2[order_N], outcomes_N[order_N], players, k=k) for order_N in shuffles])
    return ratings_OP.mean(axis=0), ratings_OP.std(axis=0)
