"""Confidence intervals of the mean of a few values."""

from __future__ import annotations

import math
from collections.abc import Sequence


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The mean of independent values, and the half-width of its confidence interval by Student's t.

    Args:
        values: Such as one figure a seed; NaN is left out.
        confidence: Between 0 and 1.

    Returns:
        Mean and half-width; NaN where there are too few values for them (one, and two).
    """
    present = [value for value in values if not math.isnan(value)]
    count = len(present)
    if not count:
        return math.nan, math.nan
    mean = math.fsum(present) / count
    if count == 1:
        return mean, math.nan
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in present) / (count - 1))
    return mean, student_t_quantile((1 + confidence) / 2, count - 1) * spread / math.sqrt(count)


def student_t_quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's t distribution, found by bisection.

    Args:
        probability: In [0.5, 1).
        degrees: Of freedom, at least 1.
    """
    low, high = 0.0, 1.0
    while student_t_probability(high, degrees) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        if student_t_probability(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def student_t_probability(value: float, degrees: int) -> float:
    """The probability that Student's t is at most a value, by the finite series for whole degrees of freedom.

    Abramowitz and Stegun 1964, 26.7.3 and 26.7.4.
    """
    angle = math.atan(value / math.sqrt(degrees))
    sine, cosine_squared = math.sin(angle), math.cos(angle) ** 2
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for index in range(degrees // 2):
        total += term
        term *= cosine_squared * ((2 * index + 2) / (2 * index + 3) if odd else (2 * index + 1) / (2 * index + 2))
    central = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return 0.5 + central / 2
