"""Sampled completions with their rewards: in a file, in the loggers, and for any callback that asks for them.

A callback gets them through a method of its own beside those of `transformers.TrainerCallback`::

    def on_samples(self, args, state, control, *, split, samples, **kwargs): ...

``split`` is ``train`` or ``eval``; ``samples`` are JSON-ready mappings, see `sample_records`. Loggers get a table
where they have tables, else text: metrics are sent by transformers' own callbacks, and a run that one of them has begun
gets the samples too, through the public interface of the logger's library.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor
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

from rlaif_sdk.composer import Composition
from rlaif_sdk.io.files import atomic_path
from rlaif_sdk.training.ppo.scoring import ScoredBatch

SAMPLES_FILE = "rollouts.jsonl"
Sample = dict[str, Any]


def sample_records(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    composition: ScoredBatch,
    kl_B: Tensor | None,
    truncated: Sequence[bool],
) -> Iterator[Sample]:
    """The B rows of a rollout, one at a time.

    ``prompt``, ``completion``, whether it was ``truncated``, its divergence ``kl`` from the reference in nats (None
    without a reference), and what `rlaif_sdk.Composition.to_records` has: ``total``, ``rewards`` and so on. Of an object of
    a composition's shape the total and the raw scores.
    """
    scored: Iterable[Mapping[str, Any]] = (
        composition.to_records() if isinstance(composition, Composition) else _raw_records(composition)
    )
    divergences = [None] * len(prompts) if kl_B is None else kl_B.tolist()
    rows = zip(prompts, completions, truncated, divergences, scored, strict=True)
    for prompt, completion, was_truncated, kl, record in rows:
        yield {"prompt": prompt, "completion": completion, "truncated": was_truncated, "kl": kl, **record}


def _raw_records(composition: ScoredBatch) -> Iterator[Sample]:
    columns = {name: column.raw.tolist() for name, column in composition.rewards.items()}
    for row, total in enumerate(composition.totals.tolist()):
        yield {"total": _number(total), "rewards": {name: {"raw": _number(raw[row])} for name, raw in columns.items()}}


def _number(value: float) -> float | None:
    return None if value != value else value  # noqa: PLR0124 - NaN is what differs from itself


def show_samples(handler: CallbackHandler, args: Any, state: Any, control: Any, *, split: str, records: Any) -> None:
    """Hand the first ``args.log_samples`` records to every callback that has ``on_samples``."""
    listeners = [callback for callback in handler.callbacks if callable(getattr(callback, "on_samples", None))]
    samples = list(islice(records, args.log_samples)) if listeners and state.is_world_process_zero else []
    for listener in listeners if samples else []:
        listener.on_samples(args, state, control, split=split, samples=samples)


class SampleFile(TrainerCallback):
    """Appends samples to a JSONL file, each with ``step`` and ``split``.

    A resumed run replaces what followed its checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forget samples of steps that will be made again."""
        del args, control, kwargs
        if not (state.global_step and state.is_world_process_zero and self.path.is_file()):
            return
        with (
            atomic_path(self.path) as partial,
            self.path.open(encoding="utf-8") as old,
            partial.open("w", encoding="utf-8") as kept,
        ):
            kept.writelines(line for line in old if _came_before(line, state.global_step))

    def on_samples(self, args: Any, state: Any, control: Any, *, split: str, samples: Sequence[Sample]) -> None:
        """Called after each rollout and each batch of evaluation."""
        del args, control
        lines = [json.dumps({"step": state.global_step, "split": split, **sample}) + "\n" for sample in samples]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(lines)


def _came_before(line: str, step: int) -> bool:
    """Whether a line was written before the checkpoint of a step; evaluation comes before saving."""
    try:
        sample = json.loads(line)
    except ValueError:  # cut off when the run was killed
        return False
    return bool(sample["step"] < step or (sample["step"] == step and sample["split"] == "eval"))


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
