"""From a config to a composer: finds each reward by name, path or file, and points at the line of what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pydantic import ValidationError

from rlaif_sdk.composer.combiner import Combiner
from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.composer import Composer
from rlaif_sdk.composer.constraints import Constraint
from rlaif_sdk.composer.execution import Recipe
from rlaif_sdk.composer.failures import FailurePolicy
from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.composer.ledger import Ledger
from rlaif_sdk.composer.nesting import Group
from rlaif_sdk.composer.normalize import Normalizer
from rlaif_sdk.composer.outliers import Limited, LimitParams
from rlaif_sdk.composer.signs import warn_of_turned_rewards
from rlaif_sdk.composer.weights import Cosine, Crossing, Curve, Linear, Piecewise, Schedule, Step, Weight
from rlaif_sdk.config import (
    CompositionConfig,
    ExtensionConfig,
    FallbackConfig,
    PiecewiseConfig,
    RampConfig,
    RewardConfig,
    StepConfig,
)
from rlaif_sdk.documents import Document, Location, from_validation_error, load_document, validate
from rlaif_sdk.exceptions import ConfigError, LedgerError, PluginError, RlaifError
from rlaif_sdk.plugins import Registry
from rlaif_sdk.references import is_reference, load_reference
from rlaif_sdk.rewards import FunctionReward, Reward, RewardSpec, Spec, as_reward, is_reward_class

SpecT = TypeVar("SpecT", bound=Spec)


ConfigSource: TypeAlias = str | Path | Mapping[str, Any] | CompositionConfig | Document
"""Where a composition's config comes from: a file, or something that holds it."""


def build_composer(source: ConfigSource, *, registry: Registry | None = None) -> Composer:
    """Build a composer. See `Composer.from_config`."""
    document = _document(source)
    config = source if isinstance(source, CompositionConfig) else validate(CompositionConfig, document)
    registry = registry or Registry.default()
    folder = Path(document.file).parent if document.file else Path()
    components = {
        name: _component(name, reward, registry=registry, document=document, folder=folder)
        for name, reward in config.rewards.items()
    }
    fallbacks = {
        name: _fallback(name, fallback, registry=registry, document=document, folder=folder)
        for name, fallback in config.fallbacks.items()
    }
    ledger = _ledger(config, document, folder)
    with _errors_placed(document):
        composer = Composer(
            components,
            fallbacks=fallbacks,
            budget=config.budget,
            ledger=ledger,
            observers=[registry.observe],
            **_combination(config, registry, document),
        )
    warn_of_turned_rewards(composer.components)
    return composer


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
    document = _document(source)
    config = source if isinstance(source, CompositionConfig) else validate(CompositionConfig, document)
    registry = registry or Registry.default()
    for name in config.rewards:
        if name not in rewards:
            known = ", ".join(rewards)
            raise document.error("has no recorded scores", ("rewards", name), f"recorded rewards: {known}")
    components = {
        name: Component(rewards[name], **_part(reward, registry, document, ("rewards", name)))
        for name, reward in config.rewards.items()
    }
    with _errors_placed(document):
        return Combiner(components, **_combination(config, registry, document)), config


def _combination(config: CompositionConfig, registry: Registry, document: Document) -> dict[str, Any]:
    """How rewards are combined, as `Combiner` takes it."""
    return {
        "gates": [Gate(**gate.model_dump()) for gate in config.gates],
        "gate_order": config.gate_order,
        "aggregator": _extension(registry.aggregator, config.aggregate, document, ("aggregate",)),
        "groups": {
            name: Group(
                group.members,
                _weight(group.weight),
                _extension(registry.aggregator, group.aggregate, document, ("groups", name, "aggregate")),
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
    }


def _ledger(config: CompositionConfig, document: Document, folder: Path) -> Ledger | None:
    if config.ledger is None:
        return None
    try:
        return Ledger(folder / config.ledger.path, cache=config.ledger.cache, record=config.ledger.record)
    except LedgerError as error:
        raise document.error(error.message, ("ledger",), error.hint) from error


@contextmanager
def _errors_placed(document: Document) -> Iterator[None]:
    """Give a refusal that names a key its place in the document."""
    try:
        yield
    except ConfigError as error:
        if error.file or not error.key:
            raise
        raise document.error(error.message, _location(error.key, document.data), error.hint) from error


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
        reward=_reward(config.use or name, config, registry=registry, document=document, folder=folder, at=location),
        **_part(config, registry, document, location),
        timeout=config.timeout,
        setup_timeout=config.setup_timeout,
        columns=config.columns,
        params=config.params,
        execution=config.execution,
        fallback=config.fallback,
        recipe=Recipe(config.use or name, config.params, str(folder)),
        cache=config.cache,
    )


def _fallback(name: str, config: FallbackConfig, *, registry: Registry, document: Document, folder: Path) -> Component:
    use = config.use or name
    return Component(
        reward=_reward(use, config, registry=registry, document=document, folder=folder, at=("fallbacks", name)),
        timeout=config.timeout,
        setup_timeout=config.setup_timeout,
        columns=config.columns,
        params=config.params,
        execution=config.execution,
        recipe=Recipe(use, config.params, str(folder)),
        cache=config.cache,
    )


def make_reward(use: str, params: Mapping[str, Any], folder: Path) -> Reward:
    """Make one reward from its name or reference, as a worker process does.

    Raises:
        ConfigError: A reference or the parameters are refused.
        PluginError: No installed plugin offers it.
    """
    config = FallbackConfig(use=use, params=dict(params))
    return _reward(use, config, registry=Registry.default(), document=Document({}), folder=folder, at=())


def _weight(config: float | RampConfig | PiecewiseConfig | StepConfig) -> Weight:
    curve: Curve
    match config:
        case RampConfig():
            ramp = Linear if config.schedule == "linear" else Cosine
            curve = ramp(before=config.from_, after=config.to, start=config.start, end=config.end)
        case PiecewiseConfig():
            curve = Piecewise(config.points)
        case StepConfig():
            curve = Step(config.from_, config.points)
        case _:
            return config
    after = Crossing(**config.after.model_dump()) if config.after else None
    return Schedule(curve, by=config.by, after=after)


def _normalizer(config: ExtensionConfig, registry: Registry, document: Document, location: Location) -> Normalizer:
    """The normalizer, within the limits that go with every one; where it has a ``clip`` of its own, that one counts."""
    spec = _found(registry.normalizer, config.kind, document, location)
    own = spec.params.model_fields
    limits = {key: config.params[key] for key in LimitParams.model_fields if key in config.params and key not in own}
    params = {key: value for key, value in config.params.items() if key not in limits}
    normalizer: Normalizer = _built(spec, params, document, location)
    if not limits:
        return normalizer
    try:
        return Limited(normalizer, LimitParams.model_validate(limits))
    except ValidationError as error:
        raise from_validation_error(error, LimitParams, document, at=location) from None


def _reward(
    use: str,
    config: RewardConfig | FallbackConfig,
    *,
    registry: Registry,
    document: Document,
    folder: Path,
    at: Location,
) -> Reward:
    use_at, params_at = (*at, "use") if config.use else at, (*at, "params")
    try:
        target = load_reference(use, folder) if is_reference(use) else registry.reward(use)
    except (ConfigError, PluginError) as error:
        raise _placed(error, document, use_at) from error
    if isinstance(target, RewardSpec):
        return as_reward(_built(target, config.params, document, params_at))
    if is_reward_class(target):
        try:
            return as_reward(target(**config.params))
        except TypeError as error:
            raise document.error(f"{use} cannot be made: {error}", params_at) from error
    try:
        reward = as_reward(target)
    except TypeError as error:
        raise document.error(str(error), use_at) from error
    if isinstance(reward, FunctionReward):
        return as_reward(_built(reward.spec, config.params, document, params_at))
    if config.params:
        raise document.error(f"{use} is an object and takes no params", params_at, "name its class instead")
    return reward


def _extension(find: Any, config: ExtensionConfig, document: Document, location: Location) -> Any:
    return _built(_found(find, config.kind, document, location), config.params, document, location)


def _found(find: Callable[[str], SpecT], name: str, document: Document, location: Location) -> SpecT:
    try:
        return find(name)
    except PluginError as error:
        raise _placed(error, document, location) from error


def _built(spec: Spec, params: Mapping[str, Any], document: Document, location: Location) -> Any:
    try:
        checked = spec.params.model_validate(dict(params))
    except ValidationError as error:
        raise from_validation_error(error, spec.params, document, at=location) from None
    try:
        return spec.build(checked)
    except ConfigError as error:
        raise document.error(error.message, location, error.hint) from error
    except RlaifError:
        raise
    except Exception as error:
        raise document.error(f"{spec.name!r} cannot be made: {type(error).__name__}: {error}", location) from error


def _location(key: str, data: Any) -> Location:
    """Where a dotted key stands in the data; names may contain dots, and places in lists are numbers."""
    parts = key.split(".")
    location: Location = ()
    while parts:
        for end in range(len(parts), 0, -1):
            name: str | int = ".".join(parts[:end])
            if isinstance(data, list) and end == 1 and parts[0].isdigit():
                name = int(parts[0])
            if (isinstance(data, Mapping) and name in data) or (isinstance(name, int) and name < len(data)):
                data, parts, location = data[name], parts[end:], (*location, name)
                break
        else:
            return (*location, *parts)
    return location


def _placed(error: ConfigError | PluginError, document: Document, location: Location) -> ConfigError | PluginError:
    """The same error, with the place in the config that asked."""
    if isinstance(error, ConfigError):
        return document.error(error.message, location, error.hint)
    line = document.line(location)
    place = f"{document.file}:{line}: " if document.file and line else ""
    return type(error)(f"{place}{'.'.join(map(str, location))}: {error.message}", hint=error.hint)
