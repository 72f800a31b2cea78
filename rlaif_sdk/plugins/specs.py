"""What a plugin offers by name, described without loading it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from rlaif_sdk.rewards import FunctionReward, Params, Scope

PLUGIN_API_VERSION = 1
"""The version of the plugin API that this SDK speaks; a plugin module states its own as ``rlaif_api_version``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Describes something that a plugin offers by name; building it may be slow, describing it is not.

    Attributes:
        name: What configs call it: letters, digits, ``_`` and ``-``.
        factory: Called with an instance of ``params``; imports heavy libraries inside, not at module level.
        params: The pydantic model of its parameters.
        description: One line.
    """

    name: str
    factory: Callable[[Any], Any]
    params: type[BaseModel] = Params
    description: str = ""

    def build(self, params: Mapping[str, Any] | BaseModel | None = None) -> Any:
        """Make the object from its parameters.

        Raises:
            pydantic.ValidationError: The parameters do not fit ``params``.
        """
        checked = params if isinstance(params, self.params) else self.params.model_validate(dict(params or {}))
        return self.factory(checked)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardSpec(Spec):
    """Describes a reward to the plugin manager, for listing without loading anything heavy.

    Example:
        >>> from rlaif_sdk import Params, RewardSpec
        >>> from rlaif_sdk.testing import FixedReward
        >>> class ConstantParams(Params):
        ...     value: float = 1.0
        >>> spec = RewardSpec(
        ...     name="constant",
        ...     description="Gives each row one score.",
        ...     params=ConstantParams,
        ...     factory=lambda params: FixedReward(params.value),
        ... )
        >>> spec.factory(ConstantParams(value=0.5)).name
        'fixed'

    Attributes:
        range: As `Reward.range`, where it does not depend on the parameters.
        columns: As `Reward.columns`, where they do not depend on the parameters.
        higher_is_better: As `Reward.higher_is_better`.
        ends: As `Reward.ends`, where they do not depend on the parameters.
        scope: As `Reward.scope`.
        example: An entry under ``rewards:`` in a config, as `rlaif rewards show` prints it.
    """

    range: tuple[float, float] | None = None
    columns: tuple[str, ...] = ()
    higher_is_better: bool = True
    ends: tuple[str, str] | None = None
    scope: Scope = "row"
    example: Mapping[str, Any] = field(default_factory=dict)

    @property
    def default_columns(self) -> tuple[str, ...]:
        """The columns that a table must have by the default parameters: where one is called ``column``, what it names."""
        named = self.params.model_fields.get("column")
        return self.columns or ((named.default,) if named is not None and isinstance(named.default, str) else ())

    @classmethod
    def from_function(cls, function: Callable[..., Any]) -> RewardSpec:
        """Describes a plain function, or one made with `reward`, so that a plugin can offer it.

        Example::

            @reward(range=(0, 1))
            def brevity(completions, *, limit: int = 60):
                return [min(1.0, limit / max(1, len(text))) for text in completions]

            @hookimpl
            def rlaif_rewards():
                return [RewardSpec.from_function(brevity)]
        """
        reward = function if isinstance(function, FunctionReward) else FunctionReward(function)
        return cls(
            name=reward.name,
            factory=lambda params: reward.configured(params.model_dump()),
            params=reward.params_model,
            description=(inspect.getdoc(reward.function) or "").partition("\n")[0],
            range=reward.range,
            columns=reward.columns,
            higher_is_better=reward.higher_is_better,
            ends=reward.ends,
            scope=reward.scope,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizerSpec(Spec):
    """Describes a normalizer: the factory returns a `rlaif_sdk.Normalizer`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregatorSpec(Spec):
    """Describes an aggregator: the factory returns a `rlaif_sdk.Aggregator`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeBackendSpec(Spec):
    """Describes a judge backend: the factory returns a `rlaif_sdk.JudgeBackend`."""
