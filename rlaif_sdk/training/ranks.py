"""A run from a config under a launcher such as ``accelerate launch``: the first process reports and writes for all."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rlaif_sdk.exceptions import ConfigError, TrainingError

T = TypeVar("T")

_calls = itertools.count()
"""Numbers the calls of `shared`, which all processes make in the same order."""
_LOOKS_AGAIN = 0.05
"""Seconds after which a waiting process looks again."""
_SHARDED = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}
_WHOLE = "a run from a config keeps the whole model in each process"
_BY_SCRIPT = "make the trainer in a script and launch that; see docs/howto/train-on-several-gpus.md"


def first_process() -> bool:
    """Whether this is the process that reports and writes; True without a launcher."""
    return int(os.environ.get("RANK", "0")) == 0


def process_count() -> int:
    """How many processes the launcher has started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


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
    if (processes := process_count()) > 1:
        raise TrainingError(
            f"this kind of run is one process, and the launcher has started {processes}", hint="start it without"
        )


def shared(make: Callable[[], T]) -> T:
    """What the first process makes, in all of them; the others wait for it, as long as it takes.

    They wait outside of a collective, which would end them at its time limit (``ddp_timeout``).

    Args:
        make: Called only in the first process.

    Raises:
        TrainingError: It failed in the first process, and this is another.
    """
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list
    from torch.distributed.distributed_c10d import _get_default_store

    state = PartialState()
    if state.num_processes == 1:
        return make()
    store, key = _get_default_store(), f"rlaif/shared/{next(_calls)}"
    made: list[T | None] = [None]
    if state.is_main_process:
        try:
            made = [make()]
        except BaseException:
            store.set(key, "failed")
            raise
        store.set(key, "made")
    else:
        while not store.check([key]):
            time.sleep(_LOOKS_AGAIN)
        if store.get(key) == b"failed":
            raise TrainingError("the first process has failed", hint="its own error says why")
    broadcast_object_list(made)
    value: T = made[0]  # type: ignore[assignment]  # the first process has filled it
    return value
