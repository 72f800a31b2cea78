"""A run from a config under a launcher such as ``accelerate launch``: the first process reports and writes for all."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from rlaif_sdk.exceptions import ConfigError, TrainingError

T = TypeVar("T")

_calls = itertools.count()
"""Numbers the calls of `_made`, which all processes make in the same order."""
_LOOKS_AGAIN = 0.05
"""Seconds after which a waiting process looks again."""
_SHARDED = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}
_WHOLE = "this kind of run keeps the whole model in each process"
_BY_SCRIPT = "make the trainer in a script and launch that; see docs/howto/train-on-several-gpus.md"


def first_process() -> bool:
    """Whether this is the process that reports and writes; True without a launcher."""
    return int(os.environ.get("RANK", "0")) == 0


def process_count() -> int:
    """How many processes the launcher has started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def processes_here() -> int:
    """How many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", process_count()))


def on_one_machine() -> bool:
    """Whether all processes of the run are on this machine, so that they can share a file that is locked."""
    return processes_here() == process_count()


def sharded_by() -> str | None:
    """``FSDP`` or ``DeepSpeed`` where the launcher asks one of them to keep weights in parts."""
    return next((name for variable, name in _SHARDED.items() if _is_set(variable)), None)


def refuse_shards(*, trains_in_parts: bool = False) -> None:
    """Refuse weights in parts over the processes, where they could not be trained, answered with and saved so.

    Args:
        trains_in_parts: Whether the kind of run does, by FSDP2 or ZeRO-2.

    Raises:
        TrainingError: The launcher asks for FSDP or DeepSpeed.
    """
    asked = sharded_by()
    if asked and not trains_in_parts:
        raise TrainingError(f"{_WHOLE}, and the launcher asks for {asked}", hint=_BY_SCRIPT)
    if asked == "FSDP" and os.environ.get("FSDP_VERSION", "1") != "2":
        raise TrainingError(
            "a run from a config takes FSDP2, and the launcher asks for FSDP1", hint="set fsdp_version: 2 in its config"
        )
    if asked == "DeepSpeed" and os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3":
        raise TrainingError(
            "the launcher asks for ZeRO-3, under which a policy is in parts from the start, and a run from a config has it "
            "answer held-out prompts before it trains",
            hint="set zero_stage: 2, or use FSDP2; or make the trainer in a script",
        )


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("1", "true")


def refuse_sharded_settings(settings: Mapping[str, Any]) -> None:
    """Refuse a trainer's settings that ask for weights in parts, of which the launcher must know.

    Raises:
        ConfigError: One does; ``key`` is its name.
    """
    for name in ("deepspeed", "fsdp", "fsdp_config"):
        if settings.get(name):
            raise ConfigError(
                "whether weights are in parts is the launcher's to say",
                key=name,
                hint="accelerate launch --config_file; see docs/howto/train-on-several-gpus.md",
            )


def refuse_processes(hint: str = "start it without") -> None:
    """Refuse a launcher's processes where each would train and write by itself.

    Args:
        hint: What to do.

    Raises:
        TrainingError: There are several.
    """
    if (processes := process_count()) > 1:
        raise TrainingError(f"this kind of run is one process, and the launcher has started {processes}", hint=hint)


def shared(make: Callable[[], T]) -> T:
    """What the first process makes, in all of them; the others wait for it, as long as it takes.

    Args:
        make: Called only in the first process.

    Raises:
        TrainingError: It failed in the first process, and this is another.
    """
    return _made([0], make)[0]


def in_turn(make: Callable[[int, int], Sequence[T]]) -> list[T]:
    """What the processes make, that of the first coming first, in all of them; each waits for the others.

    Args:
        make: Of the process's number and how many there are.

    Raises:
        TrainingError: It failed in another process.
    """
    count = process_count()
    parts = _made(range(count), lambda: make(int(os.environ.get("RANK", "0")), count))
    return [row for part in parts for row in part]


def _made(makers: Sequence[int], make: Callable[[], T]) -> list[T]:
    """What some of the processes make, in all of them.

    They wait outside of a collective, which would end them at its time limit (``ddp_timeout``).
    """
    from accelerate import PartialState
    from torch.distributed import all_gather_object
    from torch.distributed.distributed_c10d import _get_default_store

    state = PartialState()
    if state.num_processes == 1:
        return [make()]
    store, call = _get_default_store(), next(_calls)
    keys = {rank: f"rlaif/shared/{call}/{rank}" for rank in makers}
    made: T | None = None
    if own := keys.get(state.process_index):
        try:
            made = make()
        except BaseException:
            store.set(own, "failed")
            raise
        store.set(own, "made")
    for rank, key in keys.items():
        while not store.check([key]):
            time.sleep(_LOOKS_AGAIN)
        if store.get(key) == b"failed":
            which = "the first process" if rank == 0 else f"process {rank}"
            raise TrainingError(f"{which} has failed", hint="its own error says why")
    found: list[Any] = [None] * state.num_processes
    all_gather_object(found, made)
    return [found[rank] for rank in makers]
