"""Several policies ranked by who won against whom: Bradley and Terry's model, and Elo's ratings."""

from __future__ import annotations

import math

import numpy as np

from rlaif_sdk.statistics.arrays import Array, Mask
from rlaif_sdk.statistics.davidson import DavidsonFit, most_informative
from rlaif_sdk.statistics.estimates import RESAMPLES, Estimate, Indices, bootstrap_weights, percentiles

PRIOR = 0.5
ELO_K = 16.0
"""The most points that one game moves an Elo rating."""
_MOST_STEPS = 200
_LONGEST_STEP = 2.0
ELO_PER_NAT = 400 / math.log(10)
"""Elo's points for each nat of log-strength: 400 points are odds of ten to one."""


def bradley_terry(wins_PP: Array, *, prior: float = PRIOR, tolerance: float = 1e-9) -> Array:
    """The log-strengths (..., P) of P players in nats, their mean 0: log-odds of a win are differences of them.

    P(i beats j) = s_i / (s_i + s_j) (Bradley and Terry 1952), by Newton's method. Each player also has ``prior`` wins
    and as many losses against an imaginary player of strength 1, so that one who never lost, or never met the others,
    gets a finite strength; `undetermined` says which strengths that prior decides.

    Args:
        wins_PP: (..., P, P) how often the row's player beat the column's; a tie is half a win for each. What stands
            before the last two axes are tables of their own.
        prior: Above 0; imaginary wins and losses of every player.
        tolerance: The largest change of a log-strength at which the iteration ends.
    """
    games_PP = wins_PP + np.swapaxes(wins_PP, -1, -2)
    won_P = wins_PP.sum(axis=-1) + prior
    logs_P = np.zeros(won_P.shape)
    diagonal = np.arange(wins_PP.shape[-1])
    for _ in range(_MOST_STEPS):
        beats_PP = 1 / (1 + np.exp(logs_P[..., None, :] - logs_P[..., :, None]))
        imaginary_P = 1 / (1 + np.exp(-logs_P))
        slope_P = won_P - (games_PP * beats_PP).sum(axis=-1) - 2 * prior * imaginary_P
        curvature_PP = -games_PP * beats_PP * (1 - beats_PP)
        own_P = 2 * prior * imaginary_P * (1 - imaginary_P) - curvature_PP.sum(axis=-1)
        curvature_PP[..., diagonal, diagonal] += own_P
        step_P = np.linalg.solve(curvature_PP, slope_P[..., None])[..., 0]
        longest = np.abs(step_P).max(axis=-1, keepdims=True)
        logs_P = logs_P + step_P * np.minimum(1, _LONGEST_STEP / np.maximum(longest, 1e-300))
        if float(longest.max()) < tolerance:
            break
    centred_P: Array = logs_P - logs_P.mean(axis=-1, keepdims=True)
    return centred_P


def informative_games(
    wins_PP: Array, count: int, *, allowed_PP: Mask | None = None, prior: float = PRIOR
) -> list[tuple[int, int]]:
    """The games that would teach most of the players' strengths, the best first, each given those before it.

    A game's worth is by how much it shrinks the posterior of the log-strengths, that of `bradley_terry` and normal about its
    mode; see `rlaif_sdk.statistics.davidson.most_informative`. So players who are thought alike meet, and those of whom
    little is known; a game between two sets that none ties together yet teaches most.

    Example:
        >>> import numpy as np
        >>> wins_PP = np.zeros((4, 4))
        >>> wins_PP[0, 1] = wins_PP[2, 3] = 1.0
        >>> informative_games(wins_PP, 1)
        [(0, 2)]

    Args:
        wins_PP: (P, P) how often the row's player beat the column's.
        count: How many, at most.
        allowed_PP: (P, P) which may be played, of which the upper triangle counts; those that were not yet, if None.
        prior: See `bradley_terry`.
    """
    games_PP = wins_PP + wins_PP.T
    allowed_PP = games_PP == 0 if allowed_PP is None else allowed_PP
    first_N, second_N = np.nonzero(np.triu(allowed_PP, 1))
    if not len(first_N):
        return []
    strengths_P = bradley_terry(wins_PP, prior=prior)
    unit_PP = np.eye(len(wins_PP))
    beats_PP = 1 / (1 + np.exp(strengths_P[None, :] - strengths_P[:, None]))
    information_PP = games_PP * beats_PP * (1 - beats_PP)
    precision_PP = np.diag(information_PP.sum(axis=1) + 2 * prior / 4) - information_PP
    covariance_PP = np.asarray(np.linalg.inv(precision_PP), dtype=np.float64)
    differences_NP = unit_PP[first_N] - unit_PP[second_N]
    chosen = most_informative(differences_NP, DavidsonFit(strengths_P, -math.inf), covariance_PP, count)
    return [(int(first_N[place]), int(second_N[place])) for place in chosen]


def compared_sets(wins_PP: Array) -> list[list[int]]:
    """The players in sets between which there was no game: strengths compare within a set only."""
    games_PP = wins_PP + wins_PP.T
    return _sets(games_PP > 0)


def undetermined(wins_PP: Array) -> tuple[Mask, Mask]:
    """(P,) whose strength has no lower and no upper bound: what the games leave open, and the prior decides.

    A strength is bounded if the player, or one whom games tie it to, lost to and won against the rest (Ford 1957):
    players who never lost to anybody outside a set have no upper bound, those who never won none below; players of
    `compared_sets` that did not meet have neither.
    """
    below_P, above_P = np.zeros(len(wins_PP), dtype=bool), np.zeros(len(wins_PP), dtype=bool)
    if len(compared_sets(wins_PP)) > 1:
        return ~below_P, ~above_P
    tied = _sets(wins_PP > 0)
    if len(tied) == 1:
        return below_P, above_P
    for players in tied:
        others = np.setdiff1d(np.arange(len(wins_PP)), players)
        above_P[players] = not wins_PP[others][:, players].any()
        below_P[players] = not wins_PP[players][:, others].any()
    between_P = ~above_P & ~below_P
    return below_P | between_P, above_P | between_P


def _sets(edges_PP: Mask) -> list[list[int]]:
    """The sets of players who reach each other along edges: for a handful, by squaring, in a fiftieth of SciPy's time."""
    reached_PP = edges_PP | np.eye(len(edges_PP), dtype=bool)
    for _ in range(len(edges_PP).bit_length()):
        reached_PP = reached_PP @ reached_PP
    mutual_PP = reached_PP & reached_PP.T
    firsts = dict.fromkeys(mutual_PP.argmax(axis=1).tolist()) if len(mutual_PP) else {}
    return [np.flatnonzero(mutual_PP[first]).tolist() for first in firsts]


def bradley_terry_intervals(
    wins_GPP: Array,
    *,
    prior: float = PRIOR,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Estimate]:
    """`bradley_terry` with percentile intervals of a bootstrap over G groups of games, such as prompts.

    An end that the games leave open (`undetermined`) is infinite. The other end of a player who won or lost every game
    is where such a record has half the probability that the interval leaves out, against opponents as strong as they
    seem.

    Args:
        wins_GPP: The wins in each group.
        prior: See `bradley_terry`.
        confidence: Between 0 and 1.
        resamples: How many are drawn.
        seed: Of the draws.
    """
    wins_PP = wins_GPP.sum(axis=0)
    strengths_P = bradley_terry(wins_PP, prior=prior)
    weights_RG = np.array(list(bootstrap_weights(len(wins_GPP), resamples=resamples, seed=seed)))
    resampled_RPP = np.tensordot(weights_RG, wins_GPP, 1)
    resampled_RP = bradley_terry(resampled_RPP, prior=prior, tolerance=1e-6)
    games_PP = wins_PP + wins_PP.T
    below_P, above_P = undetermined(wins_PP)
    found = []
    for player, strength in enumerate(strengths_P.tolist()):
        low, high = percentiles(resampled_RP[:, player], confidence)
        met_P, won = games_PP[player] > 0, float(wins_PP[player].sum())
        games = float(games_PP[player].sum())
        if games and won in (0.0, games):
            reach = _all_or_nothing(strengths_P[met_P], games_PP[player, met_P], confidence, won=won > 0)
            low, high = (min(low, reach), high) if won else (low, max(high, reach))
        low = -math.inf if below_P[player] else low
        high = math.inf if above_P[player] else high
        found.append(Estimate(strength, low, high, round(games)))
    return found


def _all_or_nothing(opponents_O: Array, games_O: Array, confidence: float, *, won: bool) -> float:
    """The strength at which winning every game, or losing every one, has the probability (1 - confidence) / 2."""
    from scipy.optimize import brentq

    sign = 1.0 if won else -1.0
    least = math.log((1 - confidence) / 2)
    reach = 50.0 + float(np.abs(opponents_O).max())

    def surplus(strength: float) -> float:
        return float(-(games_O * np.logaddexp(0, -sign * (strength - opponents_O))).sum()) - least

    return float(brentq(surplus, -reach, reach))


def elo(players_ON2: Indices, outcomes_ON: Array, players: int) -> Array:
    """Elo's ratings (O, players) after O orders of N games; one moves by `ELO_K` times outcome minus expectation.

    Args:
        players_ON2: Who played.
        outcomes_ON: 1 where the first won, 0 where the second, 0.5 for a tie.
        players: How many there are; each begins at 1000.
    """
    ratings_OP = np.full((len(players_ON2), players), 1000.0)
    order_O = np.arange(len(players_ON2))
    for first_O, second_O, outcome_O in zip(players_ON2[:, :, 0].T, players_ON2[:, :, 1].T, outcomes_ON.T, strict=True):
        gap_O = ratings_OP[order_O, second_O] - ratings_OP[order_O, first_O]
        moved_O = ELO_K * (outcome_O - 1 / (1 + 10 ** (gap_O / 400)))
        ratings_OP[order_O, first_O] += moved_O
        ratings_OP[order_O, second_O] -= moved_O
    return ratings_OP


def mean_elo(players_N2: Indices, outcomes_N: Array, players: int, *, seed: int = 0) -> tuple[Array, Array]:
    """Mean and standard deviation (players,) of `elo` over 100 random orders of N games, since the order counts."""
    draw = np.random.default_rng(seed)
    order_ON = np.array([draw.permutation(len(outcomes_N)) for _ in range(100)])
    ratings_OP = elo(players_N2[order_ON], outcomes_N[order_ON], players)
    return ratings_OP.mean(axis=0), ratings_OP.std(axis=0)
