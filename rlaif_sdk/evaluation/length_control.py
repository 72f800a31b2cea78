"""Win rates as they would be if both responses were equally long."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.estimates import Estimate, Indices, normal_quantile

LengthFeature = Literal["difference", "ratio"]

RIDGE = 0.01
_MOST_STEPS = 100


def length_controlled(
    outcomes_N: Array,
    lengths_N2: Array,
    groups_N: Indices | None = None,
    *,
    feature: LengthFeature = "difference",
    ridge: float = RIDGE,
    confidence: float = 0.95,
) -> Estimate:
    """The win rate that a logistic regression gives to responses of equal length.

    P(first wins) = logistic(theta + phi x), fitted to the outcomes; the win rate is logistic(theta), where x = 0.

    - ``difference``: x = tanh((l_1 - l_2) / std(l_1 - l_2)), the length term of AlpacaEval 2 (Dubois et al. 2024, arXiv
      2404.04475, equation 2), whose term for the instruction's difficulty needs many policies and is omitted.
    - ``ratio``: x = l_1 / l_2 - 1, the analysis after the fact of Lee et al. 2023 (arXiv 2309.00267), which asks for
      the win rate at a ratio of 1.

    Args:
        outcomes_N: 1 where the first response won, 0 where it lost, anything between for ties and soft labels.
        lengths_N2: The lengths of both responses, in any one unit; an empty one counts 1 in a ratio.
        groups_N: What each comparison is about (its prompt); by default each is about something of its own.
        feature: ``difference`` or ``ratio``.
        ridge: The penalty ``ridge / 2 (theta^2 + phi^2)`` keeps the solution finite where all outcomes are equal.
        confidence: Of the interval, normal in theta. Its standard error is the larger of the model's own and the
            one clustered by group.

    Returns:
        NaN where there is nothing, or where all responses differ by one and the same length, which cannot be told from
        a better policy.
    """
    n = len(outcomes_N)
    feature_N = _difference(lengths_N2) if feature == "difference" else _ratio(lengths_N2)
    if not n or (np.ptp(feature_N) == 0 and feature_N[0] != 0):
        return Estimate(math.nan, math.nan, math.nan, n)
    design_N2 = np.column_stack([np.ones(n), feature_N])
    groups_N = np.arange(n) if groups_N is None else groups_N
    theta, _ = coefficients_2 = fit_logistic(design_N2, outcomes_N, ridge=ridge)
    half = normal_quantile(confidence) * math.sqrt(_variance(design_N2, outcomes_N, groups_N, coefficients_2, ridge))
    value, low, high = _logistic(theta + half * np.array([0.0, -1.0, 1.0])).tolist()
    return Estimate(value, low, high, n)


def fit_logistic(design_ND: Array, targets_N: Array, *, ridge: float = RIDGE) -> Array:
    """The coefficients (D,) that minimise the cross-entropy plus ``ridge / 2`` times their squares, by Newton's method.

    Args:
        design_ND: The features.
        targets_N: Labels in [0, 1].
        ridge: Above 0, which makes the minimum unique and finite.
    """
    at_D = np.zeros(design_ND.shape[1])
    loss = _loss(design_ND, targets_N, at_D, ridge)
    for _ in range(_MOST_STEPS):
        slope_D = design_ND.T @ (_logistic(design_ND @ at_D) - targets_N) + ridge * at_D
        step_D = np.linalg.solve(_curvature(design_ND, at_D, ridge), slope_D)
        while True:
            next_D = at_D - step_D
            next_loss = _loss(design_ND, targets_N, next_D, ridge)
            if next_loss <= loss or float(np.abs(step_D).max()) < 1e-12:
                break
            step_D = step_D / 2
        at_D, loss = next_D, next_loss
        if float(np.abs(step_D).max()) < 1e-10:
            break
    return at_D


def _difference(lengths_N2: Array) -> Array:
    difference_N = lengths_N2[:, 0] - lengths_N2[:, 1]
    spread = float(difference_N.std()) if difference_N.size else 0.0
    return np.tanh(difference_N / spread) if spread > 0 else np.sign(difference_N)


def _ratio(lengths_N2: Array) -> Array:
    lengths_N2 = np.maximum(lengths_N2, 1.0)
    return np.asarray(lengths_N2[:, 0] / lengths_N2[:, 1] - 1)


def _variance(design_ND: Array, targets_N: Array, groups_N: Indices, at_D: Array, ridge: float) -> float:
    """Of the first coefficient: the larger of the inverse curvature's and the sandwich's, clustered by group."""
    inverse_DD = np.linalg.inv(_curvature(design_ND, at_D, ridge))
    slopes_ND = design_ND * (_logistic(design_ND @ at_D) - targets_N)[:, None]
    slopes_GD = np.zeros((int(groups_N.max()) + 1, design_ND.shape[1]))
    np.add.at(slopes_GD, groups_N, slopes_ND)
    sandwich_DD = inverse_DD @ slopes_GD.T @ slopes_GD @ inverse_DD
    return float(max(inverse_DD[0, 0], sandwich_DD[0, 0]))


def _curvature(design_ND: Array, at_D: Array, ridge: float) -> Array:
    share_N = _logistic(design_ND @ at_D)
    curvature_DD: Array = (design_ND * (share_N * (1 - share_N))[:, None]).T @ design_ND
    return curvature_DD + ridge * np.eye(len(at_D))


def _loss(design_ND: Array, targets_N: Array, at_D: Array, ridge: float) -> float:
    odds_N = design_ND @ at_D
    return float((np.logaddexp(0, odds_N) - targets_N * odds_N).sum() + ridge / 2 * (at_D @ at_D))


def _logistic(odds: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(odds / 2)))
