"""Correlations and ranks. R rewards, B rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations_with_replacement

import numpy as np

from rlaif_sdk.statistics.arrays import Array

_ROUNDING = 1e-12
"""A spread below this share of the values' size is what rounding leaves of none."""


def pearson(values_RB: Array) -> Array:
    """(R, R) Pearson's correlation of each pair of rewards, over the rows where neither is NaN.

    ``sum (x - mean x)(y - mean y) / sqrt(sum (x - mean x)^2 sum (y - mean y)^2)``, with the means over the pair's rows
    (Pearson, 1895). NaN where a pair shares fewer than two rows, or one of it does not vary on them.
    """
    return _over_common_rows(values_RB, _standardized)


def spearman(values_RB: Array) -> Array:
    """(R, R) Spearman's rank correlation of each pair of rewards, over the rows where neither is NaN.

    Pearson's correlation of the ranks among the pair's rows, those that tie sharing their mean rank (Spearman, 1904).
    NaN as in `pearson`.
    """
    return _over_common_rows(values_RB, lambda values_B: _standardized(ranks(values_B)))


def _over_common_rows(values_RB: Array, standardize: Callable[[Array], Array]) -> Array:
    """(R, R) the scalar products of rewards that are standardised on the rows that a pair shares."""
    rewards, rows = values_RB.shape
    present_RB = ~np.isnan(values_RB)
    correlations_RR = np.full((rewards, rewards), np.nan)
    whole = np.flatnonzero(present_RB.all(axis=1))
    if whole.size and rows:
        standardized = np.stack([standardize(values_B) for values_B in values_RB[whole]])
        correlations_RR[np.ix_(whole, whole)] = standardized @ standardized.T
    for first, second in combinations_with_replacement(range(rewards), 2):
        both_B = present_RB[first] & present_RB[second]
        if both_B.any() and not both_B.all():
            product = standardize(values_RB[first, both_B]) @ standardize(values_RB[second, both_B])
            correlations_RR[first, second] = correlations_RR[second, first] = product
    return correlations_RR.clip(-1.0, 1.0)


def _standardized(values_B: Array) -> Array:
    """(B,) of mean 0 and length 1; NaN where they do not vary."""
    size = np.abs(values_B).max(initial=0.0)
    values_B = values_B / (size or 1.0)  # nothing overflows when squared
    centred_B = values_B - values_B.sum() / max(values_B.size, 1)
    if np.abs(centred_B).max(initial=0.0) <= _ROUNDING:
        return np.full_like(values_B, np.nan)
    centred_B /= np.abs(centred_B).max()
    standardized_B: Array = centred_B / np.sqrt(centred_B @ centred_B)
    return standardized_B


def ranks(values_B: Array) -> Array:
    """(B,) ranks from 1, those that tie sharing their mean rank; no NaN."""
    _, codes_B, counts = np.unique(values_B, return_inverse=True, return_counts=True)
    mean_ranks: Array = np.cumsum(counts) - (counts - 1) / 2
    return mean_ranks[codes_B]


def correlation_interval(correlation: float, rows: int) -> tuple[float, float]:
    """Where the correlation of the population lies, with 95% confidence: ``tanh(atanh r ± 1.96 / sqrt(n - 3))``.

    Fisher's z (1921). (-1, 1) for fewer than four rows, NaN for a NaN.
    """
    if math.isnan(correlation):
        return math.nan, math.nan
    if rows < 4:
        return -1.0, 1.0
    if abs(correlation) >= 1.0:
        return correlation, correlation
    centre, error = math.atanh(correlation), 1.96 / math.sqrt(rows - 3)
    return math.tanh(centre - error), math.tanh(centre + error)


def rank_correlation(left_B: Array, right_B: Array) -> float:
    """Spearman's rank correlation, in [-1, 1], over the rows that have both values; NaN where one side is constant."""
    return float(spearman(np.stack([left_B, right_B]))[0, 1])
