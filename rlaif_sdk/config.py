"""The pydantic models of a composition's config file; the JSON schema for editors comes from here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

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
        for gate in self.gates:
            if gate.reward not in self.rewards:
                raise ValueError(f"a gate names the reward {gate.reward!r}; there are {', '.join(self.rewards)}")
        if all(reward.weight == 0 for reward in self.rewards.values()):
            raise ValueError("every weight is 0: nothing would be rewarded")
        return self
