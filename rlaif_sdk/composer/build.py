"""From a config to what a composer is made of, or to its arithmetic alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from rlaif_sdk.composer.aggregators import RewardGroup
from rlaif_sdk.composer.asking import Ask
from rlaif_sdk.composer.combiner import Combiner
from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.conditions import ColumnCondition, Condition, RewardCondition
from rlaif_sdk.composer.constraints import Constraint
from rlaif_sdk.composer.failures import FailurePolicy
from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.composer.ledger import Ledger
from rlaif_sdk.composer.normalizers import Limited, LimitParams, Normalizer
from rlaif_sdk.composer.stages import check_conditions
from rlaif_sdk.composer.weights import Cosine, Crossing, Curve, Linear, Piecewise, Schedule, Step, Weight
from rlaif_sdk.config import (
    AskConfig,
    ColumnConditionConfig,
    CompositionConfig,
    ExtensionConfig,
    FallbackConfig,
    PiecewiseConfig,
    RampConfig,
    RewardConditionConfig,
    RewardConfig,
    StepConfig,
)
from rlaif_sdk.config.documents import Document, Location, from_validation_error, load_document, validate
from rlaif_sdk.exceptions import LedgerError, UnknownPluginError
from rlaif_sdk.plugins import Registry
from rlaif_sdk.rewards import Reward
from rlaif_sdk.scoring.factory import Recipe, build_extension, build_reward, errors_placed, instantiate, resolve

ConfigSource: TypeAlias = str | Path | Mapping[str, Any] | CompositionConfig | Document
"""Where a composition's config comes from: a file, or something that holds it."""


def read_composition(source: ConfigSource) -> tuple[CompositionConfig, Document]:
    """The config of a composition, and the document that its errors point at.

    Raises:
        ConfigError: It is refused.
    """
    document = _document(source)
    return (source if isinstance(source, CompositionConfig) else validate(CompositionConfig, document)), document


def composer_arguments(
    config: CompositionConfig, document: Document, registry: Registry | None, *, read_only: bool = False
) -> dict[str, Any]:
    """What `rlaif_sdk.composer.Composer` is called with, for a config.

    Raises:
        ConfigError: A plugin's parameters are refused, or a ledger cannot be opened.
        PluginError: A plugin is unknown, broken, or in conflict with another.
    """
    registry = _plugins(registry, config, document)
    folder = document.folder
    components = {
        name: _component(name, reward, registry=registry, document=document, folder=folder)
        for name, reward in config.rewards.items()
    }
    fallbacks = {
        name: _fallback(name, fallback, registry=registry, document=document, folder=folder)
        for name, fallback in config.fallbacks.items()
    }
    return {
        "rewards": components,
        "fallbacks": fallbacks,
        "budget": config.budget,
        "ledger": _ledger(config, document, folder, read_only=read_only),
        "alarm": config.alarm,
        "observers": [registry.observe],
        **_combination(config, registry, document),
    }


def keeping_ledger(document: Document, file: Path) -> Document:
    """The document of a composition with a ledger of its run, unless it names one or says that there is none."""
    if not isinstance(document.data, Mapping) or document.data.get("ledger") is not None:
        return document
    return replace(document, data={**document.data, "ledger": {"path": str(file.absolute()), "cache": "costly"}})


def without_ledger(document: Document) -> Document:
    """The document of a composition that keeps no ledger."""
    return (
        replace(document, data={**document.data, "ledger": False}) if isinstance(document.data, Mapping) else document
    )


def build_combiner(
    source: ConfigSource, rewards: Mapping[str, Reward], *, registry: Registry | None = None
) -> tuple[Combiner, CompositionConfig]:
    """The arithmetic of a composition, over rewards that stand for those that it names, of which none is made.

    Args:
        source: The config.
        rewards: What stands for each reward, by name.
        registry: The normalizers and aggregators to choose from; the installed ones if None.

    Raises:
        ConfigError: Something in the config is refused, or it names a reward that is not in ``rewards``.
    """
    config, document = read_composition(source)
    registry = _plugins(registry, config, document)
    for name in config.rewards:
        if name not in rewards:
            known = ", ".join(rewards)
            raise document.error("has no recorded scores", ("rewards", name), f"recorded rewards: {known}")
    components = {
        name: Component(rewards[name], **_part(reward, registry, document, ("rewards", name)))
        for name, reward in config.rewards.items()
    }
    combination = _combination(config, registry, document)
    with errors_placed(document):
        check_conditions(components, combination["gates"], combination["constraints"])
        return Combiner(components, alarm=config.alarm, **combination), config


def _plugins(registry: Registry | None, config: CompositionConfig, document: Document) -> Registry:
    """The plugins to choose from, without those that the composition blocks."""
    try:
        return (registry or Registry.default()).without(config.block_plugins)
    except UnknownPluginError as error:
        raise document.error(error.message, ("block_plugins",), error.hint) from error


def _combination(config: CompositionConfig, registry: Registry, document: Document) -> dict[str, Any]:
    """How rewards are combined, as `Combiner` takes it."""
    return {
        "gates": [Gate(**gate.model_dump()) for gate in config.gates],
        "gate_order": config.gate_order,
        "aggregator": build_extension(registry.aggregator, config.aggregate, document, ("aggregate",)),
        "groups": {
            name: RewardGroup(
                group.members,
                _weight(group.weight),
                build_extension(registry.aggregator, group.aggregate, document, ("groups", name, "aggregate")),
            )
            for name, group in config.groups.items()
        },
        "constraints": [Constraint(**constraint.model_dump()) for constraint in config.constraints],
    }


def _part(config: RewardConfig, registry: Registry, document: Document, location: Location) -> dict[str, Any]:
    """How one reward takes part, as `Component` takes it."""
    return {
        "weight": _weight(config.weight),
        "normalizer": _normalizer(config.normalize, registry, document, (*location, "normalize")),
        "failure": FailurePolicy(**config.on_failure.model_dump()),
        "when": [_condition(condition) for condition in config.when],
        "otherwise": config.otherwise,
        "ask": _ask(config.ask, document) if config.ask else None,
    }


def _ask(config: AskConfig, document: Document) -> Ask:
    past = None if config.past is None else document.folder / config.past
    return Ask(**config.model_dump(exclude={"past"}), past=past)


def _condition(config: RewardConditionConfig | ColumnConditionConfig) -> Condition:
    kind = RewardCondition if isinstance(config, RewardConditionConfig) else ColumnCondition
    return kind(**config.model_dump())


def _ledger(config: CompositionConfig, document: Document, folder: Path, *, read_only: bool) -> Ledger | None:
    if not config.ledger or (read_only and not (folder / config.ledger.path).exists()):
        return None
    try:
        if read_only:
            return Ledger(folder / config.ledger.path, cache=config.ledger.cache, record=False, create=False)
        return Ledger(folder / config.ledger.path, cache=config.ledger.cache, record=config.ledger.record)
    except LedgerError as error:
        hint = "; ".join(filter(None, [error.hint, "'ledger: false' keeps none"]))
        raise document.error(error.message, ("ledger",), hint) from error


def _document(source: ConfigSource) -> Document:
    if isinstance(source, Document):
        return source
    if isinstance(source, (str, Path)):
        return load_document(source)
    if isinstance(source, Mapping):
        return Document(dict(source))
    return Document(source.model_dump())


def _component(name: str, config: RewardConfig, *, registry: Registry, document: Document, folder: Path) -> Component:
    location: Location = ("rewards", name)
    return Component(
        **_called(name, config, registry, document, folder, location),
        **_part(config, registry, document, location),
        fallback=config.fallback,
    )


def _fallback(name: str, config: FallbackConfig, *, registry: Registry, document: Document, folder: Path) -> Component:
    return Component(**_called(name, config, registry, document, folder, ("fallbacks", name)))


def _called(
    name: str,
    config: RewardConfig | FallbackConfig,
    registry: Registry,
    document: Document,
    folder: Path,
    location: Location,
) -> dict[str, Any]:
    """A reward and how it is called, as `Component` takes it."""
    use = config.use or name
    return {
        "reward": build_reward(use, config, registry=registry, document=document, folder=folder, at=location),
        "timeout": config.timeout,
        "setup_timeout": config.setup_timeout,
        "columns": config.columns,
        "params": config.params,
        "execution": config.execution,
        "recipe": Recipe(use, config.params, str(folder)),
        "cache": config.cache,
        "place": document.place(location),
    }


def _weight(config: float | RampConfig | PiecewiseConfig | StepConfig) -> Weight:
    curve: Curve
    match config:
        case RampConfig():
            ramp = Linear if config.schedule == "linear" else Cosine
            curve = ramp(start_value=config.from_, end_value=config.to, start=config.start, end=config.end)
        case PiecewiseConfig():
            curve = Piecewise(config.points)
        case StepConfig():
            curve = Step(config.from_, config.points)
        case _:
            return config
    trigger = Crossing(**config.trigger.model_dump()) if config.trigger else None
    return Schedule(curve, by=config.by, trigger=trigger)


def _normalizer(config: ExtensionConfig, registry: Registry, document: Document, location: Location) -> Normalizer:
    """The normalizer, within the limits that go with every one; where it has a ``clip`` of its own, that one counts."""
    spec = resolve(registry.normalizer, config.kind, document, location)
    own = spec.params.model_fields
    limits = {key: config.params[key] for key in LimitParams.model_fields if key in config.params and key not in own}
    params = {key: value for key, value in config.params.items() if key not in limits}
    normalizer: Normalizer = instantiate(spec, params, document, location)
    if not limits:
        return normalizer
    try:
        return Limited(normalizer, LimitParams.model_validate(limits))
    except ValidationError as error:
        raise from_validation_error(error, LimitParams, document, at=location) from None
