"""Several processes that train as one: what each has seen, brought together where a figure is of all.

Each process samples and scores its own rows. Data parallelism averages the gradients; everything else that depends on
more than one row goes through here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlaif_sdk.composer.sync import torch_sync

if TYPE_CHECKING:
    from accelerate import Accelerator

_COUNTS = ("failed", "abstained", "fallback", "cached")
"""Last parts of the names of figures that are counts."""


class Processes:
    """The processes of a run. All of them must call the same methods in the same order.

    Args:
        accelerator: Knows them.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.count: int = accelerator.num_processes

    def total(self, x: Tensor) -> Tensor:
        """The sum over the processes, entry by entry; see `rlaif_sdk.training.ppo.masked.Total`."""
        if self.count == 1:
            return x
        summed: Tensor = self._accelerator.reduce(x, reduction="sum")
        return summed

    def mean(self, x: Tensor) -> Tensor:
        """The mean over the processes, entry by entry."""
        return self.total(x) / self.count

    def rows(self, rows: Sequence[Any]) -> list[Any]:
        """The rows of all processes, those of the first coming first."""
        return [row for part in self._gather(list(rows)) for row in part]

    def figures(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Figures to log: counts are added, seconds are those of the slowest, all others the mean of what is known."""
        parts = self._gather(dict(figures))
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: _one(name, [part[name] for part in parts if name in part]) for name in names}

    def learn_together(self, composer: Any) -> None:
        """Let the composer's statistics, multipliers and schedules be of the rows of all processes."""
        combiner = getattr(composer, "combiner", None)
        if self.count > 1 and combiner is not None and combiner.sync is None:
            combiner.sync = torch_sync()

    def _gather(self, value: Any) -> list[Any]:
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(values, value)
        return values


def _one(name: str, values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return math.nan
    last = name.rpartition("/")[2]
    if last in _COUNTS:
        return math.fsum(known)
    return max(known) if last == "seconds" else math.fsum(known) / len(known)
