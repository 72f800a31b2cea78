from __future__ import annotations

import subprocess
import sys
import types
import warnings
from collections.abc import Generator
from dataclasses import replace

import pytest

from rlaif_sdk import Composer, ConfigError, PluginError, Registry, RewardBatch, RewardSpec, hookimpl
from rlaif_sdk.composer import builtin
from rlaif_sdk.exceptions import PluginConflictError, PluginLoadError, UnknownPluginError
from rlaif_sdk.testing import FixedReward

GOOD = """
    from rlaif_sdk import RewardSpec, hookimpl
    from rlaif_sdk.testing import FixedReward

    rlaif_api_version = 1

    @hookimpl
    def rlaif_rewards():
        return [RewardSpec(name="NAME", factory=lambda params: FixedReward(1.0), description="always 1")]
"""
HEADER = "from rlaif_sdk import RewardSpec, hookimpl\n    "

BROKEN = {
    "raises at import": ("    raise RuntimeError('no GPU')", "could not be imported: RuntimeError: no GPU"),
    "leaves at import": ("    raise SystemExit(3)", "could not be imported: SystemExit: 3"),
    "lacks a library": ("    import no_such_library", "could not be imported: ModuleNotFoundError"),
    "has a syntax error": ("    def (", "could not be imported: SyntaxError"),
    "misspells a hook": (
        f"    {HEADER}@hookimpl\n    def rlaif_reward():\n        return []",
        "does not fit the hooks.*rlaif_reward",
    ),
    "takes wrong arguments": (
        f"    {HEADER}@hookimpl\n    def rlaif_rewards(config):\n        return []",
        "does not fit the hooks.*config",
    ),
    "forgets the decorator": (
        "    def rlaif_rewards():\n        return []",
        "rlaif_rewards lacks the decorator @hookimpl",
    ),
    "gives no spec": (
        f"    {HEADER}@hookimpl\n    def rlaif_rewards():\n        return ['brevity']",
        "must give RewardSpec objects, not 'brevity'",
    ),
    "gives a bad name": (
        f"    {HEADER}@hookimpl\n    def rlaif_rewards():\n        return [RewardSpec(name='a:b', factory=int)]",
        "gives the name 'a:b'",
    ),
    "raises in its hook": (
        f"    {HEADER}@hookimpl\n    def rlaif_rewards():\n        raise KeyError('x')",
        "KeyError: 'x'",
    ),
    "leaves in its hook": (
        f"    {HEADER}@hookimpl\n    def rlaif_rewards():\n        raise SystemExit(0)",
        "SystemExit: 0",
    ),
    "has another API version": (
        "    rlaif_api_version = 99",
        "is written for plugin API version 99; this rlaif_sdk speaks version 1",
    ),
}


def discover() -> Registry:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Registry.discover()


def offering(name: str) -> object:
    class Plugin:
        @hookimpl
        def rlaif_rewards(self):
            return [RewardSpec(name=name, factory=lambda params: FixedReward(1.0))]

    return Plugin()


def test_an_installed_plugin_is_found_by_name(install) -> None:
    """An entry point is all that a distribution needs."""
    install("good-reward", GOOD.replace("NAME", "good"), version="2.1")
    registry = discover()
    assert registry.reward("good").description == "always 1"
    assert str(registry.source("rlaif_rewards", "good")) == "'good-reward' (good-reward 2.1)"
    composition = Composer.from_config({"rewards": {"good": {}}}, registry=registry).compose(
        RewardBatch(prompts=["a"], completions=["b"])
    )
    assert composition.to_list() == [1.0]


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_named_with_its_distribution_and_cause_and_left_out(install, fault: str) -> None:
    """One bad plugin takes neither the host nor its neighbours down."""
    source, cause = BROKEN[fault]
    install("bad-reward", source, version="0.3")
    install("good-reward", GOOD.replace("NAME", "good"))
    with pytest.warns(UserWarning, match=rf"(?s)plugin 'bad-reward' \(bad-reward 0.3\) .*{cause}.*it is left out"):
        registry = Registry.discover()
    assert "good" in registry.rewards
    (broken,) = [broken for broken in registry.broken if broken.source.plugin == "bad-reward"]
    assert isinstance(broken.error, PluginLoadError)


@pytest.mark.parametrize("fault", BROKEN)
def test_a_config_that_asks_for_a_broken_plugin_is_refused_with_the_cause(install, write, fault: str) -> None:
    """Left out when listing, an error when needed, with the config's line."""
    source, cause = BROKEN[fault]
    install("bad-reward", source)
    config = write("c.yaml", "rewards:\n  bad-reward:\n    weight: 1\n")
    with pytest.raises(PluginLoadError, match=rf"(?s)c.yaml:2: rewards.bad-reward: plugin 'bad-reward'.*{cause}"):
        Composer.from_config(config, registry=discover())


def test_an_entry_point_without_its_attribute_is_broken(install) -> None:
    """A renamed object in a new release is said, not passed over."""
    install("bad-reward", "    x = 1", target="bad_reward_module:plugin")
    assert "has no attribute 'plugin'" in str(discover().broken[-1].error)


def test_an_unknown_name_suggests_the_nearest_and_mentions_broken_plugins(install) -> None:
    """The reward may be missing because its plugin is broken."""
    install("good-reward", GOOD.replace("NAME", "toxicness"))
    install("bad-reward", "    raise RuntimeError('no GPU')")
    with pytest.raises(
        UnknownPluginError, match=r"'toxicnes'; plugin 'bad-reward'.*no GPU.*did you mean 'toxicness'\?"
    ):
        discover().reward("toxicnes")


def test_two_plugins_of_one_name_are_both_refused(install) -> None:
    """Which of them would win depends on the order of installation; so neither does."""
    install("first-reward", GOOD.replace("NAME", "same"))
    install("second-reward", GOOD.replace("NAME", "same"))
    registry = discover()
    assert "same" not in registry.rewards
    assert sorted(source.plugin for source in registry.conflicts["same"]) == ["first-reward", "second-reward"]
    with pytest.raises(PluginConflictError, match=r"'same' is offered by 'first-reward'.* and 'second-reward'"):
        registry.reward("same")


def test_plugins_can_be_registered_without_packaging(registry: Registry) -> None:
    """A test or a notebook makes a registry of its own."""
    registry.register(offering("mine"), name="here")
    assert "mine" in registry.rewards
    assert "here" in [source.plugin for source in registry]


def test_registering_a_name_twice_is_refused_and_keeps_the_first(registry: Registry) -> None:
    """The first plugin goes on working."""
    seen = []

    class Observer:
        @hookimpl
        def rlaif_composed(self, composition):
            seen.append(composition)

    registry.register(Observer(), name="here")
    with pytest.raises(PluginConflictError, match="'here' is registered already"):
        registry.register(offering("other"), name="here")
    registry.observe("composition")  # type: ignore[arg-type]
    assert seen == ["composition"]
    assert "other" not in registry.rewards


def test_a_refused_plugin_leaves_nothing_behind(registry: Registry) -> None:
    """Its valid offers go with it."""

    class Half:
        @hookimpl
        def rlaif_rewards(self):
            return [RewardSpec(name="fine", factory=FixedReward), "not fine"]

    with pytest.raises(PluginLoadError):
        registry.register(Half(), name="half")
    assert "fine" not in registry.rewards
    assert "half" not in [source.plugin for source in registry]
    registry.register(offering("fine"), name="half")
    assert "fine" in registry.rewards


def test_a_failing_observer_is_warned_of_by_name_and_changes_nothing(registry: Registry) -> None:
    """An observer must not end a run, and the next one still sees the composition."""
    seen = []

    class Failing:
        @hookimpl
        def rlaif_composed(self, composition):
            raise RuntimeError("disk full")

    class Seeing:
        @hookimpl
        def rlaif_composed(self):
            seen.append(1)

    registry.register(Seeing(), name="seeing")
    registry.register(Failing(), name="failing")
    composer = Composer.from_config({"rewards": {"a": {"use": "fixed"}}}, registry=_with_fixed(registry))
    with pytest.warns(UserWarning, match="plugin 'failing': rlaif_composed failed: RuntimeError: disk full"):
        composition = composer.compose(RewardBatch(prompts=["a"], completions=["b"]))
    assert composition.to_list() == [1.0]
    assert seen == [1]


def _with_fixed(registry: Registry) -> Registry:
    registry.register(offering("fixed"), name="fixed")
    return registry


def test_a_module_can_be_registered_and_is_named_after_itself() -> None:
    """Its module name is what messages say."""
    module = types.ModuleType("my_rewards")
    module.rlaif_api_version = 7  # type: ignore[attr-defined]
    with pytest.raises(PluginError, match="plugin 'my_rewards' is written for plugin API version 7"):
        Registry().register(module)


def test_listing_installed_plugins_loads_no_model_library() -> None:
    """`rlaif rewards list` answers at once."""
    code = (
        "import sys, warnings; warnings.simplefilter('ignore'); from rlaif_sdk import Registry; "
        "Registry.default().rewards; print(sorted({'torch', 'transformers', 'onnxruntime', 'trl'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Offer:
    """A plugin object that offers rewards of the given names."""

    def __init__(self, *names: str) -> None:
        self.names = names

    @hookimpl
    def rlaif_rewards(self) -> list[RewardSpec]:
        return [RewardSpec(name=name, factory=lambda _: FixedReward(1.0), description=name) for name in self.names]


class Described:
    """A plugin that wraps others' offers: each description says that it was seen."""

    @hookimpl(wrapper=True)
    def rlaif_rewards(self) -> Generator[None, list[list[RewardSpec]], list[list[RewardSpec]]]:
        answers = yield
        return [[replace(spec, description=f"seen: {spec.description}") for spec in answer] for answer in answers]


@pytest.mark.parametrize("order", [("wrapper first"), ("wrapper last")])
def test_a_hook_wrapper_runs_around_what_other_plugins_offer(order: str) -> None:
    """It may change offers, whenever it is registered, and each keeps the plugin that it comes from."""
    registry = Registry()
    plugins = {"a": Offer("one", "two"), "b": Offer("three")}
    if order == "wrapper first":
        registry.register(Described(), name="wrapper")
    for name, plugin in plugins.items():
        registry.register(plugin, name=name)
    if order == "wrapper last":
        registry.register(Described(), name="wrapper")
    assert {name: spec.description for name, spec in registry.rewards.items()} == {
        "one": "seen: one",
        "two": "seen: two",
        "three": "seen: three",
    }
    assert registry.source("rlaif_rewards", "three").plugin == "b"


def test_a_wrapper_around_observers_sees_each_composition() -> None:
    """`rlaif_composed` may be wrapped like any hook."""
    seen: list[str] = []

    class Watcher:
        @hookimpl
        def rlaif_composed(self, composition: object) -> None:
            seen.append("observer")

    class Around:
        @hookimpl(wrapper=True)
        def rlaif_composed(self) -> Generator[None, object, object]:
            seen.append("before")
            result = yield
            seen.append("after")
            return result

    registry = Registry()
    registry.register(Around(), name="around")
    registry.register(Watcher(), name="watcher")
    registry.observe(object())  # type: ignore[arg-type]
    assert seen == ["before", "observer", "after"]


def test_a_wrapper_that_breaks_an_offer_is_refused_by_name_and_changes_nothing() -> None:
    """A plugin that makes others' offers unusable is left out, and theirs stay."""

    class Breaks:
        @hookimpl(wrapper=True)
        def rlaif_rewards(self) -> Generator[None, object, list[list[str]]]:
            yield
            return [["no spec"]]

    registry = Registry()
    registry.register(Offer("one"), name="a")
    with pytest.raises(PluginLoadError, match=r"plugin 'breaks' .*must give RewardSpec objects"):
        registry.register(Breaks(), name="breaks")
    assert list(registry.rewards) == ["one"]
    assert [source.plugin for source in registry] == ["a"]


def test_only_named_distributions_are_loaded(install, monkeypatch: pytest.MonkeyPatch) -> None:
    """`RLAIF_LOAD_PLUGINS` keeps all other plugins out, the SDK's own excepted."""
    install("rlaif-first", GOOD.replace("NAME", "first"))
    install("rlaif-second", GOOD.replace("NAME", "second"))
    monkeypatch.setenv("RLAIF_LOAD_PLUGINS", "rlaif-second")
    registry = Registry.discover()
    assert "second" in registry.rewards
    assert "first" not in registry.rewards
    assert registry.normalizer("zscore")
    monkeypatch.setenv("RLAIF_LOAD_PLUGINS", "")
    assert "second" not in Registry.discover().rewards
    monkeypatch.setenv("RLAIF_LOAD_PLUGINS", "rlaif-third")
    with pytest.raises(UnknownPluginError, match="RLAIF_LOAD_PLUGINS names 'rlaif-third'"):
        Registry.discover()


def test_a_composition_blocks_plugins_by_name(write) -> None:
    """`block_plugins:` hides what they offer and keeps their hooks from being called; an unknown name is refused."""
    registry = Registry()
    registry.register(builtin, name="builtin")
    registry.register(Offer("one"), name="a")
    registry.register(Offer("two"), name="b")
    batch = RewardBatch(prompts=["p"], completions=["c"])
    with Composer.from_config({"rewards": {"one": {}}, "block_plugins": ["b"]}, registry=registry) as composer:
        assert composer.compose(batch).to_list() == [1.0]
    with pytest.raises(UnknownPluginError, match="'two'"):
        Composer.from_config({"rewards": {"two": {}}, "block_plugins": ["b"]}, registry=registry)
    file = write("rewards.yaml", "rewards: {one: {}}\nblock_plugins: [c]\n")
    with pytest.raises(ConfigError, match=r"rewards.yaml:2: block_plugins: no plugin is called 'c'"):
        Composer.from_config(file, registry=registry)


def test_what_each_plugin_offers_is_said_by_kind(registry: Registry) -> None:
    """`rlaif doctor` lists every kind of thing, not only rewards."""

    class Offers:
        @hookimpl
        def rlaif_rewards(self):
            return [RewardSpec(name="short", factory=lambda _: FixedReward([1.0]))]

        @hookimpl
        def rlaif_aggregators(self):
            return [replace(registry.aggregator("minimum"), name=name) for name in ("worst", "least")]

    registry.register(Offers(), name="two-kinds")
    (source,) = (source for source in registry if source.plugin == "two-kinds")
    assert registry.offered_by(source) == {"rewards": ["short"], "aggregators": ["least", "worst"]}
