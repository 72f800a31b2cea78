"""Advantages of totals, as GRPO has them, and how far two rankings agree."""

from __future__ import annotations

import numpy as np

from rlaif_sdk.composer.arrays import Array, Labels
from rlaif_sdk.composer.diagnostics import ranks
from rlaif_sdk.composer.grouping import group_labels, group_means, group_sums

EPSILON = 1e-4
"""Added to a standard deviation, as TRL does."""


def group_advantages(totals_B: Array, group_B: Labels | None) -> Array:
    """(B,) totals less their group's mean, over its standard deviation (Shao et al., 2024, "DeepSeekMath", section 4.1).

    Standard deviations have Bessel's correction. Without groups the batch is whitened as a whole. An unscored row has
    NaN and enters no statistic; a row alone in its group, or among equals, has 0.
    """
    label_B = group_labels(totals_B, group_B)
    centred_B = totals_B - group_means(totals_B, label_B)[label_B]
    count_G, squared_G = group_sums(centred_B**2, label_B)
    std_G = np.sqrt(squared_G / np.maximum(count_G - 1, 1))
    advantages_B: Array = centred_B / (std_G[label_B] + EPSILON)
    return advantages_B


def rank_correlation(left_B: Array, right_B: Array) -> float:
    """Spearman's rank correlation, in [-1, 1], over the rows that have both values; NaN where one side is constant."""
    both_B = ~(np.isnan(left_B) | np.isnan(right_B))
    ranked = [ranks(values[both_B]) for values in (left_B, right_B)]
    left, right = (values - values.mean() if values.size else values for values in ranked)
    scale = float(np.sqrt((left @ left) * (right @ right)))
    return float(left @ right) / scale if scale > 0 else float("nan")
