"""The config of a weight that changes during training."""

from __future__ import annotations

import difflib
import itertools
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from rlaif_sdk.config.base import ConfigModel, Finite, refused


class CrossingConfig(ConfigModel):
    """The moment when the mean raw score of a reward crosses a value."""

    reward: str
    """The name of a reward of this composition; it may have weight 0."""
    above: Finite | None = None
    """The mean over a training batch must be greater than this."""
    below: Finite | None = None
    """The mean over a training batch must be less than this."""
    patience: Annotated[int, Field(strict=True, ge=1)] = 1
    """How many training batches in a row must agree."""

    @model_validator(mode="after")
    def _one_way(self) -> CrossingConfig:
        if (self.above is None) == (self.below is None):
            raise ValueError("a crossing needs 'above' or 'below', and not both")
        return self


class ScheduleConfig(ConfigModel):
    """A weight that changes during training."""

    by: Literal["step", "episode"] = "step"
    """What positions count: optimiser steps, or rows composed in training."""
    trigger: CrossingConfig | None = None
    """Count from the moment when this happened, and hold the first weight before."""


class RampConfig(ScheduleConfig):
    """A weight that goes from one value to another."""

    schedule: Literal["linear", "cosine"]
    """In a straight line, or along half a cosine."""
    from_: Finite = Field(alias="from")
    """The weight until ``start``."""
    to: Finite
    """The weight from ``end`` on."""
    start: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] = 0.0
    """Where the change begins."""
    end: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
    """Where the change ends."""

    @model_validator(mode="after")
    def _ends_after_start(self) -> RampConfig:
        if self.end <= self.start:
            raise refused(f"must be greater than 'start', {self.start:g}", "end")
        return self


Points: TypeAlias = Annotated[tuple[tuple[Finite, Finite], ...], Field(min_length=1)]
"""Positions with their weights, in order of position."""


class _PointsConfig(ScheduleConfig):
    points: Points
    """Positions with their weights, in order of position."""

    @field_validator("points")
    @classmethod
    def _in_order(cls, points: Points) -> Points:
        for index, ((left, _), (right, _)) in enumerate(itertools.pairwise(points), start=1):
            if right <= left:
                raise refused(f"the points must be in order; {right:g} comes after {left:g}", index)
        return points


class PiecewiseConfig(_PointsConfig):
    """A weight that goes in straight lines through points."""

    schedule: Literal["piecewise"]
    """Straight lines."""


class StepConfig(_PointsConfig):
    """A weight that changes at once."""

    schedule: Literal["step"]
    """At each point the weight becomes what the point says."""
    from_: Finite = Field(alias="from")
    """The weight before the first point."""


_SHAPES = {"linear": "ramp[]", "cosine": "ramp[]", "piecewise": "piecewise[]", "step": "step[]"}


def _weight_tag(value: Any) -> str | None:
    """What a weight is to be read as; tags have brackets, which no key of a file has, so messages leave them out."""
    if isinstance(value, dict):
        shape = value.get("schedule")
        return _SHAPES.get(shape) if isinstance(shape, str) else None
    return _SHAPES[value.schedule] if isinstance(value, (RampConfig, PiecewiseConfig, StepConfig)) else "number[]"


def _known_schedule(value: Any) -> Any:
    """Refuse a schedule that there is none of, with the name that was likely meant."""
    shape = value.get("schedule") if isinstance(value, dict) else None
    if not isinstance(shape, str) or shape in _SHAPES:
        return value
    close = difflib.get_close_matches(shape, _SHAPES, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(_SHAPES)}"
    raise refused(f"no schedule is called {shape!r} ({hint})", "schedule")


WeightConfig: TypeAlias = Annotated[
    Annotated[Finite, Tag("number[]")]
    | Annotated[RampConfig, Tag("ramp[]")]
    | Annotated[PiecewiseConfig, Tag("piecewise[]")]
    | Annotated[StepConfig, Tag("step[]")],
    Discriminator(
        _weight_tag,
        custom_error_type="schedule",
        custom_error_message="a weight is a number, or a mapping with 'schedule': linear, cosine, piecewise or step",
    ),
    BeforeValidator(_known_schedule),
]
"""A number, or a schedule."""
