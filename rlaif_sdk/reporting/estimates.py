"""Means with their standard errors, and paired changes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and how far off it may be.

    Attributes:
        mean: The mean; NaN when nothing was measured.
        standard_error: The sample standard deviation over the root of n; NaN for n < 2.
        n: How many values.
    """

    mean: float
    standard_error: float
    n: int

    @property
    def exceeds_error(self) -> bool:
        """Whether the mean lies more than one standard error above 0."""
        return self.mean > self.standard_error

    def to_dict(self) -> dict[str, float | int | None]:
        """JSON values: None for NaN."""
        return {"mean": _finite(self.mean), "standard_error": _finite(self.standard_error), "n": self.n}


def estimate(values_B: Array) -> Estimate:
    """The mean of the values that are not NaN."""
    present = values_B[~np.isnan(values_B)]
    if present.size == 0:
        return Estimate(math.nan, math.nan, 0)
    spread = float(present.std(ddof=1)) if present.size > 1 else math.nan
    return Estimate(float(present.mean()), spread / math.sqrt(present.size), int(present.size))


def paired_change(before_B: Array, after_B: Array) -> Estimate:
    """The mean of after minus before, over the rows where neither is NaN.

    Its standard error is that of the differences, so that easy and hard rows do not blur it.

    Raises:
        ValueError: The shapes differ: the rows are then not the same ones.
    """
    if before_B.shape != after_B.shape:
        raise ValueError(f"paired values must have one shape, not {before_B.shape} and {after_B.shape}")
    return estimate(after_B - before_B)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
