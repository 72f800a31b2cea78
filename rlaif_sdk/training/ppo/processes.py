"""Several processes that train as one: what each has seen, gathered where a metric is of all.

Each process samples and scores its own rows. Data parallelism averages the gradients; everything else that depends on
more than one row goes through here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlaif_sdk.composer.all_gather import torch_all_gather

if TYPE_CHECKING:
    from accelerate import Accelerator

    from rlaif_sdk.training.ppo.scoring import ScoredBatch

_COUNTS = ("failed", "abstained", "not_asked", "fallback", "cached")
"""Last parts of the names of metrics that are counts."""
_SHARES = ("unscored", "closed", "asked_share", "imputed_share")
"""Of metrics that are shares of all rows."""
_MEANS = {"reward_std": "reward", "std": "mean", "raw_std": "raw_mean"}
"""Of metrics that are deviations, with those of their means."""
_OF_REWARDS = ("proxy/", "held_out/", "correlation/")
"""Begin the names of means that end in a reward's own name, whatever that is."""


class Measured(NamedTuple):
    """Metrics of a batch by name, and how many rows each was measured on."""

    metrics: Mapping[str, float]
    rows: Mapping[str, int]


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

    def most(self, number: int) -> int:
        """The greatest of a number over the processes."""
        return max(int(each) for each in self._gather(number))

    def rows(self, rows: Sequence[Any]) -> list[Any]:
        """The rows of all processes, those of the first coming first."""
        return [row for part in self._gather(list(rows)) for row in part]

    def metrics(self, measured: Sequence[Measured]) -> dict[str, float]:
        """Metrics to log, as one process would have them that has the rows of all, in one batch.

        Counts are added, seconds are those of the slowest, deviations are those around the common mean; all others are
        means, and those of a part weigh by the rows that they were measured on. NaN is left out.

        Args:
            measured: Of each batch of this process; see `measured_rows`.
        """
        parts = self.rows(measured)
        if len(parts) == 1:
            return dict(parts[0].metrics)
        names = dict.fromkeys(name for part in parts for name in part.metrics)
        return {name: _one(name, parts) for name in names}

    def learn_together(self, composer: Any) -> None:
        """Let the composer's statistics, multipliers and schedules be of the rows of all processes."""
        combiner = getattr(composer, "combiner", None)
        if self.count > 1 and combiner is not None and combiner.all_gather is None:
            combiner.all_gather = torch_all_gather()

    def _gather(self, value: Any) -> list[Any]:
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(values, value)
        return values


def measured_rows(metrics: Iterable[str], composition: ScoredBatch) -> dict[str, int]:
    """For each metric of `rlaif_sdk.training.ppo.scoring.reward_metrics` the number of rows that it was measured on.

    A reward's are the rows that it has scored, ``proxy`` and ``held_out`` among them; shares are of all rows, everything
    else is of the rows with a total.
    """
    totals_B = np.asarray(composition.totals, dtype=np.float64)
    scored = int((~np.isnan(totals_B)).sum())
    of_reward = {name: int((~np.isnan(column.raw)).sum()) for name, column in composition.rewards.items()}
    of_part = {f"reward/{name}": count for name, count in of_reward.items()}
    for part in getattr(composition, "constraints", ()):
        of_part[f"constraint/{part.constraint.key}"] = of_reward[part.constraint.reward]

    def rows(metric: str) -> int:
        first, _, name = metric.partition("/")
        if first in {"proxy", "held_out"}:
            return of_reward.get(name, scored)
        return len(totals_B) if _kind(metric) in _SHARES else of_part.get(metric.rpartition("/")[0], scored)

    return {metric: rows(metric) for metric in metrics}


def _kind(metric: str) -> str:
    """The last part of a metric's name, which says how it is gathered; none where that is a reward's name."""
    return "" if metric.startswith(_OF_REWARDS) else metric.rpartition("/")[2]


def _one(name: str, parts: Sequence[Measured]) -> float:
    known = [part for part in parts if not math.isnan(part.metrics.get(name, math.nan))]
    values = [part.metrics[name] for part in known]
    last = _kind(name)
    if not known:
        return math.nan
    if last in _COUNTS:
        return math.fsum(values)
    if last == "seconds":
        return max(values)
    weights = [part.rows.get(name, 0) for part in known]
    if last not in _MEANS:
        return _mean(values, weights)
    mean_name = name.removesuffix(last) + _MEANS[last]
    means = [part.metrics[mean_name] for part in known]
    around = _mean(means, weights)
    squares = [deviation**2 + (mean - around) ** 2 for deviation, mean in zip(values, means, strict=True)]
    return math.sqrt(_mean(squares, weights))


def _mean(values: Sequence[float], weights: Sequence[int]) -> float:
    if not any(weights):
        weights = [1] * len(values)
    return math.fsum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)
