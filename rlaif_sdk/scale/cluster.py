"""Ray, found or started, and what is asked of it."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from rlaif_sdk.exceptions import ConfigError, RlaifError, needs_extra
from rlaif_sdk.io.processors import processor_count


@dataclass(frozen=True, slots=True)
class Workers:
    """The processes that share a job's work.

    Attributes:
        actors: How many there are; None makes one for each core, or for each share of a GPU, that Ray has.
        gpus: The share of a GPU that each has.
        address: The Ray cluster's address, or None for the one in ``RAY_ADDRESS``, or else a Ray of this machine that
            is started for the job.

    Raises:
        ConfigError: A number is out of range.
    """

    actors: int | None = None
    gpus: float = 0.0
    address: str | None = None

    def __post_init__(self) -> None:
        if self.actors is not None and self.actors < 1:
            raise ConfigError(f"must be at least 1, not {self.actors}", key="actors")
        if not 0 <= self.gpus < math.inf:
            raise ConfigError(f"must be 0 or more, not {self.gpus}", key="gpus")

    def count(self, resources: dict[str, float]) -> int:
        """How many actors a cluster with these resources gets.

        Raises:
            ConfigError: They want GPUs and it has none.
        """
        if not self.gpus:
            return self.actors or max(1, int(resources.get("CPU", 1)))
        room = int(resources.get("GPU", 0) / self.gpus)
        if not room:
            found = f"{resources.get('GPU', 0):g}"
            raise ConfigError(f"each actor wants {self.gpus:g} GPUs and Ray has {found}", key="gpus")
        return self.actors or room


def import_ray() -> ModuleType:
    """Ray.

    Raises:
        MissingExtraError: It is not installed; one machine needs none.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with needs_extra("ray", "Ray, which spreads work over processes and machines,"):
        import ray
    module: ModuleType = ray
    return module


@contextmanager
def connected(workers: Workers) -> Iterator[int]:
    """Be connected to Ray; a connection that is made here ends here.

    Yields:
        How many actors there are to be.

    Raises:
        MissingExtraError: Ray is not installed.
        RlaifError: No cluster answers at the address.
    """
    ray = import_ray()
    ours = connect(workers)
    try:
        yield workers.count(ray.cluster_resources())
    finally:
        if ours:
            ray.shutdown()


def connect(workers: Workers) -> bool:
    """Connect to Ray, or start it, unless this process is connected. Returns whether it was not.

    Raises:
        MissingExtraError: Ray is not installed.
        RlaifError: No cluster answers at the address.
    """
    ray = import_ray()
    if ray.is_initialized():
        return False
    options: dict[str, Any] = {"address": workers.address} if workers.address else _of_this_machine(workers)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = workers.address or "this machine"
        raise RlaifError(f"Ray at {where} cannot be reached: {error}", hint="see `ray status`") from error
    return True


def _of_this_machine(workers: Workers) -> dict[str, Any]:
    """How Ray is started here, unless RAY_ADDRESS names a cluster."""
    if os.environ.get("RAY_ADDRESS"):
        return {}
    return {"address": "local", "num_cpus": max(processor_count(), workers.actors or 1), "include_dashboard": False}


def typed(error: BaseException) -> BaseException:
    """The `RlaifError` that an actor raised, if that is what Ray's error tells of; else the error itself."""
    seen: BaseException | None = error
    while seen is not None:
        cause = getattr(seen, "cause", None)
        if isinstance(cause, RlaifError):
            return cause
        if isinstance(seen, RlaifError) and type(seen).__module__ == RlaifError.__module__:
            return seen
        seen = cause if isinstance(cause, BaseException) else seen.__cause__
    return error
