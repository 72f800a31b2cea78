"""From a config to a composer: finds each reward by name, path or file, and points at the line of what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.composer import Composer
from rlaif_sdk.composer.failures import FailurePolicy
from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.config import CompositionConfig, ExtensionConfig, RewardConfig
from rlaif_sdk.documents import Document, Location, from_validation_error, load_document, validate
from rlaif_sdk.exceptions import ConfigError, PluginError, RlaifError
from rlaif_sdk.plugins import Registry
from rlaif_sdk.references import is_reference, load_reference
from rlaif_sdk.rewards import FunctionReward, Reward, RewardSpec, Spec, as_reward, is_reward_class


def build_composer(
    source: str | Path | Mapping[str, Any] | CompositionConfig | Document, *, registry: Registry | None = None
) -> Composer:
    """Build a composer. See `Composer.from_config`."""
    document = _document(source)
    config = source if isinstance(source, CompositionConfig) else validate(CompositionConfig, document)
    registry = registry or Registry.default()
    folder = Path(document.file).parent if document.file else Path()
    components = {
        name: _component(name, reward, registry=registry, document=document, folder=folder)
        for name, reward in config.rewards.items()
    }
    try:
        return Composer(
            components,
            gates=[Gate(**gate.model_dump()) for gate in config.gates],
            aggregator=_extension(registry.aggregator, config.aggregate, document, ("aggregate",)),
            observers=[registry.observe],
        )
    except ConfigError as error:
        if error.file or not error.key:
            raise
        raise document.error(error.message, tuple(error.key.split(".")), error.hint) from error


def _document(source: str | Path | Mapping[str, Any] | CompositionConfig | Document) -> Document:
    if isinstance(source, Document):
        return source
    if isinstance(source, (str, Path)):
        return load_document(source)
    if isinstance(source, Mapping):
        return Document(dict(source))
    return Document(source.model_dump())


def _component(
    name: str, config: RewardConfig, *, registry: Registry, document: Document, folder: Path
) -> Component:
    location: Location = ("rewards", name)
    return Component(
        reward=_reward(name, config, registry=registry, document=document, folder=folder),
        weight=config.weight,
        normalizer=_extension(registry.normalizer, config.normalize, document, (*location, "normalize")),
        failure=FailurePolicy(**config.on_failure.model_dump()),
        timeout=config.timeout,
        setup_timeout=config.setup_timeout,
        columns=config.columns,
    )


def _reward(name: str, config: RewardConfig, *, registry: Registry, document: Document, folder: Path) -> Reward:
    use = config.use or name
    location: Location = ("rewards", name)
    at = (*location, "use") if config.use else location
    try:
        target = load_reference(use, folder) if is_reference(use) else registry.reward(use)
    except (ConfigError, PluginError) as error:
        raise _placed(error, document, at) from error
    params_at = (*location, "params")
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
        raise document.error(str(error), at) from error
    if isinstance(reward, FunctionReward):
        return as_reward(_built(reward.spec, config.params, document, params_at))
    if config.params:
        raise document.error(f"{use} is an object and takes no params", params_at, "name its class instead")
    return reward


def _extension(find: Any, config: ExtensionConfig, document: Document, location: Location) -> Any:
    try:
        spec = find(config.kind)
    except PluginError as error:
        raise _placed(error, document, location) from error
    return _built(spec, config.params, document, location)


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


def _placed(error: ConfigError | PluginError, document: Document, location: Location) -> ConfigError | PluginError:
    """The same error, with the place in the config that asked."""
    if isinstance(error, ConfigError):
        return document.error(error.message, location, error.hint)
    line = document.line(location)
    place = f"{document.file}:{line}: " if document.file and line else ""
    return type(error)(f"{place}{'.'.join(map(str, location))}: {error.message}", hint=error.hint)
