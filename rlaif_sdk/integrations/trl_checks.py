"""What a composed reward asks of TRL's trainers, checked before it matters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlaif_sdk.composer.aggregators import WeightedSum
from rlaif_sdk.composer.weights import Schedule
from rlaif_sdk.exceptions import BatchError, ConfigError
from rlaif_sdk.types import RESERVED_COLUMNS

if TYPE_CHECKING:
    from rlaif_sdk.composer.combiner import BatchComposer

RESERVED = RESERVED_COLUMNS | {"environments"}
"""Columns that TRL passes to reward functions under these names would be replaced or lost, or end the run."""


def check_columns(*datasets: Any) -> None:
    """Refuse columns of reserved names; each is a dataset, a mapping of name to one, or None.

    Raises:
        BatchError: There is such a column.
    """
    for dataset in datasets:
        for part in dataset.values() if isinstance(dataset, Mapping) else [dataset]:
            for name in sorted(RESERVED.intersection(getattr(part, "column_names", None) or ())):
                raise BatchError(f"the column {name!r} has a reserved name", hint="rename the column in the dataset")


def check_functions(trainer: Any, weights: Mapping[str, float] | None, *, composers: int) -> None:
    """Refuse a trainer's reward functions and how it adds them up.

    Args:
        trainer: The trainer.
        weights: The weight of each function by name, if there is one a reward.
        composers: How many composers it has.

    Raises:
        ConfigError: Two functions have one name, there are several composers, or the rewards are separate and are not
            all there, with their weights, normalised before they are summed.
    """
    names = trainer.reward_func_names
    if composers > 1:
        raise ConfigError("the trainer has two composers", key="reward_funcs", hint="put all rewards into one")
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"two reward functions are named {name!r}", key="reward_funcs", hint="TRL mixes their logs"
            )
    if weights is None:
        return
    if getattr(trainer, "multi_objective_aggregation", None) != "normalize_then_sum":
        raise ConfigError(
            "separate rewards must be normalised before they are summed",
            key="multi_objective_aggregation",
            hint="set GRPOConfig(multi_objective_aggregation='normalize_then_sum'), or use for_trl() as one function",
        )
    given = dict(zip(names, trainer.reward_weights.tolist(), strict=True))
    for name, weight in weights.items():
        if name not in given:
            raise ConfigError(f"the reward {name!r} is left out", key="reward_funcs", hint="pass all functions")
        if not math.isclose(given[name], weight, rel_tol=1e-6):
            raise ConfigError(
                f"{name!r} has the weight {given[name]:g} in the trainer and {weight:g} in the composition",
                key="reward_weights",
                hint="pass the weights that for_trl(separate=True) returns",
            )


def generations(rows: int, trainer: Any, *, training: bool) -> int:
    """How many completions a prompt has.

    Raises:
        ConfigError: The ``rows`` of this process are no multiple of it, so that the completions to one prompt are
            scored on two processes.
    """
    size: int = trainer.num_generations if training else trainer.num_generations_eval
    if rows % size:
        raise ConfigError(
            f"each process scores {rows} completions at a time, and a prompt has {size}: some prompt's are torn apart",
            key="num_generations" if training else "num_generations_eval",
            hint="make per_device_train_batch_size * steps_per_generation a multiple of it"
            if training
            else "make per_device_eval_batch_size a multiple of it",
        )
    return size


def gdpo_weights(composer: BatchComposer) -> dict[str, float]:
    """The weight of each reward that has one, of a composition that can be taken apart into its rewards.

    Raises:
        ConfigError: Something in it holds over the total alone.
    """
    combiner = composer.combiner
    weights, scheduled = {}, []
    for name, weight in composer.weights.items():
        if isinstance(weight, Schedule):
            scheduled.append(name)
        elif weight != 0:
            weights[name] = float(weight)
    for key, found, reason in (
        ("gates", combiner.gates, "gates hold over the total"),
        ("constraints", combiner.multipliers, "constraints are taken off the total"),
        ("groups", combiner.groups, "groups are aggregated before they are weighed"),
        ("aggregate", type(combiner.aggregator) is not WeightedSum, "TRL adds the rewards up, weighted"),
        ("weights", scheduled, f"TRL's weights are constant, and {', '.join(scheduled)} has a schedule"),
    ):
        if found:
            raise ConfigError(f"{reason}, so rewards cannot be separate", key=key, hint="use for_trl() as one function")
    return weights
