"""Advantages of composed rewards, as GRPO and GDPO have them."""

from __future__ import annotations

import numpy as np

from rlaif_sdk.statistics.arrays import Array, Labels
from rlaif_sdk.statistics.groups import group_labels, group_means, group_sums

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


def gdpo_advantages(rewards_RB: Array, weights_R: Array, group_B: Labels, *, epsilon: float = 1e-4) -> Array:
    """Group reward-decoupled normalised advantages (Liu et al., 2026, "GDPO"), as TRL's ``normalize_then_sum`` has them.

    Each reward is standardised within each group, then weighted and summed, and the sums are standardised over the
    batch. Standard deviations have Bessel's correction. A reward that is missing from a row, or alone in its group,
    adds nothing there; a row without any reward gets advantage 0 and enters no statistic.

    Args:
        rewards_RB: (R, B) rewards, higher being better, NaN where missing; the rows of all ranks.
        weights_R: (R,) weights.
        group_B: (B,) integers from 0, equal for rows that answer the same prompt.
        epsilon: Added to every standard deviation.

    Returns:
        (B,) advantages.
    """
    standardised_RB = np.stack([_standardised(rewards_B, group_B, epsilon) for rewards_B in rewards_RB])
    sums_B = np.where(np.isnan(standardised_RB), 0.0, standardised_RB * weights_R[:, None]).sum(axis=0)
    sums_B = np.where(np.isnan(rewards_RB).all(axis=0), np.nan, sums_B)
    return np.nan_to_num(_standardised(sums_B, np.zeros_like(group_B), epsilon), nan=0.0)


def _standardised(values_B: Array, group_B: Labels, epsilon: float) -> Array:
    """(B,) the values less their group's mean over its standard deviation; NaN where a group has less than two."""
    count_G, sum_G = group_sums(values_B, group_B)
    centred_B = values_B - (sum_G / np.maximum(count_G, 1))[group_B]
    _, squared_G = group_sums(centred_B**2, group_B)
    with np.errstate(divide="ignore", invalid="ignore"):
        std_G = np.where(count_G > 1, np.sqrt(squared_G / (count_G - 1)), np.nan)
    return centred_B / (std_G[group_B] + epsilon)
