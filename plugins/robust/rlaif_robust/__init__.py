"""The normalizers ``robust`` and ``group_robust``: distance from the median in robust standard deviations.

B is a batch's rows, G its groups. Missing scores are NaN and stay NaN.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rlaif_sdk import NormalizerSpec, Params, Standardizer, StateError, hookimpl

__all__ = ["GroupRobust", "GroupRobustParams", "Robust", "RobustParams", "group_medians", "rlaif_normalizers"]

rlaif_api_version = 1

Array: TypeAlias = npt.NDArray[np.float64]
Labels: TypeAlias = npt.NDArray[np.intp]

MAD_TO_STD = 1.482602218505602
"""Standard deviation over median absolute deviation, for a normal distribution."""
MEAN_DEVIATION_TO_STD = 1.2533141373155001
"""Standard deviation over mean absolute deviation, for a normal distribution."""


class GroupRobustParams(Params):
    """Parameters of `GroupRobust`."""

    clip: float | None = Field(default=10.0, gt=0)
    """Largest absolute value that comes out; null for none."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Added to the scale."""


class RobustParams(GroupRobustParams):
    """Parameters of `Robust`."""

    window: int = Field(default=4096, ge=2)
    """How many of the latest training scores count."""


class Robust(Standardizer):
    """``robust``: the distance from the median in robust standard deviations, over the latest training scores.

    The scale is the median absolute deviation times 1.4826. Where more than half of the scores are equal, so that it
    is 0, it is the mean absolute deviation times 1.2533 (Iglewicz and Hoaglin, 1993). Before the first training batch
    everything is 0.
    """

    def __init__(self, params: RobustParams | None = None) -> None:
        self.params: RobustParams = params or RobustParams()
        self._window: Array = np.empty(0)
        self._median = 0.0
        self._scale = 0.0

    def update(self, values_B: Array, group_B: Labels | None) -> None:
        values = values_B[~np.isnan(values_B)]
        if values.size:
            self._slide(np.concatenate([self._window, values[-self.params.window :]]))

    def _slide(self, values: Array) -> None:
        self._window = values[-self.params.window :].copy()
        one_group = np.zeros(len(self._window), dtype=np.intp)
        self._median = float(group_medians(self._window, one_group)[0])
        self._scale = float(_group_scales(self._window - self._median, one_group)[0])

    def center_and_scale(self, values_B: Array, group_B: Labels | None) -> tuple[Array, Array]:
        centred_B = values_B - self._median if self._window.size else values_B - values_B
        return centred_B, np.full(len(values_B), self._scale)

    def among(self) -> str:
        return f"median and robust deviation of the latest {self._window.size} training scores"

    def state_dict(self) -> dict[str, Any]:
        return {"window": self._window.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state.keys() != {"window"} or len(state["window"]) > self.params.window:
            raise StateError(f"a robust normalizer's state is a window of {self.params.window} scores at most")
        if state["window"]:
            self._slide(np.array(state["window"], dtype=np.float64))


class GroupRobust(Standardizer):
    """``group_robust``: `Robust` within the completions to the same prompt, without memory.

    Without groups the whole batch is one group. A group without spread, or with one score, gives 0.
    """

    within_groups = True

    def __init__(self, params: GroupRobustParams | None = None) -> None:
        self.params: GroupRobustParams = params or GroupRobustParams()

    def center_and_scale(self, values_B: Array, group_B: Labels | None) -> tuple[Array, Array]:
        labels_B = np.zeros(len(values_B), dtype=np.intp) if group_B is None else group_B
        centred_B = values_B - group_medians(values_B, labels_B)[labels_B]
        return centred_B, _group_scales(centred_B, labels_B)[labels_B]

    def among(self) -> str:
        return "median and robust deviation of its group"


def group_medians(values_B: Array, group_B: Labels) -> Array:
    """(G,) the median of each group, 0 where it has no value."""
    rows = np.flatnonzero(~np.isnan(values_B))
    values, labels = values_B[rows], group_B[rows]
    values = values[np.lexsort((values, labels))]
    count_G = np.bincount(labels, minlength=int(group_B.max(initial=-1)) + 1)
    first_G = np.cumsum(count_G) - count_G
    medians_G = np.zeros(len(count_G))
    full_G = count_G > 0
    low = values[(first_G + (count_G - 1) // 2)[full_G]]
    high = values[(first_G + count_G // 2)[full_G]]
    medians_G[full_G] = low + (high - low) / 2
    return medians_G


def _group_scales(centred_B: Array, group_B: Labels) -> Array:
    """(G,) the robust standard deviation of each group of values that are centred on their median."""
    distance_B = np.abs(centred_B)
    mad_G = group_medians(distance_B, group_B)
    present_B = ~np.isnan(distance_B)
    count_G = np.bincount(group_B[present_B], minlength=len(mad_G))
    mean_G = np.bincount(group_B[present_B], distance_B[present_B], len(mad_G)) / np.maximum(count_G, 1)
    scales_G: Array = np.where(mad_G > 0, MAD_TO_STD * mad_G, MEAN_DEVIATION_TO_STD * mean_G)
    return scales_G


@hookimpl
def rlaif_normalizers() -> list[NormalizerSpec]:
    """Offer ``robust`` and ``group_robust``."""
    return [
        NormalizerSpec(
            name="robust", factory=Robust, params=RobustParams, description="median and MAD of the latest scores"
        ),
        NormalizerSpec(
            name="group_robust", factory=GroupRobust, params=GroupRobustParams, description="median and MAD per prompt"
        ),
    ]
