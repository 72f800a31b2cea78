"""The plugin manager: entry points loaded one by one, each failure named and kept apart from the rest."""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from rlaif_sdk import hookspecs
from rlaif_sdk.exceptions import PluginConflictError, PluginError, PluginLoadError, RlaifError, UnknownPluginError
from rlaif_sdk.rewards import (
    PLUGIN_API_VERSION,
    AggregatorSpec,
    JudgeBackendSpec,
    NormalizerSpec,
    RewardSpec,
    Spec,
)

if TYPE_CHECKING:
    from rlaif_sdk.composer.composition import Composition

SpecT = TypeVar("SpecT", bound=Spec)

_KINDS: Mapping[str, type[Spec]] = {
    "rlaif_rewards": RewardSpec,
    "rlaif_normalizers": NormalizerSpec,
    "rlaif_aggregators": AggregatorSpec,
    "rlaif_judge_backends": JudgeBackendSpec,
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a plugin comes from.

    Attributes:
        plugin: The entry point's name, or the name given to `Registry.register`.
        distribution: The distribution's name and version, such as ``rlaif-toxicity 0.1.0``; empty if none.
    """

    plugin: str
    distribution: str = ""

    def __str__(self) -> str:
        return f"{self.plugin!r} ({self.distribution})" if self.distribution else repr(self.plugin)


@dataclass(frozen=True, slots=True)
class BrokenPlugin:
    """A plugin that is installed and cannot be used."""

    source: Source
    error: PluginError


class Registry:
    """The plugins in use, and what they offer by name.

    A registry is an ordinary object: `Registry.default` finds the installed plugins once a process, a test makes its
    own and registers what it needs.
    """

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._offers: dict[str, dict[str, list[tuple[Source, Spec]]]] = {hook: {} for hook in _KINDS}
        self._sources: dict[str, Source] = {}
        self.broken: list[BrokenPlugin] = []

    @classmethod
    def discover(cls) -> Registry:
        """A new registry of every installed plugin (entry points in the group ``rlaif_sdk``).

        A plugin that cannot be used is put in `broken`, with a warning, and does not affect the others.
        """
        registry = cls()
        for entry_point in importlib.metadata.entry_points(group=hookspecs.PROJECT):
            dist = entry_point.dist
            source = Source(entry_point.name, f"{dist.name} {dist.version}" if dist else "")
            try:
                try:
                    plugin = entry_point.load()
                except (Exception, SystemExit) as cause:
                    raise _load_error(source, f"could not be imported: {_describe(cause)}") from cause
                registry._admit(plugin, source)
            except PluginError as error:
                registry.broken.append(BrokenPlugin(source, error))
                warnings.warn(f"{error}; it is left out", stacklevel=2)
        return registry

    @classmethod
    def default(cls) -> Registry:
        """The installed plugins, discovered once a process."""
        return _default_registry()

    def register(self, plugin: object, name: str | None = None) -> None:
        """Add a plugin that is not installed: a module, or any object with hook implementations.

        Raises:
            PluginLoadError: It does not fit the hook specifications or the API version.
        """
        default = plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__name__
        self._admit(plugin, Source(name or default))

    def _admit(self, plugin: object, source: Source) -> None:
        version = getattr(plugin, "rlaif_api_version", PLUGIN_API_VERSION)
        if version != PLUGIN_API_VERSION:
            raise _load_error(
                source,
                f"is written for plugin API version {version!r}; this rlaif_sdk speaks version {PLUGIN_API_VERSION}",
                hint="install a release of the plugin that matches",
            )
        key = str(source)
        if self._manager.has_plugin(key):
            raise PluginConflictError(f"a plugin {source} is registered already")
        try:
            self._check_marks(plugin)
            self._manager.register(plugin, name=key)
            self._manager.check_pending()
            offered = {hook: self._collect(hook, kind, key) for hook, kind in _KINDS.items()}
        except (Exception, SystemExit) as cause:
            if self._manager.has_plugin(key):
                self._manager.unregister(name=key)
            if isinstance(cause, pluggy.PluginValidationError):
                raise _load_error(source, f"does not fit the hooks: {cause}") from cause
            raise _load_error(source, _describe(cause)) from cause
        self._sources[key] = source
        for hook, specs in offered.items():
            for spec in specs:
                self._offers[hook].setdefault(spec.name, []).append((source, spec))

    def _check_marks(self, plugin: object) -> None:
        """Refuse a hook without its decorator: pluggy would pass over it in silence."""
        for hook in (*_KINDS, "rlaif_composed"):
            if callable(getattr(plugin, hook, None)) and not self._manager.parse_hookimpl_opts(plugin, hook):
                raise TypeError(f"{hook} lacks the decorator @hookimpl")

    def _collect(self, hook: str, kind: type[SpecT], key: str) -> list[SpecT]:
        others = [plugin for name, plugin in self._manager.list_name_plugin() if name != key and plugin is not None]
        answers = self._manager.subset_hook_caller(hook, others)()
        specs = [spec for answer in answers for spec in answer]
        for spec in specs:
            if not isinstance(spec, kind):
                raise TypeError(f"{hook} must give {kind.__name__} objects, not {spec!r}")
            if not spec.name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"{hook} gives the name {spec.name!r}; use letters, digits, '_' and '-'")
        return specs

    @property
    def rewards(self) -> Mapping[str, RewardSpec]:
        """Every reward that can be asked for by name; names offered twice are left out."""
        return self._unique("rlaif_rewards")

    @property
    def conflicts(self) -> Mapping[str, tuple[Source, ...]]:
        """Names of rewards offered more than once, and by whom."""
        offers = self._offers["rlaif_rewards"].items()
        return {name: tuple(source for source, _ in found) for name, found in offers if len(found) > 1}

    def reward(self, name: str) -> RewardSpec:
        """The reward of that name. See `find` for the errors."""
        return self.find("rlaif_rewards", name, RewardSpec)

    def normalizer(self, name: str) -> NormalizerSpec:
        """The normalizer of that name. See `find` for the errors."""
        return self.find("rlaif_normalizers", name, NormalizerSpec)

    def aggregator(self, name: str) -> AggregatorSpec:
        """The aggregator of that name. See `find` for the errors."""
        return self.find("rlaif_aggregators", name, AggregatorSpec)

    def judge_backends(self) -> Mapping[str, JudgeBackendSpec]:
        """Every judge backend that can be asked for by name."""
        return self._unique("rlaif_judge_backends")

    def source(self, hook: str, name: str) -> Source:
        """The plugin that offers ``name`` through ``hook``.

        Raises:
            KeyError: No plugin does.
        """
        return self._offers[hook][name][0][0]

    def find(self, hook: str, name: str, kind: type[SpecT]) -> SpecT:
        """What is offered under a name through a hook.

        Raises:
            PluginConflictError: Two plugins offer it.
            PluginLoadError: The plugin of that name is installed and broken.
            UnknownPluginError: Nobody offers it; the message has what is there and what is broken.
        """
        found = self._offers[hook].get(name, [])
        what = kind.__name__.removesuffix("Spec").lower()
        if len(found) > 1:
            who = " and ".join(str(source) for source, _ in found)
            raise PluginConflictError(f"the {what} {name!r} is offered by {who}", hint="uninstall one of them")
        if found:
            spec = found[0][1]
            assert isinstance(spec, kind)
            return spec
        for broken in self.broken:
            if broken.source.plugin == name:
                raise broken.error
        known = sorted(self._offers[hook])
        close = difflib.get_close_matches(name, known, n=1)
        problems = "".join(f"; {broken.error}" for broken in self.broken)
        raise UnknownPluginError(
            f"no installed plugin offers the {what} {name!r}{problems}",
            hint=f"did you mean {close[0]!r}?" if close else f"installed: {', '.join(known) or 'none'}",
        )

    def _unique(self, hook: str) -> dict[str, Any]:
        return {name: found[0][1] for name, found in sorted(self._offers[hook].items()) if len(found) == 1}

    def observe(self, composition: Composition) -> None:
        """Hand a finished composition to every plugin that observes it; a failing observer is warned of by name."""
        for implementation in self._manager.hook.rlaif_composed.get_hookimpls():
            try:
                arguments = {"composition": composition}
                implementation.function(*(arguments[name] for name in implementation.argnames))
            except Exception as cause:  # noqa: BLE001 - an observer must not end a run
                warnings.warn(
                    f"plugin {implementation.plugin_name}: rlaif_composed failed: {_describe(cause)}", stacklevel=2
                )

    def __iter__(self) -> Iterator[Source]:
        return iter(self._sources.values())


def _load_error(source: Source, problem: str, hint: str | None = None) -> PluginLoadError:
    return PluginLoadError(f"plugin {source} {problem}", hint=hint)


def _describe(cause: BaseException) -> str:
    return str(cause) if isinstance(cause, RlaifError) else f"{type(cause).__name__}: {cause}"


@functools.cache
def _default_registry() -> Registry:
    return Registry.discover()
