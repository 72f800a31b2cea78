"""Samples in the loggers that training reports to: as a table where a logger has tables, else as text.

The figures are sent by transformers' own callbacks. A run that one of them has begun gets the samples too, through the
public interface of the logger's library.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback
from transformers.integrations.integration_utils import (
    ClearMLCallback,
    CometCallback,
    MLflowCallback,
    SwanLabCallback,
    TensorBoardCallback,
    TrackioCallback,
    WandbCallback,
)
from transformers.trainer_callback import CallbackHandler

from rlaif_sdk.training.ppo.samples import Sample


@dataclass(frozen=True, slots=True)
class Shown:
    """The samples of one rollout or batch of evaluation.

    Attributes:
        split: ``train`` or ``eval``.
        step: The optimiser steps done.
        part: Their number among those of this split and step, from 0.
        samples: See `rlaif_sdk.training.ppo.samples.sample_records`.
    """

    split: str
    step: int
    part: int
    samples: Sequence[Sample]

    @property
    def name(self) -> str:
        """What the samples are called in a logger."""
        return f"samples/{self.split}"

    @property
    def suffix(self) -> str:
        """The part's number, from the second on: for loggers that keep one thing a name and step."""
        return f"-{self.part + 1}" if self.part else ""

    @property
    def columns(self) -> list[str]:
        """The heads of a table."""
        return ["step", "prompt", "completion", *self.samples[0]["rewards"], "total"]

    @property
    def rows(self) -> list[list[Any]]:
        """The rows of a table: raw scores, and texts; messages as JSON."""
        return [
            [self.step, _text(sample["prompt"]), _text(sample["completion"]), *_raw_scores(sample), sample["total"]]
            for sample in self.samples
        ]

    @property
    def text(self) -> str:
        """The table in Markdown."""
        return markdown_table(self.samples)


def markdown_table(samples: Sequence[Sample]) -> str:
    """Prompt, completion, each raw reward and the total, a row a sample."""
    heads = ["prompt", "completion", *samples[0]["rewards"], "total"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for sample in samples:
        shown = ["" if score is None else f"{score:.4g}" for score in [*_raw_scores(sample), sample["total"]]]
        cells = [_cell(sample["prompt"]), _cell(sample["completion"]), *shown]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


class LoggedSamples(TrainerCallback):
    """Sends samples to every logger in `WRITERS` that training reports to, once its run has begun.

    Args:
        handler: Knows transformers' callbacks for the loggers.
    """

    def __init__(self, handler: CallbackHandler) -> None:
        self._handler = handler
        self._parts: Counter[tuple[str, int]] = Counter()

    def on_samples(self, args: Any, state: Any, control: Any, *, split: str, samples: Sequence[Sample]) -> None:
        """Called after each rollout and each batch of evaluation."""
        del args, control
        place = split, state.global_step
        shown = Shown(*place, self._parts[place], samples)
        self._parts[place] += 1
        for callback in self._handler.callbacks:
            for kind, write in WRITERS.items():
                if isinstance(callback, kind):
                    write(callback, shown)


def _to_tensorboard(callback: Any, shown: Shown) -> None:
    if callback.tb_writer is not None:
        callback.tb_writer.add_text(shown.name, shown.text, shown.step)


def _to_wandb(_: Any, shown: Shown) -> None:
    import wandb

    if wandb.run is not None:
        table = wandb.Table(columns=shown.columns, data=shown.rows)
        wandb.log({shown.name: table, "train/global_step": shown.step})


def _to_trackio(_: Any, shown: Shown) -> None:
    import trackio

    if trackio.context_vars.current_run.get() is not None:
        table = trackio.Table(columns=shown.columns, data=shown.rows)
        trackio.log({shown.name: table, "train/global_step": shown.step})


def _to_mlflow(_: Any, shown: Shown) -> None:
    """An artifact a rollout: MLflow's tables are read and written anew for every row that is added."""
    import mlflow

    if mlflow.active_run() is not None:
        mlflow.log_text(shown.text, f"{shown.name}/step-{shown.step:08}{shown.suffix}.md")


def _to_swanlab(_: Any, shown: Shown) -> None:
    import swanlab

    if swanlab.get_run() is not None:
        swanlab.log({shown.name + shown.suffix: swanlab.Text(shown.text)}, step=shown.step)


def _to_comet(_: Any, shown: Shown) -> None:
    import comet_ml

    if (experiment := comet_ml.get_running_experiment()) is not None:
        experiment.log_text(shown.text, step=shown.step, metadata={"name": shown.name})


def _to_clearml(_: Any, shown: Shown) -> None:
    import clearml

    if (task := clearml.Task.current_task()) is not None:
        text, series = io.StringIO(shown.text), shown.split + shown.suffix
        task.get_logger().report_media("samples", series, iteration=shown.step, stream=text, file_extension=".md")


WRITERS: dict[type[TrainerCallback], Callable[[Any, Shown], None]] = {
    TensorBoardCallback: _to_tensorboard,
    WandbCallback: _to_wandb,
    TrackioCallback: _to_trackio,
    MLflowCallback: _to_mlflow,
    SwanLabCallback: _to_swanlab,
    CometCallback: _to_comet,
    ClearMLCallback: _to_clearml,
}
"""How samples reach a logger, by transformers' callback for it, which stands in the first argument."""


def _raw_scores(sample: Sample) -> list[float | None]:
    return [reward["raw"] for reward in sample["rewards"].values()]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cell(value: Any) -> str:
    return _text(value).replace("|", "\\|").replace("\n", "<br>")
