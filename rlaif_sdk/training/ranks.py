"""A run from a config under a launcher such as ``accelerate launch``: the first process reports and writes for all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rlaif_sdk.exceptions import ConfigError, TrainingError

T = TypeVar("T")

_SHARDED = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}
_WHOLE = "a run from a config keeps the whole model in each process"
_BY_SCRIPT = "make the trainer in a script and launch that; see docs/howto/train-on-several-gpus.md"


def first_process() -> bool:
    """Whether this is the process that reports and writes; True without a launcher."""
    return int(os.environ.get("RANK", "0")) == 0


def on_one_machine() -> bool:
    """Whether all processes of the run are on this machine, so that they can share a file that is locked."""
    processes = os.environ.get("WORLD_SIZE", "1")
    return os.environ.get("LOCAL_WORLD_SIZE", processes) == processes


def refuse_shards() -> None:
    """Refuse weights in parts over the processes: the first could not answer, or save, by itself.

    Raises:
        TrainingError: The launcher asks for FSDP or DeepSpeed.
    """
    for variable, name in _SHARDED.items():
        if os.environ.get(variable, "false").lower() in ("1", "true"):
            raise TrainingError(f"{_WHOLE}, and the launcher asks for {name}", hint=_BY_SCRIPT)


def refuse_sharded_settings(settings: Mapping[str, Any]) -> None:
    """Refuse a trainer's settings that ask for weights in parts; see `refuse_shards`.

    Raises:
        ConfigError: One does; ``key`` is its name.
    """
    for name in ("deepspeed", "fsdp", "fsdp_config"):
        if settings.get(name):
            raise ConfigError(_WHOLE, key=name, hint=_BY_SCRIPT)


def refuse_processes() -> None:
    """Refuse a launcher's processes where each would train and write by itself.

    Raises:
        TrainingError: There are several.
    """
    if (processes := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise TrainingError(
            f"this kind of run is one process, and the launcher has started {processes}", hint="start it without"
        )


def shared(make: Callable[[], T]) -> T:
    """What the first process makes, in all of them; the others wait for it.

    Args:
        make: Called only in the first process.
    """
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    state = PartialState()
    if state.num_processes == 1:
        return make()
    made: list[T | None] = [make() if state.is_main_process else None]
    broadcast_object_list(made)
    value: T = made[0]  # type: ignore[assignment]  # the first process has filled it
    return value
