"""Tests of a bounded mean that may be looked at after every observation, by betting. N observations in [0, 1].

A bettor starts with 1 and stakes before each observation; if the hypothesis holds no strategy gains on average, so the
wealth is an e-process, and the chance that it *ever* reaches ``1 / alpha`` is at most ``alpha`` (Ville, 1939; Waudby-Smith
and Ramdas, 2024, *Estimating means of bounded random variables by betting*). How often one looks, and when one stops,
changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rlaif_sdk.exceptions import StateError
from rlaif_sdk.statistics.arrays import Array

MEMORIES = (32.0, 128.0, 512.0)
"""Observations that a bettor goes by: a short memory is quick with a large change, a long one sees a small change."""
_STAKE = 0.75
"""The most that one observation can take of the wealth."""
_PRIOR = 4.0
"""Observations at the bound that a bettor assumes before it has seen any."""
_PRIOR_VARIANCE = 0.05
_BOUND = 1e-3
"""A bound below this counts as this, so that no stake is without limit."""


class MeanTest:
    """An e-process against the hypothesis: given all before it, each observation's expectation is at most ``bound``.

    The expectations may differ and change, the observations need no other assumption than to lie in [0, 1]. Those that are
    given together share one stake, so their order does not matter, and they may be drawn without replacement (Maclaurin's
    inequality of symmetric means). The stake is Kelly's for a mean and variance estimated from earlier observations, 0 while
    that mean is within the bound. The evidence is the average of one bettor for each of `MEMORIES`, itself an e-process.

    Example:
        >>> import numpy as np
        >>> test = MeanTest(0.5)
        >>> for _ in range(40):
        ...     test.update(np.array([0.9, 0.8, 1.0]))
        >>> f"{test.log_evidence:.0f}"
        '55'

    Attributes:
        bound: The greatest expectation under the hypothesis.
    """

    def __init__(self, bound: float) -> None:
        self.bound = min(max(bound, _BOUND), 1.0)
        self._log_wealth_M = np.zeros(len(MEMORIES))
        self._sums_3M = np.zeros((3, len(MEMORIES)))

    @property
    def log_evidence(self) -> float:
        """The natural logarithm of the e-value."""
        return float(np.logaddexp.reduce(self._log_wealth_M) - math.log(len(MEMORIES)))

    @property
    def recent(self) -> float:
        """The mean of the last observations, over the shortest memory; NaN without any."""
        count, total = self._sums_3M[:2, 0]
        return float(total / count) if count else math.nan

    def update(self, observations_N: Array) -> None:
        """Bet on N observations, and learn from them for the next bet.

        Raises:
            ValueError: One is not in [0, 1].
        """
        if not ((observations_N >= 0) & (observations_N <= 1)).all():
            raise ValueError(f"observations lie in [0, 1], not {observations_N}")
        stakes_M = self._stakes()
        self._log_wealth_M += np.log1p(np.multiply.outer(stakes_M, observations_N - self.bound)).sum(axis=1)
        kept_M = np.exp(-len(observations_N) / np.array(MEMORIES))
        new_3 = np.array([len(observations_N), observations_N.sum(), observations_N @ observations_N])
        self._sums_3M = self._sums_3M * kept_M + new_3[:, np.newaxis]

    def _stakes(self) -> Array:
        """(M,) what each bettor stakes on a unit above the bound."""
        count_M, sum_M, square_M = self._sums_3M
        known_M = count_M + _PRIOR
        mean_M = (sum_M + _PRIOR * self.bound) / known_M
        square_mean_M = (square_M + _PRIOR * (self.bound**2 + _PRIOR_VARIANCE)) / known_M
        gap_M = mean_M - self.bound
        stakes_M: Array = gap_M / np.maximum(square_mean_M - mean_M**2 + gap_M**2, 1e-12)
        return stakes_M.clip(0.0, _STAKE / self.bound)

    def state_dict(self) -> dict[str, Any]:
        """What must survive a checkpoint, as JSON values."""
        return {"bound": self.bound, "log_wealth": self._log_wealth_M.tolist(), "sums": self._sums_3M.tolist()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> MeanTest:
        """The test of a saved state.

        Raises:
            StateError: The state is not of such a test.
        """
        test = cls(state["bound"])
        test._log_wealth_M, test._sums_3M = np.array(state["log_wealth"]), np.array(state["sums"])
        if test._log_wealth_M.shape != (len(MEMORIES),) or test._sums_3M.shape != (3, len(MEMORIES)):
            raise StateError(f"a test has {len(MEMORIES)} memories; saved were {len(state['log_wealth'])}")
        return test


def upper_limit(observations_N: Array, alpha: float) -> float:
    """The least bound that the mean is below with confidence ``1 - alpha``: bounds above it are rejected by betting.

    The bets are those of Waudby-Smith and Ramdas (2024, section 3.2) for a fixed number of observations, ``sqrt(2 log(1 /
    alpha) / (N var))`` with the variance of the observations before. 1 where nothing is rejected.

    Args:
        observations_N: In [0, 1], of one mean.
        alpha: How often the mean may be above the limit, in (0, 1).
    """
    count = len(observations_N)
    if not count:
        return 1.0
    place_N = np.arange(1, count + 1)
    mean_N = (0.5 + np.cumsum(observations_N)) / (place_N + 1)
    variance_N = (0.25 + np.cumsum((observations_N - mean_N) ** 2)) / (place_N + 1)
    before_N = np.concatenate([[0.25], variance_N[:-1]])
    stakes_N = np.sqrt(2 * math.log(1 / alpha) / (count * before_N))

    def rejects(bound: float) -> bool:
        stakes = np.minimum(stakes_N, _STAKE / max(1 - bound, 1e-12))
        return bool(np.log1p(stakes * (bound - observations_N)).sum() >= -math.log(alpha))

    low, high = float(observations_N.mean()), 1.0
    if not rejects(high):
        return 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if rejects(middle) else (middle, high)
    return high
