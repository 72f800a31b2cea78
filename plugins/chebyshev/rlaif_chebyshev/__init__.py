"""The aggregator ``chebyshev``: minus the greatest weighted shortfall from an ideal point.

B is a batch's rows, R its rewards. Missing rewards are NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rlaif_sdk import Aggregator, AggregatorSpec, ConfigError, Params, hookimpl

__all__ = ["Chebyshev", "ChebyshevParams", "rlaif_aggregators"]

rlaif_api_version = 1

Array: TypeAlias = npt.NDArray[np.float64]


class ChebyshevParams(Params):
    """Parameters of `Chebyshev`."""

    ideal: float | dict[str, float] | None = None
    """The normalised value that each reward would have at its best: one for all, or one a reward."""
    augmentation: float = Field(default=0.0, ge=0)
    """How much the sum of all shortfalls counts beside the greatest; a little (0.01) tells rows apart that share it."""


class Chebyshev(Aggregator):
    """``chebyshev``: minus the greatest weighted shortfall from an ideal point.

    The augmented weighted Tchebycheff scalarisation (Steuer and Choo, 1983): ``-(max_r w_r (ideal_r - v_r) + rho sum_r
    w_r (ideal_r - v_r))``. It reaches every Pareto-optimal trade-off, where a weighted sum reaches only those on the
    convex hull. Rewards of weight 0, and those missing from a row, take no part.

    Raises:
        ConfigError: No ideal is stated.
    """

    def __init__(self, params: ChebyshevParams) -> None:
        if params.ideal is None:
            raise ConfigError("chebyshev needs 'ideal': the normalised value of a reward at its best")
        self.ideal: float | dict[str, float] = params.ideal
        self.augmentation = params.augmentation
        self._ideal_R: Array = np.zeros(0)

    def bind(self, weights: Mapping[str, tuple[float, float]]) -> None:
        ideals = self.ideal if isinstance(self.ideal, dict) else dict.fromkeys(weights, self.ideal)
        for name, (least, greatest) in weights.items():
            if least < 0:
                raise ConfigError(
                    f"chebyshev: the weight of {name!r} is or becomes {least:g}, and must not be negative",
                    key=f"rewards.{name}.weight",
                    hint="turn a cost with higher_is_better instead",
                )
            if name not in ideals and greatest > 0:
                raise ConfigError(f"chebyshev: 'ideal' has no value for {name!r}", key="aggregate")
        for name in ideals:
            if name not in weights:
                raise ConfigError(f"chebyshev: 'ideal' names {name!r}; there are {', '.join(weights)}", key="aggregate")
        self._ideal_R = np.array([ideals.get(name, 0.0) for name in weights])

    def aggregate(self, normalized_RB: Array, weights_R: Array) -> tuple[Array, Array]:
        present_RB = ~np.isnan(normalized_RB)
        active_RB = present_RB & (weights_R != 0)[:, None]
        shortfall_RB = (self._ideal_R[:, None] - normalized_RB) * weights_R[:, None]
        greatest_B = np.where(active_RB, shortfall_RB, -np.inf).max(axis=0)
        binding_RB = active_RB & (shortfall_RB == greatest_B)
        rest_RB = self.augmentation * np.where(active_RB, shortfall_RB, 0.0)
        totals_B = -greatest_B - rest_RB.sum(axis=0)
        shares_RB = np.where(binding_RB, -greatest_B, 0.0) / np.maximum(binding_RB.sum(axis=0), 1) - rest_RB
        return np.where(active_RB.any(axis=0), totals_B, np.nan), np.where(present_RB, shares_RB, np.nan)


@hookimpl
def rlaif_aggregators() -> list[AggregatorSpec]:
    """Offer ``chebyshev``."""
    return [
        AggregatorSpec(
            name="chebyshev",
            factory=Chebyshev,
            params=ChebyshevParams,
            description="greatest weighted shortfall from an ideal point",
        )
    ]
