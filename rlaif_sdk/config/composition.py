"""The config of a composition: rewards, gates, groups, constraints, ledger."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from rlaif_sdk.config.alarm import AlarmConfig
from rlaif_sdk.config.base import ConfigModel, ExtensionConfig, Finite, Scalar, named, one_or_more, refused
from rlaif_sdk.config.execution import BudgetConfig, ExecutionConfig, Seconds
from rlaif_sdk.config.schedules import WeightConfig
from rlaif_sdk.types import RESERVED_COLUMNS


def _defaults_for_null(value: Any) -> Any:
    """``toxicity:`` with nothing after it is null in YAML."""
    return {} if value is None else value


def _check_bounds(what: str, low: float | None, high: float | None) -> None:
    if low is None and high is None:
        raise ValueError(f"{what} needs 'min', 'max' or both")
    if low is not None and high is not None and low > high:
        raise ValueError("'min' is greater than 'max': nothing would pass")


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
    fail_fast: bool = True
    """End the run, whatever the policy, if the reward fails on all rows of its first batch (or on its first four
    where rows come one by one), or on some as a wrong program
    does (``NameError``, ``TypeError``, ``KeyError`` and their like), before it has answered once. False leaves that to
    the policy too."""

    @model_validator(mode="after")
    def _value_goes_with_default(self) -> FailureConfig:
        if (self.policy == "default") != (self.value is not None):
            raise ValueError("'value' goes with policy 'default', and only with it")
        return self


class FallbackConfig(ConfigModel):
    """A reward that is asked on the rows where another has failed."""

    use: str | None = None
    """As in a reward."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Its parameters."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Dataset columns under other names."""
    timeout: Seconds | Literal["auto"] | None = "auto"
    """Seconds that one call may take; null for no limit. ``auto`` is 300, and no limit for a plain synchronous reward (one
    without a setup of its own, of which no ``execution`` and no cache is asked): it is called in the caller's thread."""
    setup_timeout: Seconds | None = 1800.0
    """Seconds that loading its models may take; null for no limit."""
    execution: ExecutionConfig = ExecutionConfig()
    """How it is called."""
    cache: bool = True
    """As in a reward."""


class RewardConditionConfig(ConfigModel):
    """What another reward said of the row lies within bounds.

    Only a score that it gave meets the condition: not a row on which it abstained or was not asked. Where it failed, the
    reward with the condition is not asked, and fails too.
    """

    reward: str
    """The name of another reward of this composition; it may have weight 0."""
    min: Finite | None = None
    """The least raw score that meets the condition."""
    max: Finite | None = None
    """The greatest raw score that meets it."""

    @model_validator(mode="after")
    def _has_a_bound(self) -> RewardConditionConfig:
        _check_bounds("a condition", self.min, self.max)
        return self


class ColumnConditionConfig(ConfigModel):
    """A column of the row has one of some values, or none of some."""

    column: str
    """The column, as the data names it."""
    in_: tuple[Scalar, ...] = Field(default=(), alias="in")
    """The values that meet the condition."""
    not_in: tuple[Scalar, ...] = ()
    """The values that do not; any other does."""

    @model_validator(mode="after")
    def _has_values(self) -> ColumnConditionConfig:
        if bool(self.in_) == bool(self.not_in):
            raise ValueError("a condition on a column needs values in 'in' or in 'not_in', and not both")
        return self


ConditionConfig: TypeAlias = Annotated[
    Annotated[RewardConditionConfig, Tag("reward[]")] | Annotated[ColumnConditionConfig, Tag("column[]")],
    Discriminator(
        lambda value: (
            "column[]"
            if isinstance(value, ColumnConditionConfig)
            or (isinstance(value, dict) and "column" in value and "reward" not in value)
            else "reward[]"
        )
    ),
]
"""A condition on another reward, or on a column."""


class AskConfig(ConfigModel):
    """A costly reward is asked only about the completions of a group whose answer can still change something."""

    policy: Literal["advantage", "order"] = "advantage"
    """What an answer must be able to change: ``advantage``, the sign of an advantage, which is a total less the mean of its
    group; ``order``, that or the order of two totals of the group."""
    confidence: Annotated[float, Field(strict=True, gt=0.5, le=1)] = 0.9
    """How sure each sign (or order) must be while answers are left open: the probability that they do not turn it. Far fewer
    than the others turn, since most signs are surer. 1 believes only the range that the reward declares."""
    tolerance: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] = 0.0
    """A change of sign or order up to this difference, in units of the total, does not matter."""
    budget: Finite | None = None
    """The most calls about a group: a whole number, or below 1 a share of its completions. Groups that are asked about in full
    do not count."""
    random_share: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.1
    """The share of the groups that are asked about in full, drawn by their texts: on them it is measured how far off
    expectations are. Until there are enough of them every row is asked about."""
    waves: Annotated[int, Field(strict=True, ge=1)] = 3
    """How many calls may follow one another for a batch, each about what the answers before have left open."""
    past: str | None = None
    """The ledger of an earlier run with the same rewards, or its folder, relative to this file: what was answered at its
    beginning is learnt before the first batch, so that calls are saved from the start."""

    @field_validator("budget")
    @classmethod
    def _a_budget_of_something(cls, budget: float | None) -> float | None:
        if budget is not None and (budget <= 0 or (budget > 1 and budget != int(budget))):
            raise ValueError(
                f"a whole number of calls a group, or a share of it below 1, not {budget:g}; a budget of nothing asks about "
                "nothing: leave the reward out, or leave 'budget' out"
            )
        return budget


class RewardConfig(ConfigModel):
    """One reward of a composition."""

    use: str | None = None
    """The plugin's name for it, ``package.module:attribute``, or ``./file.py:attribute`` relative to this file.
    Defaults to the name under which it stands."""
    weight: WeightConfig = 1.0
    """How much it matters, as a number or a schedule such as ``{schedule: linear, from: 0, to: 1, end: 1000}``. 0 only
    records it."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Its parameters, which `rlaif rewards show NAME` lists."""
    normalize: Annotated[ExtensionConfig, named("kind", ExtensionConfig)] = ExtensionConfig(kind="none")
    """``none``, ``minmax``, ``zscore``, ``fixed_zscore``, ``group_zscore``, ``group_center``, ``rank``, ``quantile``,
    or what a plugin offers by another name, with parameters; with each, ``winsorize`` and ``clip`` limit outliers."""
    on_failure: Annotated[FailureConfig, named("policy", FailureConfig)] = FailureConfig()
    """What happens when it fails."""
    timeout: Seconds | Literal["auto"] | None = "auto"
    """Seconds that one call may take; null for no limit. ``auto`` is 300, and no limit for a plain synchronous reward (one
    without a setup of its own, of which no ``execution`` and no cache is asked): it is called in the caller's thread."""
    setup_timeout: Seconds | None = 1800.0
    """Seconds that loading its models may take; null for no limit."""
    execution: ExecutionConfig = ExecutionConfig()
    """How it is called, such as in a process of its own, in chunks, with limits, retries, a budget."""
    fallback: str | None = None
    """The name under ``fallbacks`` of the reward that is asked on the rows where this one fails, in the same
    units."""
    cache: bool = True
    """False if the ledger is neither asked for its scores nor keeps them."""
    when: Annotated[tuple[ConditionConfig, ...], one_or_more(ConditionConfig)] = ()
    """It is asked only about rows of which this holds: ``{reward: format, min: 1}``, ``{column: domain, in: [math]}``, or a
    list of such conditions, all of which must hold. A reward of whose scores it depends is asked before."""
    otherwise: Finite | Literal["abstain"] | None = None
    """The score of a row that it is not asked about, in its own units, or ``abstain``: the weights of the others are scaled
    up there. To be stated where a condition looks at a reward; without it a row abstains."""
    ask: Annotated[AskConfig, named("policy", AskConfig)] | None = None
    """``ask: advantage`` asks it only about those completions of a group whose answer can still change the sign of an
    advantage, given what the other rewards said and what it said before. What it would have said of the others is imputed,
    and marked."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Dataset columns under other names. ``{reference: answer}`` shows it the column ``answer`` as ``reference``."""

    @field_validator("columns")
    @classmethod
    def _not_reserved(cls, columns: dict[str, str]) -> dict[str, str]:
        for name in columns:
            if name in RESERVED_COLUMNS:
                problem = (
                    "a reward receives something else under this reserved name (call the reward's argument otherwise)"
                )
                raise refused(problem, name)
        return columns

    @model_validator(mode="after")
    def _otherwise_goes_with_when(self) -> RewardConfig:
        if self.otherwise is not None and not self.when:
            raise refused("goes with 'when': without it every row is asked about", "otherwise")
        return self


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
        _check_bounds("a gate", self.min, self.max)
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
            raise refused(f"must be at least 'initial', {self.initial:g}", "ceiling")
        return self


class GroupConfig(ConfigModel):
    """Rewards that are aggregated among themselves before they enter the whole."""

    members: tuple[str, ...] = Field(min_length=1)
    """Names of rewards and of other groups; each is in one group at most."""
    weight: WeightConfig = 1.0
    """How much the group matters among its neighbours."""
    aggregate: Annotated[ExtensionConfig, named("kind", ExtensionConfig)] = ExtensionConfig(kind="weighted_sum")
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
    cache: bool | Literal["costly"] = True
    """Look scores up before a reward is asked, and keep those that it gives. ``costly`` keeps only those of installed
    plugins that load something or are async, such as models and judges."""
    record: bool = True
    """Record every composed batch, with its texts, for `rlaif what-if` and `rlaif cache export`."""


_Ledger = Annotated[
    Annotated[LedgerConfig, named("path", LedgerConfig), Tag("kept")] | Annotated[Literal[False], Tag("none")],
    Discriminator(lambda value: "none" if value is False else "kept"),
]


class CompositionConfig(ConfigModel):
    """A composition: rewards by name, gates, and how the weighted rewards become one number."""

    rewards: dict[
        str, Annotated[RewardConfig, BeforeValidator(_defaults_for_null, json_schema_input_type=RewardConfig | None)]
    ] = Field(min_length=1)
    """The rewards by name; ``toxicity:`` alone has every default."""
    fallbacks: dict[str, FallbackConfig] = Field(default_factory=dict)
    """Rewards that are called only on the rows where one that names them as its ``fallback`` has failed."""
    budget: BudgetConfig = BudgetConfig()
    """What all rewards may spend together."""
    ledger: _Ledger | None = None
    """Keeps scores, so that none is paid for twice, and records every batch. By default `rlaif score` and `rlaif train`
    keep one with what they write, with ``cache: costly``, and a composer in Python keeps none; false keeps none at all."""
    gates: tuple[GateConfig, ...] = ()
    """Conditions over the whole sum."""
    gate_order: Literal["independent", "lexicographic"] = "independent"
    """``lexicographic``: a row that fails an earlier gate ranks below every row that fails a later one only."""
    constraints: tuple[ConstraintConfig, ...] = ()
    """Bounds on means, held by multipliers that are learned."""
    alarm: AlarmConfig | None = None
    """Watches for reward hacking during training, and acts."""
    groups: dict[str, GroupConfig] = Field(default_factory=dict)
    """Rewards that are aggregated among themselves before they enter the whole, by name."""
    aggregate: Annotated[ExtensionConfig, named("kind", ExtensionConfig)] = ExtensionConfig(kind="weighted_sum")
    """How the weighted rewards become one number. ``weighted_sum``, ``minimum``, ``product``, or what a plugin offers
    by another name, with parameters."""
    block_plugins: tuple[str, ...] = ()
    """Installed plugins that this composition does without, by entry point or distribution. What they offer is not
    found, and their hooks are not called."""

    @model_validator(mode="after")
    def _consistent(self) -> CompositionConfig:
        for index, gate in enumerate(self.gates):
            if gate.reward not in self.rewards:
                problem = f"there is no reward {gate.reward!r}; there are {', '.join(self.rewards)}"
                raise refused(problem, "gates", index, "reward")
        if all(reward.weight == 0 for reward in self.rewards.values()):
            raise refused("every weight is 0, so nothing would be rewarded: give one of them a weight", "rewards")
        return self
