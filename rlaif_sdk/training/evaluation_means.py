"""Metrics of an evaluation as means over its rows, however they were batched, and each under its set's own name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Trainer as Base
else:
    Base = object


class MeansOverRows(Base):
    """Stands before a trainer of TRL's among the bases of a class.

    TRL keeps a mean of each batch and logs the mean of those, in which a row of a last, smaller batch counts more than the
    others; it calls the metrics of every evaluation ``eval_...``, whatever the set's name, and leaves those of ``predict``
    to the next one. Here a batch weighs by its rows, and the metrics join the metrics that `evaluate` and `predict`
    return.

    Attributes:
        sequences_a_row: How many entries of a batch are one row: two of a pair.
    """

    sequences_a_row: int = 1

    accelerator: Any
    _metrics: Any
    _evaluated: list[Any]
    _batch_rows: list[int]
    _rows_left: int | None = None

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,  # noqa: FBT001 - the base class's signature
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """Evaluate; what was noted of each batch joins the metrics, under their prefix."""
        self._metrics["eval"].clear()
        self._evaluated, self._batch_rows = [], []
        dataset = getattr(dataloader, "dataset", None)
        repeats = int(getattr(self, "num_generations_eval", None) or 1)
        self._rows_left = len(dataset) * repeats if isinstance(dataset, Sized) else None
        output: Any = super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
        )
        metrics = self._evaluation_metrics()
        self._metrics["eval"].clear()
        if output.metrics is not None:
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in metrics.items()})
        return output

    def prediction_step(
        self,
        model: Any,
        inputs: Any,
        prediction_loss_only: bool,  # noqa: FBT001 - the base class's signature
        ignore_keys: list[str] | None = None,
    ) -> Any:
        """Count the batch's rows, and evaluate it."""
        self._count_rows(inputs)
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys=ignore_keys)

    def _count_rows(self, inputs: Any) -> int:
        """Note how many rows a batch has, and return how many of them are this process's.

        A last batch is filled up with rows of the first, so that all processes have as many; these do not count twice.
        """
        from transformers.trainer_pt_utils import find_batch_size

        size = len(inputs) if isinstance(inputs, Sequence) else find_batch_size(inputs)  # type: ignore[no-untyped-call]
        given = int(size or 0)
        rows = given // self.sequences_a_row
        if self._rows_left is None:
            self._batch_rows.append(rows)
            return rows
        own = min(max(self._rows_left - int(self.accelerator.process_index) * rows, 0), rows)
        everywhere = min(rows * self.accelerator.num_processes, self._rows_left)
        self._batch_rows.append(everywhere)
        self._rows_left -= everywhere
        return own

    def _evaluation_metrics(self) -> dict[str, float | None]:
        """What was noted of the batches, gathered; None where no batch had a value."""
        noted: dict[str, list[float]] = {name: list(values) for name, values in self._metrics["eval"].items()}
        return {name: self._over_rows(name, values, noted) for name, values in noted.items()}

    def _over_rows(self, name: str, values: Sequence[float], noted: Mapping[str, Sequence[float]]) -> float | None:
        if len(values) != len(self._batch_rows):  # a total, of which TRL keeps only the last
            return values[-1] if values else None
        known = [
            (value, weight)
            for value, weight in zip(values, self._weights(name, noted), strict=True)
            if not math.isnan(value) and weight > 0
        ]
        if not known:
            return None
        last = name.rpartition("/")[2]
        if last.startswith("min_") or last.endswith("_min"):
            return min(value for value, _ in known)
        if last.startswith("max_") or last.endswith("_max"):
            return max(value for value, _ in known)
        return math.fsum(value * weight for value, weight in known) / math.fsum(weight for _, weight in known)

    def _weights(self, name: str, noted: Mapping[str, Sequence[float]]) -> Iterator[float]:
        """How much each batch counts: by its rows, and of what is measured on ended completions, by those."""
        clipped = noted.get("completions/clipped_ratio", ())
        ended = name.endswith("_terminated_length") and len(clipped) == len(self._batch_rows)
        for batch, rows in enumerate(self._batch_rows):
            yield rows * (1.0 - clipped[batch]) if ended else rows


def over_rows(trainer: type[Any]) -> Any:
    """A trainer of TRL's that evaluates as `MeansOverRows`."""
    return type(trainer.__name__, (MeansOverRows, trainer), {"__doc__": trainer.__doc__})
