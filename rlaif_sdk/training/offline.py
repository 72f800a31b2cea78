"""Training on given rows by one of TRL's trainers: evaluation before and after, the model saved."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import MissingExtraError
from rlaif_sdk.io.files import without_nan
from rlaif_sdk.io.tables import write_table
from rlaif_sdk.training.config import Run
from rlaif_sdk.training.models import check_trainable
from rlaif_sdk.training.ranks import refuse_processes
from rlaif_sdk.training.run_folder import HISTORY_FILE, MODEL_FOLDER, recorded, starting_point

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerCallback


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsResult:
    """What came of a run.

    Attributes:
        held_out_rows: How many held-out rows were evaluated.
        before: What the evaluation on them measured before training, without prefixes.
        after: The same after it.
        history: What the trainer logged, one mapping a logged step.
        model_folder: The trained model, for plain ``from_pretrained``; an adapter is merged into it.
        output: The folder of the run.
        steps: Optimiser steps done.
        training_seconds: Time spent in training, without loading and evaluation.
    """

    held_out_rows: int
    before: Mapping[str, float]
    after: Mapping[str, float]
    history: Sequence[Mapping[str, Any]]
    model_folder: Path
    output: Path
    steps: int
    training_seconds: float


@dataclass(frozen=True, slots=True)
class RowsMethod:
    """A way to train on rows.

    Attributes:
        key: The key of the config that has the trainer's settings.
        rows: What the rows are called.
        settings: Makes the trainer's settings.
        load: Reads the rows to train on, and the held-out ones.
        make: Makes the trainer of the settings and both tables, and what saves its model to a folder.
    """

    key: str
    rows: str
    settings: Callable[[Run], Any]
    load: Callable[[Run], tuple[Dataset, Dataset]]
    make: Callable[[Run, Any, Dataset, Dataset], tuple[Any, Callable[[Path], object]]]


def train_on_rows(
    run: Run,
    method: RowsMethod,
    *,
    display: TrainerCallback | None,
    report: Callable[[str], None],
    resume: bool,
) -> tuple[dict[str, Any], Any]:
    """Train as a method does.

    Args:
        run: The loaded config.
        method: How.
        display: Shows training's progress in place of the trainer's own printing.
        report: Called with a line of text at the start of each stage.
        resume: Go on from the last checkpoint in the output folder.

    Returns:
        The fields of a `RowsResult`, and the trainer. The output folder then holds ``model/`` and ``history.jsonl``.

    Raises:
        ConfigError: The config is refused, or its output folder already holds a trained model.
        DataError: A row is refused.
        MissingExtraError: The extra ``train`` is not installed.
    """
    model_folder = run.output / MODEL_FOLDER
    refuse_processes()
    checkpoint = starting_point(run, method.key, resume=resume)
    try:
        from transformers import PrinterCallback

        from rlaif_sdk.training.run_folder import resume_training

        settings = method.settings(run)
        train, held_out = method.load(run)
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="train") from error

    tables = {"train": train, "held_out": held_out}
    with recorded(run, method.key, settings, tables, resume=resume, report=report) as results:
        report(f"loading {run.model_name}")
        trainer, save = method.make(run, settings, train, held_out)
        check_trainable(trainer.model)
        trainer.remove_callback(PrinterCallback)
        if display is not None:
            trainer.add_callback(display)
        report(f"evaluating on {len(held_out)} held-out {method.rows} before training")
        before = _measured(trainer.evaluate())
        report("training")
        started = time.monotonic()
        resume_training(trainer, checkpoint)
        seconds = time.monotonic() - started
        try:
            report(f"evaluating on {len(held_out)} held-out {method.rows} after training")
            after = _measured(trainer.evaluate())
        finally:  # not before, since saving merges an adapter
            report(f"saving {model_folder}")
            save(model_folder)
        steps = int(trainer.state.global_step)
        results |= {"steps": steps, "training_seconds": round(seconds, 1)}
        history = [without_nan(entry) for entry in trainer.state.log_history if "loss" in entry]
        write_table(history, run.output / HISTORY_FILE)
        with contextlib.suppress(OSError):  # the trainer makes the folder even if nothing is to be saved
            run.checkpoints.rmdir()
    fields = {
        "held_out_rows": len(held_out),
        "before": before,
        "after": after,
        "history": history,
        "model_folder": model_folder,
        "output": run.output,
        "steps": steps,
        "training_seconds": seconds,
    }
    return fields, trainer


def _measured(metrics: Mapping[str, float]) -> dict[str, float]:
    """The figures of a trainer's evaluation without its prefix, its speed left out."""
    speed = ("runtime", "per_second", "preparation_time", "num_tokens", "epoch")
    return {name.removeprefix("eval_"): value for name, value in metrics.items() if not name.endswith(speed)}
