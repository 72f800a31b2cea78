"""What a plugin offers by name, described without loading it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from rlaif_sdk.rewards.contract import Params

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

    Attributes:
        range: As `Reward.range`, where it does not depend on the parameters.
        columns: As `Reward.columns`, where they do not depend on the parameters.
        higher_is_better: As `Reward.higher_is_better`.
        example: An entry under ``rewards:`` in a config, as `rlaif rewards show` prints it.
    """

    range: tuple[float, float] | None = None
    columns: tuple[str, ...] = ()
    higher_is_better: bool = True
    example: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizerSpec(Spec):
    """Describes a normalizer: the factory returns a `rlaif_sdk.composer.normalizers.Normalizer`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregatorSpec(Spec):
    """Describes an aggregator: the factory returns a `rlaif_sdk.composer.aggregators.Aggregator`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeBackendSpec(Spec):
    """Describes a judge backend: the factory returns a `rlaif_sdk.judges.backends.JudgeBackend`."""
