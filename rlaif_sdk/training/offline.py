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
from rlaif_sdk.training.methods import get_method
from rlaif_sdk.training.models import check_trainable
from rlaif_sdk.training.ranks import refuse_processes
from rlaif_sdk.training.run_folder import HISTORY_FILE, MODEL_FOLDER, recorded, resume_training, starting_point

if TYPE_CHECKING:
    from transformers import TrainerCallback


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineResult:
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


def train_offline(
    run: Run, *, display: TrainerCallback | None, report: Callable[[str], None], resume: bool
) -> tuple[dict[str, Any], Any]:
    """Train on given rows; see `rlaif_sdk.training.methods.train`.

    The trainer of the method is made of the run, the settings and both tables, and comes with what saves its model to a
    folder.

    Returns:
        The fields of an `OfflineResult`, and the trainer.
    """
    method = get_method(run.method)
    rows = "pairs" if method.learns_from == "pairs" else "rows"
    model_folder = run.output / MODEL_FOLDER
    refuse_processes()
    checkpoint = starting_point(run, resume=resume)
    try:
        from transformers import PrinterCallback

        settings = method.settings(run)
        train, held_out = method.load_rows(run)
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="train") from error

    tables = {"train": train, "held_out": held_out}
    with recorded(run, settings, tables, resume=resume, report=report) as results:
        report(f"loading {run.model_name}")
        trainer, save = method.trainer(run, settings, train, held_out)
        check_trainable(trainer.model)
        trainer.remove_callback(PrinterCallback)
        if display is not None:
            trainer.add_callback(display)
        report(f"evaluating on {len(held_out)} held-out {rows} before training")
        before = _measured(trainer.evaluate())
        report("training")
        started = time.monotonic()
        resume_training(trainer, checkpoint)
        seconds = time.monotonic() - started
        try:
            report(f"evaluating on {len(held_out)} held-out {rows} after training")
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
