"""Supervised fine-tuning from a config, the phase before training on rewards: TRL trains, the model is saved."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rlaif_sdk.exceptions import MissingExtraError
from rlaif_sdk.json_files import without_nan
from rlaif_sdk.training.config import Run, RunConfig
from rlaif_sdk.training.manifest import recorded
from rlaif_sdk.training.models import adapter, load_policy, save_policy
from rlaif_sdk.training.ranks import refuse_processes
from rlaif_sdk.training.run import (
    HISTORY_FILE,
    MODEL_FOLDER,
    check_chat_template,
    measured,
    starting_point,
    write_rows,
)
from rlaif_sdk.training.sft import SFTDataSettings, is_conversational, sft_rows

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerCallback


class SFTRunConfig(RunConfig):
    """Everything about a run of supervised fine-tuning."""

    data: SFTDataSettings
    """The rows to imitate."""
    sft: dict[str, Any] = Field(default_factory=dict)
    """Fields of `trl.SFTConfig`, which has those of `transformers.TrainingArguments` too."""


@dataclass(frozen=True, slots=True)
class SFTResult:
    """What came of a run.

    Attributes:
        held_out_rows: How many held-out rows were evaluated.
        before: What the evaluation on them measured before training, without prefixes: ``loss`` in nats a token,
            ``mean_token_accuracy`` and ``entropy``, as TRL means them, over batches.
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


def load_sft_run(source: str | Path | Mapping[str, Any], *, overrides: Sequence[str] = ()) -> Run:
    """Read and check a run's config; see `rlaif_sdk.training.config.load_run_config`.

    Raises:
        ConfigError: The config or an override is refused; the message has file, line and key.
    """
    return Run.load(SFTRunConfig, source, overrides)


def run_sft(
    source: str | Path | Mapping[str, Any] | Run,
    *,
    display: TrainerCallback | None = None,
    report: Callable[[str], None] = lambda _: None,
    resume: bool = False,
) -> SFTResult:
    """Fine-tune a language model on given answers, as a config says.

    Args:
        source: A YAML or JSON file, a mapping, or a loaded run. See `SFTRunConfig`.
        display: Shows training's progress in place of the trainer's own printing.
        report: Called with a line of text at the start of each stage.
        resume: Go on from the last checkpoint in the output folder (``sft.save_strategy`` makes them).

    Returns:
        What came of it. The output folder then holds ``model/``, which the next run names as its ``model.name``, and
        ``history.jsonl``.

    Raises:
        ConfigError: The config is refused, or its output folder already holds a trained model.
        DataError: A row is refused.
        MissingExtraError: The extra ``train`` is not installed.
    """
    run = source if isinstance(source, Run) else load_sft_run(source)
    model_folder = run.output / MODEL_FOLDER
    refuse_processes()
    checkpoint = starting_point(run, "sft", resume=resume)
    try:
        from transformers import PrinterCallback
        from trl.trainer.sft_trainer import SFTTrainer

        from rlaif_sdk.training.resuming import go_on

        settings = sft_settings(run)
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="train") from error

    train, held_out = load_sft_rows(run)
    tables = {"train": train, "held_out": held_out}
    with recorded(run, "sft", settings, tables, resume=resume, report=report) as results:
        report(f"loading {run.model_name}")
        model, tokenizer = load_policy(run)
        check_chat_template(run, tokenizer, needed=is_conversational(train))
        trainer = SFTTrainer(
            model,
            args=settings,
            train_dataset=train,
            eval_dataset=held_out,
            processing_class=tokenizer,
            peft_config=adapter(run),
        )
        trainer.remove_callback(PrinterCallback)
        if display is not None:
            trainer.add_callback(display)
        report(f"evaluating on {len(held_out)} held-out rows before training")
        before = measured(trainer.evaluate())
        report("training")
        started = time.monotonic()
        go_on(trainer, checkpoint)
        seconds = time.monotonic() - started
        try:
            report(f"evaluating on {len(held_out)} held-out rows after training")
            after = measured(trainer.evaluate())
        finally:  # not before, since saving merges an adapter
            report(f"saving {model_folder}")
            save_policy(run, trainer, tokenizer, model_folder)
        steps = int(trainer.state.global_step)
        results |= {"steps": steps, "training_seconds": round(seconds, 1)}
        history = [without_nan(entry) for entry in trainer.state.log_history if "loss" in entry]
        write_rows(run.output / HISTORY_FILE, history)
        with contextlib.suppress(OSError):  # the trainer makes the folder even if nothing is to be saved
            run.checkpoints.rmdir()
    return SFTResult(len(held_out), before, after, history, model_folder, run.output, steps, seconds)


def sft_settings(run: Run) -> Any:
    """The trainer's settings, a `trl.SFTConfig`.

    Raises:
        ConfigError: A key is unknown, belongs elsewhere, or its value is refused.
    """
    import torch
    from trl.trainer.sft_config import SFTConfig

    return run.settings(
        SFTConfig,
        "sft",
        logging_steps=10,
        bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        gradient_checkpointing=False,
    )


def load_sft_rows(run: Run) -> tuple[Dataset, Dataset]:
    """The rows to imitate, and the held-out ones.

    Raises:
        RlaifError: As `rlaif_sdk.training.data.load_split`, or a row is refused.
    """
    from rlaif_sdk.training.data import load_split

    data = run.config.data
    return load_split(data, run.folder, partial(sft_rows, settings=data))
