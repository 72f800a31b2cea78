"""The pluggy hooks that a plugin may implement.

Hooks register descriptions; batches never pass through pluggy. A plugin is a module named by an entry point in the
group ``rlaif_sdk``; it implements any of the hooks below with `hookimpl`, and states the version of this API that it
was written for::

    from rlaif_sdk import Params, RewardSpec, hookimpl

    rlaif_api_version = 1

    @hookimpl
    def rlaif_rewards():
        return [RewardSpec(name="brevity", factory=make_brevity)]
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from rlaif_sdk.composer.composition import Composition
    from rlaif_sdk.plugins.specs import AggregatorSpec, JudgeBackendSpec, NormalizerSpec, RewardSpec

PROJECT = "rlaif_sdk"
"""pluggy's project name, which is also the entry-point group."""
DISTRIBUTION = "rlaif-sdk"
"""The distribution whose own plugins are always loaded."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def rlaif_rewards() -> Iterable[RewardSpec]:  # type: ignore[empty-body]
    """Offer rewards.

    Returns:
        One `RewardSpec` a reward. Called once, when plugins are discovered; import nothing heavy here.
    """


@hookspec
def rlaif_normalizers() -> Iterable[NormalizerSpec]:  # type: ignore[empty-body]
    """Offer normalizers, for ``normalize:`` in a config.

    Returns:
        One `NormalizerSpec` a normalizer.
    """


@hookspec
def rlaif_aggregators() -> Iterable[AggregatorSpec]:  # type: ignore[empty-body]
    """Offer aggregators, for ``aggregate:`` in a config.

    Returns:
        One `AggregatorSpec` an aggregator.
    """


@hookspec
def rlaif_judge_backends() -> Iterable[JudgeBackendSpec]:  # type: ignore[empty-body]
    """Offer judge backends, for ``backend:`` of a judge.

    Returns:
        One `JudgeBackendSpec` a backend.
    """


@hookspec
def rlaif_composed(composition: Composition) -> None:
    """Observe a finished composition, for logging or analysis.

    Called in the thread that composed, after the totals are known. The arrays must not be changed. An exception is
    reported as a warning naming the plugin, and changes nothing.

    Args:
        composition: The totals, and each reward's raw, normalised and weighted values, failures and times.
    """
