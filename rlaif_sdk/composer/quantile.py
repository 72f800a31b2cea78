"""Normalising by the empirical distribution of all scores so far, kept as a sample of bounded size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rlaif_sdk.composer.arrays import Array, Labels
from rlaif_sdk.composer.normalize import Normalizer
from rlaif_sdk.exceptions import StateError
from rlaif_sdk.rewards import Params

CAPACITY = 4096
"""Scores that are kept: the empirical distribution is then within 0.031 of the true one at every point, with a
probability of 99.9% (Dvoretzky, Kiefer and Wolfowitz)."""


class Reservoir:
    """A uniform sample of bounded size of all values so far (Vitter, 1985, algorithm R).

    Which values stay is drawn from a hash of the seed and a value's position, so the sample depends neither on how
    the values were cut into batches nor on any other randomness, and is the same on every rank.

    Args:
        capacity: How many values are kept.
        seed: What the draws depend on.
    """

    def __init__(self, capacity: int = CAPACITY, seed: int = 0) -> None:
        self.capacity = capacity
        self.seed = seed
        self.count = 0
        self._kept: Array = np.empty(0)
        self._sorted: Array = np.empty(0)

    def add(self, values: Array) -> None:
        """Take values in, in order; NaN is left out."""
        values = values[~np.isnan(values)]
        if not values.size:
            return
        room = max(self.capacity - self.count, 0)
        self._kept = np.concatenate([self._kept, values[:room]])
        late = values[room:]
        positions = np.arange(self.count + len(values) - len(late), self.count + len(values), dtype=np.uint64)
        slots = (_uniform(self.seed, positions) * (positions + np.uint64(1))).astype(np.intp)
        drawn = slots < self.capacity
        self._kept[slots[drawn]] = late[drawn]
        self.count += len(values)
        self._sorted = np.sort(self._kept)

    @property
    def sorted(self) -> Array:
        """The values that are kept, in ascending order."""
        return self._sorted

    def state_dict(self) -> dict[str, Any]:
        """What must survive a checkpoint, as JSON values."""
        return {"count": self.count, "kept": self._kept.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            StateError: The state is not of a reservoir of this capacity.
        """
        if state.keys() != {"count", "kept"} or len(state["kept"]) != min(int(state["count"]), self.capacity):
            raise StateError(f"a sample's state has count and kept, {self.capacity} values at most")
        self.count = int(state["count"])
        self._kept = np.array(state["kept"], dtype=np.float64)
        self._sorted = np.sort(self._kept)


class QuantileParams(Params):
    """Parameters of `Quantile`."""

    capacity: int = Field(default=CAPACITY, ge=2)
    """Scores that are kept."""
    seed: int = Field(default=0, ge=0)
    """What decides which scores are kept."""


class Quantile(Normalizer):
    """``quantile``: where a score stands among all training scores so far, in [-1, 1].

    Twice the share of the kept scores below it, ties counted half, less 1: the median gives 0. Unlike ``rank`` it
    compares with all batches, so a batch that is better as a whole is seen to be. Before the first training batch
    everything is 0.
    """

    def __init__(self, params: QuantileParams | None = None) -> None:
        self.params: QuantileParams = params or QuantileParams()
        self._sample = Reservoir(self.params.capacity, self.params.seed)

    def update(self, values_B: Array, group_B: Labels | None) -> None:
        self._sample.add(values_B)

    def normalize(self, values_B: Array, group_B: Labels | None) -> Array:
        known = self._sample.sorted
        if not known.size:
            return values_B - values_B
        order = np.argsort(values_B)  # values in order are found several times as fast
        ascending = values_B[order]
        below = np.searchsorted(known, ascending, side="left")
        upto = np.searchsorted(known, ascending, side="right")
        places_B = np.empty_like(values_B)
        places_B[order] = np.where(np.isnan(ascending), np.nan, (below + upto) / known.size - 1.0)
        return places_B

    def state_dict(self) -> dict[str, Any]:
        return self._sample.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sample.load_state_dict(state)


def _uniform(seed: int, positions: npt.NDArray[np.uint64]) -> Array:
    """One number in [0, 1) a position: splitmix64 (Steele, Lea and Flood, 2014), 53 bits."""
    golden = 0x9E3779B97F4A7C15
    mixed = (positions + np.uint64(1)) * np.uint64(golden) + np.uint64(seed * golden % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53
