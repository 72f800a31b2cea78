"""Builds what a config names: rewards, normalizers, aggregators; an error points at the line of what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from rlaif_sdk.config import ExtensionConfig, FallbackConfig, RewardConfig
from rlaif_sdk.config.documents import Document, Location, from_validation_error
from rlaif_sdk.exceptions import ConfigError, PluginError, RewardError, RlaifError
from rlaif_sdk.plugins import Registry, RewardSpec, Spec
from rlaif_sdk.plugins.references import IMPORT_LATE, is_imported, is_reference, load_reference
from rlaif_sdk.rewards import FunctionReward, Reward, as_reward, is_reward_class

SpecT = TypeVar("SpecT", bound=Spec)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a worker process makes a reward.

    Attributes:
        use: The name under which an installed plugin offers it, or a reference such as ``./file.py:attribute``.
        params: Its parameters, JSON values.
        folder: What a relative path is relative to.
    """

    use: str
    params: Mapping[str, Any] = field(default_factory=dict)
    folder: str = "."

    def message(self) -> bytes:
        """The request to make the reward."""
        return json.dumps({"make": {**asdict(self), "folder": str(Path(self.folder).resolve())}}).encode()


def make_reward(use: str, params: Mapping[str, Any], folder: Path) -> Reward:
    """Make one reward from its name or reference, as a worker process does.

    Raises:
        ConfigError: A reference or the parameters are refused.
        PluginError: No installed plugin offers it.
    """
    config = FallbackConfig(use=use, params=dict(params))
    return build_reward(use, config, registry=Registry.default(), document=Document({}), folder=folder, at=())


def build_reward(
    use: str,
    config: RewardConfig | FallbackConfig,
    *,
    registry: Registry,
    document: Document,
    folder: Path,
    at: Location,
) -> Reward:
    """Make a reward.

    Args:
        use: A name, or a reference to a module or file.
        config: Its parameters, and whether it says what to use.
        registry: The plugins to choose from.
        document: Where the config was read from.
        folder: What a file is relative to.
        at: Where the reward stands in the document.

    Raises:
        ConfigError: The reference or the parameters are refused.
        PluginError: No plugin offers it.
    """
    use_at, params_at = (*at, "use") if config.use else at, (*at, "params")
    try:
        if is_reference(use) and config.execution.isolation == "process" and not is_imported(use, folder):
            _try_import(use, folder, config.setup_timeout)
        target = load_reference(use, folder, limit=config.setup_timeout) if is_reference(use) else registry.reward(use)
    except (ConfigError, PluginError) as error:
        raise _placed(error, document, use_at) from error
    if isinstance(target, RewardSpec):
        return as_reward(instantiate(target, config.params, document, params_at))
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
        return as_reward(instantiate(RewardSpec.from_function(reward), config.params, document, params_at))
    if config.params:
        raise document.error(f"{use} is an object and takes no params", params_at, "name its class instead")
    return reward


def _try_import(reference: str, folder: Path, limit: float | None) -> None:
    """Import the code of an isolated reward in a worker process first, which may end there as it would end this one.

    What it raises is left to the import that follows.

    Raises:
        ConfigError: The process ended, or took longer than the limit.
    """
    from rlaif_sdk.scoring.processes import Worker

    worker, late = Worker(), threading.Event()

    def end() -> None:
        late.set()
        worker.kill()

    timer = threading.Timer(threading.TIMEOUT_MAX if limit is None else limit, end)
    timer.daemon = True
    timer.start()
    try:
        worker.ask(json.dumps({"import": {"reference": reference, "folder": str(folder.resolve())}}).encode())
    except RewardError as error:
        name = reference.rpartition(":")[0]
        if late.is_set():
            told = ConfigError(f"{name!r} was not imported within its limit of {limit:g} s", hint=IMPORT_LATE)
        else:
            told = ConfigError(
                f"{name!r} cannot be imported: {error.message}", hint="it must not end its process: raise an exception"
            )
        raise told from error
    except RlaifError:
        pass
    finally:
        timer.cancel()
        worker.end()


def build_extension(find: Any, config: ExtensionConfig, document: Document, location: Location) -> Any:
    """Make what a plugin offers under a config's kind. See `resolve` and `instantiate`."""
    return instantiate(resolve(find, config.kind, document, location), config.params, document, location)


def resolve(find: Callable[[str], SpecT], name: str, document: Document, location: Location) -> SpecT:
    """What a plugin offers under a name.

    Raises:
        PluginError: None offers it; the message has its place in the document.
    """
    try:
        return find(name)
    except PluginError as error:
        raise _placed(error, document, location) from error


def instantiate(spec: Spec, params: Mapping[str, Any], document: Document, location: Location) -> Any:
    """Make what a plugin describes.

    Raises:
        ConfigError: The parameters are refused, or it cannot be made of them; the message has their place.
    """
    try:
        checked = spec.params.model_validate(dict(params))
    except ValidationError as error:
        raise from_validation_error(error, spec.params, document, at=location) from None
    try:
        return spec.build(checked)
    except ConfigError as error:
        if error.file:  # another one, which the parameters name
            where = error.file if error.line is None else f"{error.file}:{error.line}"
            raise document.error(f"{where}: {error.message}", location, error.hint) from error
        key = error.key.removeprefix("params.").split(".") if error.key else ()
        raise document.error(error.message, (*location, *key), error.hint) from error
    except RlaifError:
        raise
    except Exception as error:
        raise document.error(f"{spec.name!r} cannot be made: {type(error).__name__}: {error}", location) from error


@contextmanager
def errors_placed(document: Document) -> Iterator[None]:
    """Give a refusal that names a key its place in the document."""
    try:
        yield
    except ConfigError as error:
        if error.file or not error.key:
            raise
        raise document.error(error.message, _location(error.key, document.data), error.hint) from error


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
    key = ".".join(map(str, location))
    return type(error)(": ".join(filter(None, (document.place(location), key, error.message))), hint=error.hint)
