"""Warnings of weights whose sign turns a reward round, which a cost's own declaration does already."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.weights import weight_bounds


def warn_of_turned_costs(components: Mapping[str, Component]) -> None:
    """Warn of a cost with a negative weight: turned twice, what is bad about a completion would be rewarded."""
    for name, component in components.items():
        if not component.reward.higher_is_better and weight_bounds(component.weight)[0] < 0:
            warnings.warn(
                f"rewards.{name}.weight is or becomes negative, and {name!r} is a cost (higher_is_better is False) whose "
                "sign the composer turns by itself: turned twice, high scores are rewarded; give it a positive weight",
                stacklevel=3,
            )


def warn_of_turned_rewards(components: Mapping[str, Component]) -> None:
    """Warn of a reward with a negative weight in a config, where a minus is easily meant for something else."""
    for name, component in components.items():
        if component.reward.higher_is_better and weight_bounds(component.weight)[0] < 0:
            warnings.warn(
                f"rewards.{name}.weight is or becomes negative: high scores of {name!r} lower the total; a reward that "
                "measures something bad declares higher_is_better = False, and then takes a positive weight",
                stacklevel=4,
            )
