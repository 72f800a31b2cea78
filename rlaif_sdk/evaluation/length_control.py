"""Win rates as they would be if both responses were equally long.

N comparisons, D coefficients.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from rlaif_sdk.statistics.arrays import Array, Mask
from rlaif_sdk.statistics.estimates import Estimate, Indices, normal_quantile

LengthFeature = Literal["difference", "ratio"]

MIN_OVERLAP = 0.1
"""The least share of the comparisons in which either response is at least as long as the other."""

_STRENGTHS = np.logspace(-4, 4, 10)
_FOLDS = 5
_RESTARTS, _ENOUGH = 10, 1e-12
_NO_ESTIMATE = (math.nan, math.nan, math.nan)


def length_controlled(
    prob_1_N: Array,
    lengths_N2: Array,
    groups_N: Indices | None = None,
    *,
    difficulty_N: Array | None = None,
    feature: LengthFeature = "difference",
    strength: float | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """The win rate that a logistic regression gives to responses of equal length: AlpacaEval 2's model.

    P(first wins) = logistic(theta + phi x + gamma difficulty), fitted to soft preferences; the win rate is the mean of
    logistic(theta + gamma difficulty) over the comparisons, where x = 0 (Dubois et al. 2024, arXiv 2404.04475, equation
    2). All coefficients have an L1 penalty, whose strength is the best of ten from 1e-4 to 1e4 by the cross-entropy in
    five folds. Without difficulties this is AlpacaEval's ``length_controlled_minimal``, with them its
    ``length_controlled_noreg``; its ``length_controlled_v1`` adds the annotations of two policies that AlpacaEval
    publishes.

    - ``difference``: x = tanh((l_1 - l_2) / std(l_1 - l_2)), as in AlpacaEval 2.
    - ``ratio``: x = l_1 / l_2 - 1, the analysis after the fact of Lee et al. 2023 (arXiv 2309.00267), which asks for
      the win rate at a ratio of 1.

    Args:
        prob_1_N: The probability that the first response is better, in [0, 1]; 1, 0 and 0.5 for verdicts.
        lengths_N2: The lengths of both responses, in any one unit; an empty one counts 1 in a ratio.
        groups_N: What each comparison is about (its prompt); by default each is about something of its own.
        difficulty_N: How hard each instruction is, as AlpacaEval estimates it from many policies.
        feature: ``difference`` or ``ratio``.
        strength: The inverse of the penalty's weight, scikit-learn's ``C``; the best in the folds if None, as AlpacaEval
            has it, which draws what is near one half to it.
        confidence: Of the interval, by the delta method. Its variance is the larger of the model's own and the one
            clustered by group.

    Returns:
        NaN where there is nothing, or where one side is at least as long as the other in less than `MIN_OVERLAP` of the
        comparisons: the fit would extrapolate, and a difference of length cannot be told from a better policy.
    """
    n = len(prob_1_N)
    if not n or length_overlap(lengths_N2) < MIN_OVERLAP:
        return Estimate(*_NO_ESTIMATE, n)
    feature_N = length_difference(lengths_N2) if feature == "difference" else _ratio(lengths_N2)
    others = [] if difficulty_N is None else [difficulty_N]
    design_ND = np.column_stack([np.ones(n), *others, feature_N])
    groups_N = np.arange(n) if groups_N is None else np.unique(groups_N, return_inverse=True)[1]
    strength = _best_strength(design_ND, prob_1_N, groups_N) if strength is None else strength
    at_D = fit_logistic(design_ND, prob_1_N, strength=strength)
    equal_ND = np.column_stack([design_ND[:, :-1], np.zeros(n)])
    share_N = _logistic(equal_ND @ at_D)
    slope_D = (share_N * (1 - share_N)) @ equal_ND / n
    odds = math.log(share_N.mean() / (1 - share_N.mean()))
    variance = _variance(design_ND, prob_1_N, groups_N, at_D, slope_D) / (share_N.mean() * (1 - share_N.mean())) ** 2
    half = normal_quantile(confidence) * math.sqrt(variance)
    value, low, high = _logistic(odds + half * np.array([0.0, -1.0, 1.0])).tolist()
    return Estimate(value, low, high, n)


def length_overlap(lengths_N2: Array) -> float:
    """How far two policies' lengths overlap: the smaller of the shares in which either response is at least as long.

    From 0, where all responses of one policy are longer, to 1, where all pairs are equally long.
    """
    if not len(lengths_N2):
        return math.nan
    difference_N = lengths_N2[:, 0] - lengths_N2[:, 1]
    return float(min((difference_N >= 0).mean(), (difference_N <= 0).mean()))


def fit_logistic(design_ND: Array, targets_N: Array, *, strength: float) -> Array:
    """The coefficients (D,) that minimise ``sum |w| + strength * sum of cross-entropies``.

    Each coefficient is the difference of two that are at least 0, so that the penalty is linear and L-BFGS-B applies
    (Byrd et al. 1995).

    Args:
        design_ND: The features.
        targets_N: Labels in [0, 1].
        strength: Above 0: the inverse of the penalty's weight, scikit-learn's ``C``.
    """
    from scipy.optimize import minimize

    size = design_ND.shape[1]
    both_NE = np.concatenate([design_ND, -design_ND], axis=1)
    penalty = 1 / (strength * len(targets_N))

    def loss_and_slope(at_E: Array) -> tuple[float, Array]:
        odds_N = both_NE @ at_E
        loss = float((np.logaddexp(0, odds_N) - targets_N * odds_N).mean()) + penalty * float(at_E.sum())
        return loss, both_NE.T @ (_logistic(odds_N) - targets_N) / len(targets_N) + penalty

    at_E, best = np.zeros(2 * size), math.inf
    for _ in range(_RESTARTS):  # the line search may give up early; a restart continues
        found = minimize(
            loss_and_slope,
            at_E,
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, None)] * (2 * size),
            options={"ftol": 1e-13, "gtol": 1e-8, "maxiter": 1000},
        )
        at_E, before, best = found.x, best, float(found.fun)
        if before - best < _ENOUGH:
            break
    at_D: Array = at_E[:size] - at_E[size:]
    return at_D


def _best_strength(design_ND: Array, targets_N: Array, groups_N: Indices) -> float:
    """The strength with the least cross-entropy in folds of whole groups; 1 where there is one group only."""
    folds = min(_FOLDS, int(groups_N.max()) + 1)
    if folds < 2:
        return 1.0
    fold_N = groups_N % folds
    losses_S = [
        np.mean([_held_out(design_ND, targets_N, fold_N == fold, strength) for fold in range(folds)])
        for strength in _STRENGTHS
    ]
    return float(_STRENGTHS[int(np.argmin(losses_S))])


def _held_out(design_ND: Array, targets_N: Array, held_N: Mask, strength: float) -> float:
    at_D = fit_logistic(design_ND[~held_N], targets_N[~held_N], strength=strength)
    odds_N = design_ND[held_N] @ at_D
    return float((np.logaddexp(0, odds_N) - targets_N[held_N] * odds_N).mean())


def length_difference(lengths_N2: Array) -> Array:
    """(N,) AlpacaEval 2's feature: tanh of the difference of the lengths over its standard deviation."""
    difference_N = lengths_N2[:, 0] - lengths_N2[:, 1]
    spread = float(difference_N.std(ddof=1)) if difference_N.size > 1 else 0.0
    return np.tanh(difference_N / spread) if spread > 0 else np.sign(difference_N)


def _ratio(lengths_N2: Array) -> Array:
    lengths_N2 = np.maximum(lengths_N2, 1.0)
    return np.asarray(lengths_N2[:, 0] / lengths_N2[:, 1] - 1)


def _variance(design_ND: Array, targets_N: Array, groups_N: Indices, at_D: Array, slope_D: Array) -> float:
    """Of a function with this slope: the larger of the inverse curvature's and the sandwich's, clustered by group."""
    share_N = _logistic(design_ND @ at_D)
    weight_N = np.maximum(share_N * (1 - share_N), 1e-12)
    inverse_DD = np.linalg.pinv((design_ND * weight_N[:, None]).T @ design_ND)
    slopes_GD = np.zeros((int(groups_N.max()) + 1, design_ND.shape[1]))
    np.add.at(slopes_GD, groups_N, design_ND * (share_N - targets_N)[:, None])
    sandwich_DD = inverse_DD @ slopes_GD.T @ slopes_GD @ inverse_DD
    return float(max(slope_D @ inverse_DD @ slope_D, slope_D @ sandwich_DD @ slope_D))


def _logistic(odds: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(odds / 2)))
