"""The pydantic models of a composition's config file; the JSON schema for editors comes from here."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError

from rlaif_sdk.types import RESERVED_COLUMNS

Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A number that is no text, no truth value, not NaN and not infinite."""


class ConfigModel(BaseModel):
    """Base of every config: unknown keys are refused, and fields are documented by the docstring beneath them."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _named(key: str, model: type[BaseModel]) -> BeforeValidator:
    """Let ``normalize: zscore`` stand for ``normalize: {kind: zscore}``, in the JSON schema too."""
    return BeforeValidator(
        lambda value: {key: value} if isinstance(value, str) else value, json_schema_input_type=str | model
    )


def _refused(problem: str, *location: str | int) -> ValidationError:
    """A refusal of one part, found while the whole is checked; raised, pydantic takes it over with its location."""
    error = PydanticCustomError("value_error", "{problem}", {"problem": problem})
    return ValidationError.from_exception_data("config", [InitErrorDetails(type=error, loc=location, input=None)])


class ExtensionConfig(BaseModel):
    """A normalizer or aggregator by name, with its own parameters beside the name."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    kind: str
    """The name under which a plugin offers it."""

    @property
    def params(self) -> dict[str, Any]:
        """The parameters beside ``kind``."""
        return dict(self.model_extra or {})


class FailureConfig(ConfigModel):
    """What happens when a reward fails on a row, or altogether."""

    policy: Literal["raise", "abstain", "default", "drop"] = "abstain"
    """``raise`` ends the run; ``abstain`` renormalises the weights of the others; ``default`` uses ``value``;
    ``drop`` leaves the row without a total."""
    value: Finite | None = None
    """The stated default, in the reward's own units."""
    mask_group: Literal["never", "failed", "missing"] = "failed"
    """When a row of a group failed (or is missing for any reason), leave the reward out for the whole group, so that
    no completion gets an advantage from its neighbour's outage. Applies to ``abstain``."""

    @model_validator(mode="after")
    def _value_goes_with_default(self) -> FailureConfig:
        if (self.policy == "default") != (self.value is not None):
            raise ValueError("'value' goes with policy 'default', and only with it")
        return self


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
    after: CrossingConfig | None = None
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
            raise _refused(f"must be greater than 'start', {self.start:g}", "end")
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
                raise _refused(f"the points must be in order; {right:g} comes after {left:g}", index)
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
]
"""A number, or a schedule."""


Seconds = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=1)]


class LimitsConfig(ConfigModel):
    """What a reward's server allows in any 60 seconds. Counted in one process: divide by the number of processes."""

    requests_per_minute: Count | None = None
    """Calls begun; calls wait for their turn."""
    tokens_per_minute: Count | None = None
    """Tokens, as the reward reports them in ``Score.details["usage"]["tokens"]``; a call is estimated by the length of
    its texts until it has reported."""


class RetryConfig(ConfigModel):
    """Calls that are made again after an error that may pass."""

    attempts: Count = 1
    """Calls made at most, the first included."""
    errors: tuple[str, ...] = ("ConnectionError", "TimeoutError")
    """Class names of the errors, or of a base of theirs, after which a call is made again. ``RewardTimeoutError`` adds
    calls that pass their own ``timeout``. A refused key and a spent account or budget are never tried again."""
    delay: Seconds = 0.5
    """The longest wait before the second attempt; it doubles with each further one. The wait is drawn uniformly from 0
    to it, so that calls that failed together do not return together."""
    max_delay: Seconds = 30.0
    """The longest wait before any attempt."""


class BreakerConfig(ConfigModel):
    """A reward that keeps failing is left alone for a while: its calls fail at once."""

    failures: Count = 5
    """Failed calls in a row after which it is left alone."""
    cooldown: Seconds = 60.0
    """For how long; then one call is let through, to see."""


class BudgetConfig(ConfigModel):
    """What may be spent before the run ends with `BudgetExceededError`. It counts on over checkpoints."""

    calls: Count | None = None
    """Calls, with those made again."""
    tokens: Count | None = None
    """Tokens, as reported in ``Score.details["usage"]["tokens"]``."""
    cost: Seconds | None = None
    """Money, as reported in ``Score.details["usage"]["cost"]``."""


class ExecutionConfig(ConfigModel):
    """How a reward is called."""

    isolation: Literal["none", "process"] = "none"
    """``process`` calls it in a worker process of its own, which is killed at the time limit with all that it started:
    for rewards that may hang or crash."""
    chunk: Count | None = None
    """Rows of one call; null passes the whole batch. Only for a reward that scores each row by itself."""
    concurrency: Count = 1
    """Chunks scored at once. A reward that blocks gets as many threads or processes, and must be safe to call from
    several threads."""
    deadline: Seconds | None = None
    """Seconds that a whole batch may take, with all its chunks, waits and attempts; rows without a score by then have
    failed. (``timeout`` limits one call.)"""
    limits: LimitsConfig = LimitsConfig()
    """What its server allows a minute."""
    retry: RetryConfig = RetryConfig()
    """Calls made again after errors that may pass."""
    breaker: BreakerConfig | None = None
    """Leaves it alone after failures in a row; null never does."""
    budget: BudgetConfig = BudgetConfig()
    """What it may spend."""

    @model_validator(mode="after")
    def _concurrency_needs_chunks(self) -> ExecutionConfig:
        if self.concurrency > 1 and self.chunk is None:
            raise _refused("needs 'chunk': without it a batch is one call", "concurrency")
        return self


class FallbackConfig(ConfigModel):
    """A reward that stands in on the rows where another has failed."""

    use: str | None = None
    """As in `RewardConfig`."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Its parameters."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Dataset columns under other names."""
    timeout: Seconds | None = 300.0
    """Seconds that one call may take; null for no limit."""
    setup_timeout: Seconds | None = 1800.0
    """Seconds that loading its models may take; null for no limit."""
    execution: ExecutionConfig = ExecutionConfig()
    """How it is called."""
    cache: bool = True
    """As in `RewardConfig`."""


class RewardConfig(ConfigModel):
    """One reward of a composition."""

    use: str | None = None
    """The plugin's name for it, ``package.module:attribute``, or ``./file.py:attribute`` relative to this file.
    Defaults to the name under which it stands."""
    weight: WeightConfig = 1.0
    """How much it matters: a number, or a schedule such as ``{schedule: linear, from: 0, to: 1, end: 1000}``. 0 only
    records it."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Its parameters: `rlaif rewards show NAME` lists them."""
    normalize: Annotated[ExtensionConfig, _named("kind", ExtensionConfig)] = ExtensionConfig(kind="none")
    """``none``, ``minmax``, ``zscore``, ``group_zscore``, ``group_center``, ``rank``, ``quantile``, ``robust``,
    ``group_robust``, or another by name, with parameters; with each, ``winsorize`` and ``clip`` limit outliers."""
    on_failure: Annotated[FailureConfig, _named("policy", FailureConfig)] = FailureConfig()
    """What happens when it fails."""
    timeout: Seconds | None = 300.0
    """Seconds that one call may take; null for no limit."""
    setup_timeout: Seconds | None = 1800.0
    """Seconds that loading its models may take; null for no limit."""
    execution: ExecutionConfig = ExecutionConfig()
    """In a process of its own, in chunks, with limits, retries, a budget: how it is called."""
    fallback: str | None = None
    """The name under ``fallbacks`` of the reward whose scores stand in on the rows where this one fails, in the same
    units."""
    cache: bool = True
    """False if the ledger is neither asked for its scores nor keeps them."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Dataset columns under other names: ``{reference: answer}`` shows it the column ``answer`` as ``reference``."""

    @field_validator("columns")
    @classmethod
    def _not_reserved(cls, columns: dict[str, str]) -> dict[str, str]:
        for name in columns:
            if name in RESERVED_COLUMNS:
                raise _refused("a reward receives something else under this reserved name", name)
        return columns


class GateConfig(ConfigModel):
    """A condition on one reward's raw score that the whole sum depends on."""

    reward: str
    """The name of a reward of this composition; it may have weight 0."""
    min: Finite | None = None
    """The least raw score that passes."""
    max: Finite | None = None
    """The greatest raw score that passes."""
    floor: Finite
    """The most that a row's total can be when it does not pass."""
    on_missing: Literal["unscored", "floor", "pass"] = "unscored"
    """What becomes of a row for which the gate's reward has no score."""

    @model_validator(mode="after")
    def _has_a_bound(self) -> GateConfig:
        if self.min is None and self.max is None:
            raise ValueError("a gate needs 'min', 'max' or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("'min' is greater than 'max': nothing would pass")
        return self


class ConstraintConfig(ConfigModel):
    """A bound on the mean raw score of a reward, held by a multiplier that is learned."""

    reward: str
    """The name of a reward of this composition; give it weight 0 if it should enter in no other way."""
    max: Finite | None = None
    """The most that the mean may be."""
    min: Finite | None = None
    """The least that the mean may be."""
    step_size: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] = 0.05
    """How fast the multiplier follows the violation."""
    initial: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] = 0.0
    """The multiplier at the start."""
    ceiling: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None
    """The most that the multiplier may become; null for no limit."""

    @model_validator(mode="after")
    def _fits(self) -> ConstraintConfig:
        if (self.min is None) == (self.max is None):
            raise ValueError("a constraint needs 'max' or 'min', and not both")
        if self.ceiling is not None and self.ceiling < self.initial:
            raise _refused(f"must be at least 'initial', {self.initial:g}", "ceiling")
        return self


class GroupConfig(ConfigModel):
    """Rewards that are aggregated among themselves before they enter the whole."""

    members: tuple[str, ...] = Field(min_length=1)
    """Names of rewards and of other groups; each is in one group at most."""
    weight: WeightConfig = 1.0
    """How much the group matters among its neighbours."""
    aggregate: Annotated[ExtensionConfig, _named("kind", ExtensionConfig)] = ExtensionConfig(kind="weighted_sum")
    """How its members become one number."""
    gates: SkipJsonSchema[Any] = None

    @field_validator("gates")
    @classmethod
    def _no_gates(cls, _: Any) -> Any:
        raise ValueError(
            "a gate in a group would not gate the whole, since the other rewards could make up for it: write it under "
            "'gates' of the composition"
        )


class LedgerConfig(ConfigModel):
    """A file that keeps every score and what was composed of them."""

    path: str
    """The file, relative to this one; several runs may share it."""
    cache: bool = True
    """Look scores up before a reward is asked, and keep those that it gives."""
    record: bool = True
    """Record every composed batch, with its texts: `rlaif what-if` and `rlaif cache export` read it."""


class CompositionConfig(ConfigModel):
    """A composition: rewards by name, gates, and how the weighted rewards become one number."""

    rewards: dict[str, RewardConfig] = Field(min_length=1)
    """The rewards by name."""
    fallbacks: dict[str, FallbackConfig] = Field(default_factory=dict)
    """Rewards that are called only on the rows where one that names them as its ``fallback`` has failed."""
    budget: BudgetConfig = BudgetConfig()
    """What all rewards may spend together."""
    ledger: Annotated[LedgerConfig, _named("path", LedgerConfig)] | None = None
    """Keeps scores, so that none is paid for twice, and records every batch; null keeps nothing."""
    gates: tuple[GateConfig, ...] = ()
    """Conditions over the whole sum."""
    gate_order: Literal["independent", "lexicographic"] = "independent"
    """``lexicographic``: a row that fails an earlier gate ranks below every row that fails a later one only."""
    constraints: tuple[ConstraintConfig, ...] = ()
    """Bounds on means, held by multipliers that are learned."""
    groups: dict[str, GroupConfig] = Field(default_factory=dict)
    """Rewards that are aggregated among themselves before they enter the whole, by name."""
    aggregate: Annotated[ExtensionConfig, _named("kind", ExtensionConfig)] = ExtensionConfig(kind="weighted_sum")
    """How the weighted rewards become one number: ``weighted_sum``, ``minimum``, ``product``, ``chebyshev``, or another
    by name, with parameters."""

    @model_validator(mode="after")
    def _consistent(self) -> CompositionConfig:
        for index, gate in enumerate(self.gates):
            if gate.reward not in self.rewards:
                raise _refused("this names no reward; there are " + ", ".join(self.rewards), "gates", index, "reward")
        if all(reward.weight == 0 for reward in self.rewards.values()):
            raise _refused("every weight is 0: nothing would be rewarded", "rewards")
        return self
