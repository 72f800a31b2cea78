"""How well scores tell two classes apart: ROC and precision-recall curves summed up, thresholds, squared errors.

N rows; a label is 1 (positive) or 0.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.estimates import Estimate, Indices, bootstrap, effective_size, normal_quantile

_HALVINGS = 50


class LabelledScores:
    """N scores with labels, sorted once for many weights of the rows.

    Example:
        >>> import numpy as np
        >>> from rlaif_sdk.statistics.classification import LabelledScores
        >>> found = LabelledScores(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0.0, 0.0, 1.0, 1.0]))
        >>> found.roc_auc(), round(found.average_precision(), 3)
        (0.75, 0.833)

    Args:
        scores_N: The scores, higher for what is likelier positive; no NaN.
        labels_N: 1 for positives, 0 for negatives.
    """

    def __init__(self, scores_N: Array, labels_N: Array) -> None:
        self._labels_N = labels_N
        levels, at_N = np.unique(scores_N, return_inverse=True)
        self._levels_T: Array = levels[::-1]
        self._at_N = len(levels) - 1 - at_N

    def roc_auc(self, weights_N: Array | None = None) -> float:
        """The probability that a positive has a higher score than a negative, a tie half (Hanley and McNeil 1982).

        The same as scikit-learn's ``roc_auc_score``; NaN where one class is missing.
        """
        positive_T, negative_T = self._counts(weights_N)
        positives, negatives = positive_T.sum(), negative_T.sum()
        if not positives or not negatives:
            return math.nan
        above_T = np.cumsum(positive_T) - positive_T
        return float((negative_T * (above_T + positive_T / 2)).sum() / (positives * negatives))

    def average_precision(self, weights_N: Array | None = None) -> float:
        """The mean of the precision over the positives, from the highest score down: sum (R_k - R_k-1) P_k.

        The same as scikit-learn's ``average_precision_score``; NaN without a positive.
        """
        positive_T, negative_T = self._counts(weights_N)
        if not positive_T.sum():
            return math.nan
        found_T, shown_T = np.cumsum(positive_T), np.cumsum(positive_T + negative_T)
        return float((positive_T * found_T / np.maximum(shown_T, 1e-300)).sum() / found_T[-1])

    def best_threshold(self, weights_N: Array | None = None) -> float:
        """The score from which on a row is called positive, with the greatest balanced accuracy (Youden 1950).

        It lies halfway between two scores. Of several equally good ones it is the highest; NaN where one class is
        missing.
        """
        positive_T, negative_T = self._counts(weights_N)
        positives, negatives = positive_T.sum(), negative_T.sum()
        if not positives or not negatives:
            return math.nan
        best = int(np.argmax(np.cumsum(positive_T) / positives - np.cumsum(negative_T) / negatives))
        following = self._levels_T[min(best + 1, len(self._levels_T) - 1)]
        return float(self._levels_T[best] + following) / 2

    def _counts(self, weights_N: Array | None) -> tuple[Array, Array]:
        """How many positives and negatives have each different score, from the highest down."""
        weights_N = np.ones(len(self._labels_N)) if weights_N is None else weights_N
        size = len(self._levels_T)
        all_T = np.bincount(self._at_N, weights_N, minlength=size).astype(np.float64)
        positive_T = np.bincount(self._at_N, weights_N * self._labels_N, minlength=size).astype(np.float64)
        return positive_T, all_T - positive_T


def auc_over_groups(scores_N: Array, labels_N: Array, groups_N: Indices, *, confidence: float = 0.95) -> Estimate:
    """The area under the ROC curve, with a bootstrap over groups that is no narrower than Newcombe's interval over them.

    Where few rows are told apart, those of every resample are too, and a bootstrap alone would be sure.

    Example:
        >>> import numpy as np
        >>> found = auc_over_groups(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.0, 0.0, 1.0, 1.0]), np.arange(4))
        >>> found.value, round(found.low, 2), found.high
        (1.0, 0.39, 1.0)

    Args:
        scores_N: The scores, higher for what is likelier positive; no NaN.
        labels_N: 1 for positives, 0 for negatives.
        groups_N: What may not be torn apart, such as rows of one prompt; any numbers.
        confidence: Between 0 and 1.
    """
    found = bootstrap(LabelledScores(scores_N, labels_N).roc_auc, groups_N, confidence=confidence)
    if math.isnan(found.value):
        return found
    positives, negatives = (
        effective_size(np.unique(groups_N[labels_N == label], return_counts=True)[1].astype(np.float64))
        for label in (1, 0)
    )
    low, high = _newcombe(found.value, positives, negatives, confidence)
    return replace(found, low=float(np.fmin(found.low, low)), high=float(np.fmax(found.high, high)))


def _newcombe(auc: float, positives: float, negatives: float, confidence: float) -> tuple[float, float]:
    """The areas from which this one is no further off than chance allows (Newcombe 2006, Statistics in Medicine 25, method 5).

    The variance is Hanley and McNeil's (1982) at the area itself, so that none is 0 but at the ends, with the mean number of
    rows of a class in place of either.
    """
    others = (positives + negatives) / 2 - 1
    z = normal_quantile(confidence)

    def is_within(area: float) -> bool:
        spread = 1 + others * ((1 - area) / (2 - area) + area / (1 + area))
        return (area - auc) ** 2 <= z * z * area * (1 - area) * spread / (positives * negatives)

    def end(outside: float) -> float:
        inside = auc
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if is_within(middle) else (inside, middle)
        return inside

    return end(0.0), end(1.0)


def brier(probs_N: Array, labels_N: Array) -> float:
    """The mean squared distance of probabilities from what happened (Brier 1950); NaN where there is nothing."""
    return float(((probs_N - labels_N) ** 2).mean()) if len(probs_N) else math.nan
