"""The plugin manager: entry points loaded one by one, each failure named and kept apart from the rest."""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from rlaif_sdk.exceptions import PluginConflictError, PluginError, PluginLoadError, RlaifError, UnknownPluginError
from rlaif_sdk.plugins import hookspecs
from rlaif_sdk.plugins.specs import (
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

LOAD_PLUGINS = "RLAIF_LOAD_PLUGINS"
"""The environment variable that names the distributions whose plugins are loaded, separated by commas; unset loads all."""

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

    Example:
        >>> from rlaif_sdk import Composer, Registry, RewardSpec, hookimpl, reward
        >>> @reward
        ... def brevity(completion_texts, *, limit: int = 4):
        ...     return [min(1.0, limit / max(1, len(text))) for text in completion_texts]
        >>> class Plugin:
        ...     @hookimpl
        ...     def rlaif_rewards(self):
        ...         return [RewardSpec.from_function(brevity)]
        >>> registry = Registry.discover()
        >>> registry.register(Plugin(), name="mine")
        >>> composer = Composer.from_config({"rewards": {"brevity": {"params": {"limit": 2}}}}, registry=registry)
        >>> composer.weights
        {'brevity': 1.0}
        >>> composer.close()

    A hook wrapper (``@hookimpl(wrapper=True)``) runs around each plugin's own answer to that hook, so that every offer
    keeps its source; one around ``rlaif_composed`` runs around each observer.
    """

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._offers: dict[str, dict[str, list[tuple[Source, Spec]]]] = {hook: {} for hook in _KINDS}
        self._sources: dict[str, Source] = {}
        self._observers: list[tuple[str, Callable[..., Any]]] = []
        self.broken: list[BrokenPlugin] = []

    @classmethod
    def discover(cls) -> Registry:
        """A new registry of the installed plugins (entry points in the group ``rlaif_sdk``).

        A plugin that cannot be used is put in `broken`, with a warning, and does not affect the others. Where the
        environment variable ``RLAIF_LOAD_PLUGINS`` is set, only the plugins of the distributions that it names are
        loaded, and the SDK's own: ``RLAIF_LOAD_PLUGINS=rlaif-toxicity,rlaif-judge``; empty loads no other.

        Raises:
            UnknownPluginError: That variable names a distribution that is not installed.
        """
        registry = cls()
        for entry_point in _to_load(importlib.metadata.entry_points(group=hookspecs.PROJECT)):
            dist = entry_point.dist
            source = Source(entry_point.name, f"{dist.name} {dist.version}" if dist else "")
            try:
                try:
                    plugin = entry_point.load()
                except (Exception, SystemExit) as cause:
                    problem = f"could not be imported: {_describe(cause)}"
                    raise _load_error(source, problem, hint="mend, upgrade or uninstall it") from cause
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
            self._sources[key] = source
            offers = self._offered(self._sources if self._has_wrapper(plugin) else [key])
        except (Exception, SystemExit) as cause:
            self._sources.pop(key, None)
            if self._manager.has_plugin(key):
                self._manager.unregister(name=key)
            if isinstance(cause, pluggy.PluginValidationError):
                raise _load_error(source, f"does not fit the hooks: {cause}") from cause
            raise _load_error(source, _describe(cause)) from cause
        self._offers = offers
        self._observers = self._callers("rlaif_composed")

    def _check_marks(self, plugin: object) -> None:
        """Refuse a hook without its decorator: pluggy would pass over it in silence."""
        for hook in (*_KINDS, "rlaif_composed"):
            if callable(getattr(plugin, hook, None)) and not self._manager.parse_hookimpl_opts(plugin, hook):
                raise TypeError(f"{hook} lacks the decorator @hookimpl")

    def _has_wrapper(self, plugin: object) -> bool:
        callers = self._manager.get_hookcallers(plugin) or ()
        return any(_wraps(each) for caller in callers for each in caller.get_hookimpls() if each.plugin is plugin)

    def _callers(self, hook: str) -> list[tuple[str, Callable[..., Any]]]:
        """For each plugin that implements a hook, what calls its implementation with every plugin's wrappers around it."""
        implementations = [each for each in getattr(self._manager.hook, hook).get_hookimpls() if not _wraps(each)]
        return [
            (
                each.plugin_name,
                self._manager.subset_hook_caller(
                    hook, [other.plugin for other in implementations if other is not each]
                ),
            )
            for each in implementations
        ]

    def _offered(self, keys: Collection[str]) -> dict[str, dict[str, list[tuple[Source, Spec]]]]:
        """What all plugins offer, where those of the given keys are asked anew."""
        offers: dict[str, dict[str, list[tuple[Source, Spec]]]] = {}
        for hook, kind in _KINDS.items():
            asked_anew = {self._sources[key] for key in keys}
            known = ((s, spec) for found in self._offers[hook].values() for s, spec in found if s not in asked_anew)
            new = (
                (self._sources[key], spec)
                for key, call in self._callers(hook)
                if key in keys
                for spec in _checked(hook, kind, call())
            )
            offers[hook] = {}
            for source, spec in (*known, *new):
                offers[hook].setdefault(spec.name, []).append((source, spec))
        return offers

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

    def offered_by(self, source: Source) -> dict[str, list[str]]:
        """The names that a plugin offers, by kind: ``{"normalizers": ["group_robust", "robust"]}``."""
        names = {
            _plural(hook): sorted(name for name, found in offers.items() if source in (owner for owner, _ in found))
            for hook, offers in self._offers.items()
        }
        return {kind: found for kind, found in names.items() if found}

    def find(self, hook: str, name: str, kind: type[SpecT]) -> SpecT:
        """What is offered under a name through a hook.

        Raises:
            PluginConflictError: Two plugins offer it.
            PluginLoadError: The plugin of that name is installed and broken.
            UnknownPluginError: Nobody offers it; the message has what is there and what is broken.
        """
        found = self._offers[hook].get(name, [])
        what = _plural(hook).removesuffix("s")
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
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        problems = "".join(f"; {broken.error}" for broken in self.broken)
        raise UnknownPluginError(
            f"no installed plugin offers the {what} {name!r}{problems}",
            hint=f"did you mean {close[0]!r}?" if close else f"installed: {', '.join(known) or 'none'}",
        )

    def _unique(self, hook: str) -> dict[str, Any]:
        return {name: found[0][1] for name, found in sorted(self._offers[hook].items()) if len(found) == 1}

    def without(self, names: Collection[str]) -> Registry:
        """The same plugins without some, for a composition that blocks them; a blocked name is offered by nobody.

        Args:
            names: Plugins by the name of their entry point or distribution.

        Raises:
            UnknownPluginError: There is no such plugin.
        """
        if not names:
            return self
        by_key = {key: {source.plugin, source.distribution.partition(" ")[0]} for key, source in self._sources.items()}
        known = set().union(*by_key.values()) - {""}
        if unknown := sorted(set(names) - known):
            raise UnknownPluginError(
                f"no plugin is called {', '.join(map(repr, unknown))}", hint=f"there are {', '.join(sorted(known))}"
            )
        registry = Registry()
        registry.broken = list(self.broken)
        for key, plugin in self._manager.list_name_plugin():
            if plugin is not None and not by_key[key] & set(names):
                registry._admit(plugin, self._sources[key])
        return registry

    def observe(self, composition: Composition) -> None:
        """Hand a finished composition to every plugin that observes it; a failing observer is warned of by name."""
        for plugin, call in self._observers:
            try:
                call(composition=composition)
            except Exception as cause:  # noqa: BLE001 - an observer must not end a run
                warnings.warn(f"plugin {plugin}: rlaif_composed failed: {_describe(cause)}", stacklevel=2)

    def __iter__(self) -> Iterator[Source]:
        return iter(self._sources.values())


def _plural(hook: str) -> str:
    """What a hook asks for: ``judge backends``."""
    return hook.removeprefix("rlaif_").replace("_", " ")


def _checked(hook: str, kind: type[SpecT], answers: Iterable[Iterable[Any]]) -> Iterator[SpecT]:
    """The specs that one plugin's hook gives, each of the right kind and with a name that a config can write."""
    for spec in (spec for answer in answers for spec in answer):
        if not isinstance(spec, kind):
            raise TypeError(f"{hook} must give {kind.__name__} objects, not {spec!r}")
        if not spec.name.replace("_", "").replace("-", "").isalnum():
            raise ValueError(f"{hook} gives the name {spec.name!r}; use letters, digits, '_' and '-'")
        yield spec


def _wraps(implementation: pluggy.HookImpl) -> bool:
    return implementation.wrapper or implementation.hookwrapper


def _to_load(installed: Iterable[importlib.metadata.EntryPoint]) -> list[importlib.metadata.EntryPoint]:
    """The entry points whose distributions the environment names, and the SDK's own; all where it names none."""
    named = os.environ.get(LOAD_PLUGINS)
    if named is None:
        return list(installed)
    wanted = {name.strip() for name in named.split(",") if name.strip()}
    by_distribution = [(each.dist.name if each.dist else "", each) for each in installed]
    known = {name for name, _ in by_distribution} - {""}
    if unknown := sorted(wanted - known):
        raise UnknownPluginError(
            f"{LOAD_PLUGINS} names {', '.join(map(repr, unknown))}, which no installed distribution with plugins is called",
            hint=f"there are {', '.join(sorted(known))}",
        )
    return [each for name, each in by_distribution if name in wanted | {hookspecs.DISTRIBUTION}]


def _load_error(source: Source, problem: str, hint: str | None = None) -> PluginLoadError:
    return PluginLoadError(f"plugin {source} {problem}", hint=hint)


def _describe(cause: BaseException) -> str:
    return str(cause) if isinstance(cause, RlaifError) else f"{type(cause).__name__}: {cause}"


@functools.cache
def _default_registry() -> Registry:
    return Registry.discover()
