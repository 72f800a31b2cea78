"""Aggregators: how the normalised rewards of a row become one number."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from rlaif_sdk.composer.arrays import Array


class Aggregator(ABC):
    """Combines R normalised rewards of B rows by their weights."""

    @abstractmethod
    def aggregate(self, normalized_RB: Array, weights_R: Array) -> tuple[Array, Array]:
        """Combine.

        Args:
            normalized_RB: (R, B), higher being better; NaN where a reward has no value for a row.
            weights_R: (R,), finite.

        Returns:
            The (B,) totals, NaN where nothing with a weight was present, and the (R, B) share of each reward in its
            row's total, NaN where it was missing.
        """


class WeightedSum(Aggregator):
    """``weighted_sum``: the sum of weight times value.

    Where rewards are missing from a row, the weights of the others are scaled up so that their absolute values sum
    to what all weights sum to: a row with an outage stays on the scale of its neighbours.
    """

    def aggregate(self, normalized_RB: Array, weights_R: Array) -> tuple[Array, Array]:
        size_R = np.abs(weights_R)
        present_RB = ~np.isnan(normalized_RB)
        if present_RB.all():
            weighted_RB = normalized_RB * weights_R[:, None]
            return weighted_RB.sum(axis=0), weighted_RB
        present_B = size_R @ present_RB
        with np.errstate(divide="ignore", invalid="ignore"):
            scale_B = np.where(present_B > 0, size_R.sum() / present_B, np.nan)
        weighted_RB = normalized_RB * weights_R[:, None] * scale_B
        totals_B = np.where(present_RB, weighted_RB, 0.0).sum(axis=0)
        return np.where(present_B > 0, totals_B, np.nan), weighted_RB
