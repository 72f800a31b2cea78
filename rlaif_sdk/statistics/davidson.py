"""Why one of two things is preferred: Bradley and Terry's model with Davidson's ties, linear in what tells them apart.

N pairs, R features, G groups of pairs that may depend on each other, P parameters: the R weights, and the log of the ties'.
A verdict is one of three: the first is preferred, the second, neither.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rlaif_sdk.statistics.arrays import Array, Mask
from rlaif_sdk.statistics.estimates import Indices

PENALTIES = np.logspace(-2, 4, 7)
"""Penalties to choose from, in pairs: at 1 a weight lies about as far from its aim as 1 log-odds a deviation."""
WEAK = float(PENALTIES[0])
"""It keeps a fit finite, and decides nothing that pairs say anything of."""
_TIES_PENALTY = 0.01
_MOST_STEPS = 60
_ENOUGH = 1e-9
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(41)
"""Of an expectation under a normal distribution: with 9 the best of some games was another, by 2% of its gain."""


@dataclass(frozen=True, slots=True)
class DavidsonFit:
    """A fitted model: P(first) : P(second) : P(neither) = exp(m / 2) : exp(-m / 2) : exp(log_ties), with m = d . weights.

    Davidson (1970); without ties Bradley and Terry's (1952), whose log-odds are m.

    Attributes:
        weights: (R,) log-odds that the first is preferred, for each unit by which it has more of a feature.
        log_ties: How likely ties are; -inf where there are none.
    """

    weights: Array
    log_ties: float


@dataclass(frozen=True, slots=True)
class Penalty:
    """What draws weights: half of (weights . matrix . weights) is added to the loss, times the penalty's strength.

    Attributes:
        matrix: (R, R), of which no weights are drawn far from a multiple of an aim.
        floor: (R, R), which is always added, so that a fit is finite.
    """

    matrix: Array
    floor: Array

    @classmethod
    def towards(cls, aim_R: Array, scale_R: Array) -> Penalty:
        """A penalty on how far weights are from being proportional to others.

        Args:
            aim_R: The others: of all multiples of them, none is preferred to another. Nothing but 0 draws to 0.
            scale_R: How far pairs differ in each feature; a weight counts by the log-odds that it makes of that.
        """
        unit_R = aim_R * scale_R
        length = float(np.linalg.norm(unit_R))
        unit_R = unit_R / length if length else unit_R
        scaling_RR = scale_R[:, None] * scale_R[None, :]
        identity_RR = np.eye(len(aim_R))
        return cls((identity_RR - np.outer(unit_R, unit_R)) * scaling_RR, WEAK * identity_RR * scaling_RR)

    def of(self, strength: float) -> Array:
        """(R, R) of one strength."""
        drawn_RR: Array = strength * self.matrix + self.floor
        return drawn_RR


def verdict_probs(margins_N: Array, log_ties: float) -> Array:
    """(N, 3) the probabilities that the first is preferred, the second, neither."""
    logits_N3 = np.stack([margins_N / 2, -margins_N / 2, np.full(len(margins_N), log_ties)], axis=1)
    logits_N3 -= np.abs(margins_N)[:, None] / 2 if log_ties == -math.inf else logits_N3.max(axis=1, keepdims=True)
    probs_N3 = np.exp(logits_N3)
    normalized_N3: Array = probs_N3 / probs_N3.sum(axis=1, keepdims=True)
    return normalized_N3


def log_losses(margins_N: Array, log_ties: float, votes_N3: Array) -> Array:
    """(N,) the negative log-likelihood of each pair's verdicts, in nats."""
    half_N = margins_N / 2
    with np.errstate(invalid="ignore"):
        norm_N = np.logaddexp(np.logaddexp(half_N, -half_N), log_ties)
    losses_N: Array = votes_N3.sum(axis=1) * norm_N - half_N * (votes_N3[:, 0] - votes_N3[:, 1])
    if log_ties > -math.inf:
        losses_N = losses_N - votes_N3[:, 2] * log_ties
    return losses_N


def fit_davidson(
    differences_NR: Array,
    votes_N3: Array,
    penalty_RR: Array,
    *,
    signs_R: Array | None = None,
    start: DavidsonFit | None = None,
) -> DavidsonFit:
    """The model of the least penalised loss, by Newton's method with bounds; the loss is convex.

    Args:
        differences_NR: By how much the first has more of each feature than the second.
        votes_N3: How many preferred the first, the second, neither.
        penalty_RR: See `Penalty.of`.
        signs_R: 1 for a weight of at least 0, -1 for one of at most 0, 0 for any; None for any everywhere.
        start: Where to begin; from weights of 0 if None.
    """
    size = differences_NR.shape[1]
    with_ties = bool(votes_N3[:, 2].any())
    theta_P = np.zeros(size + with_ties)
    if start is not None:
        theta_P[:size] = start.weights
        if with_ties:
            theta_P[size] = start.log_ties if start.log_ties > -math.inf else 0.0
    low_P, high_P = np.full(len(theta_P), -np.inf), np.full(len(theta_P), np.inf)
    if signs_R is not None:
        low_P[:size][signs_R > 0] = 0.0
        high_P[:size][signs_R < 0] = 0.0
    theta_P = np.clip(theta_P, low_P, high_P)
    full_PP = _with_ties(penalty_RR, len(theta_P))
    value = _penalised(theta_P, differences_NR, votes_N3, full_PP)
    for _ in range(_MOST_STEPS):
        slope_P, curvature_PP = _derivatives(theta_P, differences_NR, votes_N3)
        slope_P += full_PP @ theta_P
        step_P = _bounded_minimum(curvature_PP + full_PP, slope_P, theta_P, low_P, high_P) - theta_P
        gain = -float(slope_P @ step_P)
        if gain < _ENOUGH * (1 + abs(value)):
            break
        share = 1.0
        while True:
            reached = _penalised(theta_P + share * step_P, differences_NR, votes_N3, full_PP)
            if reached <= value - 1e-4 * share * gain or share < 1e-6:
                break
            share /= 2
        theta_P, value = theta_P + share * step_P, reached
    return DavidsonFit(theta_P[:size], float(theta_P[size]) if with_ties else -math.inf)


def standard_errors(
    fit: DavidsonFit, differences_NR: Array, votes_N3: Array, groups_N: Indices, penalty_RR: Array
) -> Array:
    """(R,) of the weights: the larger of what the curvature says and of the sandwich's, clustered by group.

    The sandwich (Huber 1967; Liang and Zeger 1986) holds where pairs of a group depend and where the model is wrong; the
    curvature's does not become 0 where a penalty alone decides, and is steadier over few groups.

    Args:
        fit: A fit without bounds that hold, under the penalty.
        differences_NR: What it was fitted to.
        votes_N3: Likewise.
        groups_N: To which of the groups 0 to G - 1 each pair belongs.
        penalty_RR: Likewise.
    """
    variances_R = np.diag(weight_covariance(fit, differences_NR, votes_N3, groups_N, penalty_RR))
    return np.asarray(np.sqrt(variances_R), dtype=np.float64)


def weight_covariance(
    fit: DavidsonFit, differences_NR: Array, votes_N3: Array, groups_N: Indices, penalty_RR: Array
) -> Array:
    """(R, R) of the weights; see `standard_errors`. The curvature's correlations, with the larger variances."""
    size = differences_NR.shape[1]
    with_ties = fit.log_ties > -math.inf
    theta_P = np.array([*fit.weights, fit.log_ties][: size + with_ties])
    full_PP = _with_ties(penalty_RR, len(theta_P))
    _, curvature_PP = _derivatives(theta_P, differences_NR, votes_N3)
    inverse_PP = np.asarray(np.linalg.pinv(curvature_PP + full_PP, hermitian=True), dtype=np.float64)
    scores_NP = _scores(theta_P, differences_NR, votes_N3)
    groups = int(groups_N.max()) + 1
    scores_GP = np.stack([np.bincount(groups_N, column, groups) for column in scores_NP.T], axis=1)
    sandwich_PP = inverse_PP @ (scores_GP.T @ scores_GP) @ inverse_PP * (groups / max(groups - 1, 1))
    ratio_P = np.sqrt(np.maximum(np.diag(sandwich_PP) / np.maximum(np.diag(inverse_PP), 1e-300), 1.0))
    covariance_PP: Array = inverse_PP * ratio_P[:, None] * ratio_P[None, :]
    return covariance_PP[:size, :size]


def fold_of_groups(groups_N: Indices, folds: int, seed: int) -> Indices:
    """(N,) which of the folds each pair is in; no group is torn apart, and folds have as many groups as each other."""
    groups = int(groups_N.max()) + 1
    fold_G = np.random.default_rng(seed).permutation(groups) % folds
    return fold_G[groups_N]


def best_penalty(
    differences_NR: Array,
    votes_N3: Array,
    groups_N: Indices,
    penalty: Penalty,
    *,
    signs_R: Array | None = None,
    folds: int = 5,
    seed: int = 0,
) -> float:
    """The strength of `PENALTIES` with the least loss over folds of whole groups."""
    groups_N = np.unique(groups_N, return_inverse=True)[1]
    fold_N = fold_of_groups(groups_N, min(folds, int(groups_N.max()) + 1), seed)
    losses_S = np.zeros(len(PENALTIES))
    for fold in range(int(fold_N.max()) + 1):
        held_N = fold_N == fold
        if held_N.all():
            return float(PENALTIES[-1])
        fit = None
        for place in range(len(PENALTIES) - 1, -1, -1):  # the strongest begins nearest to 0
            penalty_RR = penalty.of(float(PENALTIES[place]))
            fit = fit_davidson(differences_NR[~held_N], votes_N3[~held_N], penalty_RR, signs_R=signs_R, start=fit)
            margins_H = differences_NR[held_N] @ fit.weights
            losses_S[place] += held_out_losses(margins_H, fit.log_ties, votes_N3[held_N]).sum()
    return float(PENALTIES[int(np.argmin(losses_S))])


def held_out_losses(margins_N: Array, log_ties: float, votes_N3: Array) -> Array:
    """(N,) `log_losses` of pairs that a model was not fitted to; where it knows no ties, one is half a verdict for each."""
    if log_ties == -math.inf:
        halves_N3 = votes_N3[:, :1] * [1.0, 0.0, 0.0] + votes_N3[:, 1:2] * [0.0, 1.0, 0.0]
        votes_N3 = halves_N3 + votes_N3[:, 2:] * [0.5, 0.5, 0.0]
    return log_losses(margins_N, log_ties, votes_N3)


def separates(margins_N: Array, votes_N3: Array) -> bool:
    """Whether margins are on the right side of every verdict: a multiple of them fits better the larger it is.

    Ties, and pairs with verdicts for both, must have a margin of 0.
    """
    first_N, second_N = votes_N3[:, 0] > 0, votes_N3[:, 1] > 0
    undecided_N = (votes_N3[:, 2] > 0) | (first_N & second_N)
    wrong_N = (first_N & (margins_N < 0)) | (second_N & (margins_N > 0)) | (undecided_N & (margins_N != 0))
    return bool(not wrong_N.any() and (margins_N != 0).any())


def most_informative(
    differences_NR: Array, fit: DavidsonFit, covariance_RR: Array, count: int, *, allowed_N: Mask | None = None
) -> list[int]:
    """The pairs whose verdicts would teach most of the weights, the best first, each given those before it.

    The gain of a verdict is log(1 + J d . C . d): by so much the log-determinant of the weights' precision rises (Bayesian
    D-optimality, Chaloner and Verdinelli 1995), with C the covariance before it and J the verdict's information about the
    margin, its expectation under the posterior of the margin. Gains only fall as pairs are chosen, so they are computed
    anew only for pairs that may still be the best (Minoux 1978).

    Args:
        differences_NR: Of the pairs to choose among.
        fit: The posterior's mode.
        covariance_RR: The posterior's covariance.
        count: How many are chosen, at most.
        allowed_N: Which may be; all if None.
    """
    import heapq

    spread_N = np.einsum("nr,rs,ns->n", differences_NR, covariance_RR, differences_NR, optimize=True)
    information_N = expected_information(differences_NR @ fit.weights, spread_N, fit.log_ties)
    gains_N = np.log1p(information_N * spread_N)
    if allowed_N is not None:
        gains_N = np.where(allowed_N, gains_N, -1.0)
    order = np.argsort(-gains_N, kind="stable")
    covariance_RR = covariance_RR.copy()
    chosen: list[int] = []
    again: list[tuple[float, int, int]] = []  # gains that were computed anew, and after how many pairs
    place = 0
    while len(chosen) < count:
        fresh = -gains_N[order[place]] if place < len(order) else math.inf
        if again and again[0][0] <= fresh:
            gain, pair, after = heapq.heappop(again)
            if after == len(chosen):
                chosen.append(pair)
                direction_R = covariance_RR @ differences_NR[pair]
                taken = information_N[pair]
                covariance_RR -= np.outer(direction_R, direction_R) * (
                    taken / (1 + taken * float(differences_NR[pair] @ direction_R))
                )
                continue
        elif place < len(order) and gains_N[order[place]] > 0:
            pair = int(order[place])
            place += 1
        else:
            break
        difference_R = differences_NR[pair]
        gain = math.log1p(information_N[pair] * float(difference_R @ covariance_RR @ difference_R))
        heapq.heappush(again, (-gain, pair, len(chosen)))
    return chosen


def expected_information(margins_N: Array, variances_N: Array, log_ties: float) -> Array:
    """(N,) what a verdict tells of its margin (Fisher information), expected over a normal distribution of the margin.

    Of a margin m it is the variance of the derivative of the log-likelihood: (p1 + p2 - (p1 - p2)^2) / 4.
    """
    expected_N = np.zeros(len(margins_N))
    deviations_N = np.sqrt(variances_N)
    for node, weight in zip(_NODES, _NODE_WEIGHTS / _NODE_WEIGHTS.sum(), strict=True):
        probs_N3 = verdict_probs(margins_N + node * deviations_N, log_ties)
        gap_N = probs_N3[:, 0] - probs_N3[:, 1]
        expected_N += weight * (probs_N3[:, 0] + probs_N3[:, 1] - gap_N**2) / 4
    return expected_N


def _with_ties(penalty_RR: Array, parameters: int) -> Array:
    """(P, P), where there is one parameter more than weights with the ties' own."""
    size = len(penalty_RR)
    full_PP = np.zeros((parameters, parameters))
    full_PP[:size, :size] = penalty_RR
    full_PP[size:, size:] = _TIES_PENALTY
    return full_PP


def _split(theta_P: Array, size: int) -> tuple[Array, float]:
    return theta_P[:size], float(theta_P[size]) if len(theta_P) > size else -math.inf


def _penalised(theta_P: Array, differences_NR: Array, votes_N3: Array, penalty_PP: Array) -> float:
    weights_R, log_ties = _split(theta_P, differences_NR.shape[1])
    losses_N = log_losses(differences_NR @ weights_R, log_ties, votes_N3)
    return float(losses_N.sum() + theta_P @ penalty_PP @ theta_P / 2)


def _derivatives(theta_P: Array, differences_NR: Array, votes_N3: Array) -> tuple[Array, Array]:
    """The slope (P,) and the curvature (P, P) of the loss."""
    size = differences_NR.shape[1]
    weights_R, log_ties = _split(theta_P, size)
    probs_N3 = verdict_probs(differences_NR @ weights_R, log_ties)
    asked_N = votes_N3.sum(axis=1)
    gap_N = probs_N3[:, 0] - probs_N3[:, 1]
    slope_N = (asked_N * gap_N - votes_N3[:, 0] + votes_N3[:, 1]) / 2
    curve_N = asked_N * (probs_N3[:, 0] + probs_N3[:, 1] - gap_N**2) / 4
    slope_P, curvature_PP = np.empty(len(theta_P)), np.empty((len(theta_P), len(theta_P)))
    slope_P[:size] = slope_N @ differences_NR
    curvature_PP[:size, :size] = (differences_NR * curve_N[:, None]).T @ differences_NR
    if len(theta_P) > size:
        tied_N = probs_N3[:, 2]
        slope_P[size] = asked_N @ tied_N - votes_N3[:, 2].sum()
        curvature_PP[size, :size] = curvature_PP[:size, size] = -(asked_N * gap_N * tied_N / 2) @ differences_NR
        curvature_PP[size, size] = asked_N @ (tied_N * (1 - tied_N))
    return slope_P, curvature_PP


def _scores(theta_P: Array, differences_NR: Array, votes_N3: Array) -> Array:
    """(N, P) the slope of each pair's loss."""
    size = differences_NR.shape[1]
    weights_R, log_ties = _split(theta_P, size)
    probs_N3 = verdict_probs(differences_NR @ weights_R, log_ties)
    asked_N = votes_N3.sum(axis=1)
    slope_N = (asked_N * (probs_N3[:, 0] - probs_N3[:, 1]) - votes_N3[:, 0] + votes_N3[:, 1]) / 2
    scores_NR: Array = differences_NR * slope_N[:, None]
    if len(theta_P) == size:
        return scores_NR
    return np.column_stack([scores_NR, asked_N * probs_N3[:, 2] - votes_N3[:, 2]])


def _bounded_minimum(curvature_PP: Array, slope_P: Array, theta_P: Array, low_P: Array, high_P: Array) -> Array:
    """Where the parabola through theta with this slope and curvature is least, within bounds."""
    free_P = theta_P - np.linalg.solve(curvature_PP, slope_P)
    if (free_P >= low_P).all() and (free_P <= high_P).all():
        return np.asarray(free_P)
    from scipy.optimize import lsq_linear

    root_PP = np.linalg.cholesky(curvature_PP)
    target_P = root_PP.T @ free_P
    bounded_P: Array = lsq_linear(root_PP.T, target_P, (low_P, high_P), method="bvls").x
    return np.clip(bounded_P, low_P, high_P)
