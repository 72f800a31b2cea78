"""The plugin system: the hooks, what a plugin offers through them, and the registry that finds it by name."""

from rlaif_sdk.plugins.hookspecs import hookimpl
from rlaif_sdk.plugins.registry import BrokenPlugin, Registry, Source
from rlaif_sdk.plugins.specs import (
    PLUGIN_API_VERSION,
    AggregatorSpec,
    JudgeBackendSpec,
    NormalizerSpec,
    RewardSpec,
    Spec,
)

__all__ = [
    "PLUGIN_API_VERSION",
    "AggregatorSpec",
    "BrokenPlugin",
    "JudgeBackendSpec",
    "NormalizerSpec",
    "Registry",
    "RewardSpec",
    "Source",
    "Spec",
    "hookimpl",
]
