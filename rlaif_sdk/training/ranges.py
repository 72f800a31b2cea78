"""What the settings of transformers' and TRL's trainers may be, where the trainers themselves stumble or say nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rlaif_sdk.exceptions import ConfigError

_ABOVE_0 = frozenset(
    {
        "eval_steps",
        "generation_batch_size",
        "gradient_accumulation_steps",
        "logging_steps",
        "max_completion_length",
        "max_length",
        "num_generations",
        "num_generations_eval",
        "num_iterations",
        "num_train_epochs",
        "per_device_eval_batch_size",
        "per_device_train_batch_size",
        "repetition_penalty",
        "save_steps",
        "steps_per_generation",
        "temperature",
        "top_p",
    }
)
_AT_LEAST_0 = frozenset(
    {
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "beta",
        "epsilon",
        "epsilon_high",
        "learning_rate",
        "max_grad_norm",
        "min_p",
        "warmup_steps",
        "weight_decay",
    }
)
_AT_MOST_1 = frozenset({"min_p", "top_p"})
_BELOW_1 = frozenset({"adam_beta1", "adam_beta2"})
_MAY_BE_INFINITE = frozenset({"max_grad_norm"})
_STEPS_OF = {
    "logging_steps": ("logging_strategy", "steps"),
    "save_steps": ("save_strategy", "no"),
    "eval_steps": ("eval_strategy", "no"),
}
"""The strategy under which alone each interval holds, and what it is in a run whose config says nothing of it."""


def check_ranges(settings: Mapping[str, Any]) -> None:
    """Refuse settings of which training would end in another's error, or do what nobody means.

    Args:
        settings: By name; names that are not known here, values that are no numbers, and those of which another setting
            makes no use (``logging_steps`` under ``logging_strategy: "no"``) are left alone.

    Raises:
        ConfigError: A value is out of its range; ``key`` is its name.
    """
    for name, value in settings.items():
        if isinstance(value, int | float) and _holds(name, settings) and (range_ := _missed(name, value)):
            raise ConfigError(f"{name} must be {range_}, not {value}", key=name)
    if (steps := settings.get("max_steps", -1)) < 1 and steps != -1:
        raise ConfigError(
            f"max_steps must be above 0, not {steps}", key="max_steps", hint="without it num_train_epochs holds"
        )
    clip = settings.get("reward_clip_range")
    if clip is not None and clip[0] >= clip[1]:
        raise ConfigError(
            f"reward_clip_range goes from {clip[0]} up to {clip[1]}",
            key="reward_clip_range",
            hint="the lower one first",
        )


def _holds(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether training makes use of a setting, given the others."""
    if name in _STEPS_OF:
        strategy, default = _STEPS_OF[name]
        return bool(settings.get(strategy, default) == "steps")
    return name != "num_train_epochs" or settings.get("max_steps", -1) == -1


def _missed(name: str, value: float) -> str | None:
    """The range that a number is not in."""
    if name in _MAY_BE_INFINITE and math.isnan(value):
        return "a number"
    if name in (_ABOVE_0 | _AT_LEAST_0) - _MAY_BE_INFINITE and not math.isfinite(value):
        return "a finite number"
    if name in _ABOVE_0 and value <= 0:
        return "above 0"
    if name in _AT_LEAST_0 and value < 0:
        return "at least 0"
    if name in _AT_MOST_1 and value > 1:
        return "at most 1"
    return "below 1" if name in _BELOW_1 and value >= 1 else None
