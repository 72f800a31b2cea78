"""Outliers limited before and after any normalizer."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field, field_validator

from rlaif_sdk.composer.arrays import Array, Labels
from rlaif_sdk.composer.normalize import Normalizer, clipped
from rlaif_sdk.composer.quantile import Reservoir
from rlaif_sdk.rewards import Params


class LimitParams(Params):
    """Keys that go with every normalizer, beside its own parameters."""

    winsorize: tuple[float, float] | None = None
    """The quantiles of the training scores so far to which scores beyond are moved, such as ``[0.01, 0.99]``; one
    number stands for that share at either end."""
    clip: float | None = Field(default=None, gt=0)
    """Largest absolute value that comes out; null for none."""

    @field_validator("winsorize", mode="before")
    @classmethod
    def _either_end(cls, value: Any) -> Any:
        return (value, 1.0 - value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value

    @field_validator("winsorize")
    @classmethod
    def _in_order(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0.0 <= value[0] < value[1] <= 1.0:
            raise ValueError(f"the quantiles must be in order and within [0, 1], not {value[0]:g} and {value[1]:g}")
        return value


class Limited(Normalizer):
    """Another normalizer, with scores winsorised before it and its values clipped after it.

    Winsorising learns the quantiles from a sample of all training scores so far, this batch included
    (`rlaif_sdk.composer.quantile.Reservoir`); the inner normalizer sees the scores so limited.
    """

    def __init__(self, inner: Normalizer, params: LimitParams) -> None:
        self.inner = inner
        self.params: LimitParams = params
        self.within_groups = inner.within_groups
        self._sample = Reservoir()

    def bind(self, value_range: tuple[float, float] | None) -> None:
        super().bind(value_range)
        self.inner.bind(value_range)

    def update(self, values_B: Array, group_B: Labels | None) -> None:
        if self.params.winsorize:
            self._sample.add(values_B)
        self.inner.update(self._winsorized(values_B), group_B)

    def normalize(self, values_B: Array, group_B: Labels | None) -> Array:
        return clipped(self.inner.normalize(self._winsorized(values_B), group_B), self.params.clip)

    def scale(self, values_B: Array, group_B: Labels | None) -> Array:
        return self.inner.scale(self._winsorized(values_B), group_B)

    def _winsorized(self, values_B: Array) -> Array:
        if not self.params.winsorize or not self._sample.count:
            return values_B
        low, high = np.quantile(self._sample.sorted, self.params.winsorize)
        return np.clip(values_B, low, high)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "inner": self.inner.describe()}

    def state_dict(self) -> dict[str, Any]:
        return {"sample": self._sample.state_dict(), "inner": self.inner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sample.load_state_dict(state.get("sample", {}))
        self.inner.load_state_dict(state.get("inner", {}))
