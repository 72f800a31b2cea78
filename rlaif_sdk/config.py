"""The pydantic models of a composition's config file; the JSON schema for editors comes from here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
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


class RewardConfig(ConfigModel):
    """One reward of a composition."""

    use: str | None = None
    """The plugin's name for it, ``package.module:attribute``, or ``./file.py:attribute`` relative to this file.
    Defaults to the name under which it stands."""
    weight: Finite = 1.0
    """How much it matters. 0 only records it."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Its parameters: `rlaif rewards show NAME` lists them."""
    normalize: Annotated[ExtensionConfig, _named("kind", ExtensionConfig)] = ExtensionConfig(kind="none")
    """``none``, ``minmax``, ``zscore``, ``group_zscore``, ``rank``, or another by name, with parameters."""
    on_failure: Annotated[FailureConfig, _named("policy", FailureConfig)] = FailureConfig()
    """What happens when it fails."""
    timeout: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = 300.0
    """Seconds that one call may take; null for no limit."""
    setup_timeout: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = 1800.0
    """Seconds that loading its models may take; null for no limit."""
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


class CompositionConfig(ConfigModel):
    """A composition: rewards by name, gates, and how the weighted rewards become one number."""

    rewards: dict[str, RewardConfig] = Field(min_length=1)
    """The rewards by name."""
    gates: tuple[GateConfig, ...] = ()
    """Conditions over the whole sum."""
    aggregate: Annotated[ExtensionConfig, _named("kind", ExtensionConfig)] = ExtensionConfig(kind="weighted_sum")
    """How the weighted rewards become one number."""

    @model_validator(mode="after")
    def _consistent(self) -> CompositionConfig:
        for index, gate in enumerate(self.gates):
            if gate.reward not in self.rewards:
                raise _refused("this names no reward; there are " + ", ".join(self.rewards), "gates", index, "reward")
        if all(reward.weight == 0 for reward in self.rewards.values()):
            raise _refused("every weight is 0: nothing would be rewarded", "rewards")
        return self
