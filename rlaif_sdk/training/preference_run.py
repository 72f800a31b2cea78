"""Runs on preference pairs from a config: evaluation before, training, evaluation after, the model saved."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from rlaif_sdk.exceptions import ConfigError, MissingExtraError
from rlaif_sdk.json_files import without_nan
from rlaif_sdk.training.config import Run, RunConfig, TableSettings
from rlaif_sdk.training.manifest import recorded
from rlaif_sdk.training.models import adapter, load_policy, save_policy
from rlaif_sdk.training.ranks import refuse_processes
from rlaif_sdk.training.run import (
    HISTORY_FILE,
    MODEL_FOLDER,
    measured,
    starting_point,
    write_rows,
)

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

    from rlaif_sdk.training.calibration import Calibration

Kind = Literal["reward_model", "dpo"]
TASKS: dict[Kind, str] = {"reward_model": "SEQ_CLS", "dpo": "CAUSAL_LM"}
"""PEFT's names of what the models do."""
COLUMNS = ("prompt", "chosen", "rejected", "chosen_prob", "margin")


class PreferenceDataSettings(TableSettings):
    """The pairs to train on, and those held out to see what was learnt.

    Columns: ``prompt``, ``chosen``, ``rejected``, each text or messages, and if there are any ``chosen_prob``
    and ``margin``.
    """


class PreferenceRunConfig(RunConfig):
    """What both kinds of run have."""

    data: PreferenceDataSettings
    """The pairs."""


class RewardModelRunConfig(PreferenceRunConfig):
    """Everything about the training of a reward model."""

    reward_model: dict[str, Any] = Field(default_factory=dict)
    """Fields of `trl.RewardConfig`, which has those of `transformers.TrainingArguments` too."""


class DPORunConfig(PreferenceRunConfig):
    """Everything about a DPO run."""

    dpo: dict[str, Any] = Field(default_factory=dict)
    """Fields of `trl.DPOConfig`, which has those of `transformers.TrainingArguments` too."""


CONFIGS: dict[Kind, type[PreferenceRunConfig]] = {"reward_model": RewardModelRunConfig, "dpo": DPORunConfig}


@dataclass(frozen=True, slots=True)
class PreferenceResult:
    """What came of a run.

    Attributes:
        kind: ``reward_model`` or ``dpo``.
        before: What the evaluation on the held-out pairs measured before training, without prefixes.
        after: The same after it.
        calibration: The reliability of the trained model on them.
        history: What the trainer logged, one mapping a logged step.
        model_folder: The trained model, for plain ``from_pretrained``; an adapter is merged into it.
        output: The folder of the run.
        steps: Optimiser steps done.
        training_seconds: Time spent in training, without loading and evaluation.
    """

    kind: Kind
    before: Mapping[str, float]
    after: Mapping[str, float]
    calibration: Calibration
    history: Sequence[Mapping[str, Any]]
    model_folder: Path
    output: Path
    steps: int
    training_seconds: float


def load_preference_run(kind: Kind, source: str | Path | Mapping[str, Any], *, overrides: Sequence[str] = ()) -> Run:
    """Read and check a run's config; see `rlaif_sdk.training.config.load_run_config`.

    Raises:
        ConfigError: The config or an override is refused; the message has file, line and key.
    """
    return Run.load(CONFIGS[kind], source, overrides)


def run_preferences(
    kind: Kind,
    source: str | Path | Mapping[str, Any] | Run,
    *,
    display: TrainerCallback | None = None,
    report: Callable[[str], None] = lambda _: None,
    resume: bool = False,
) -> PreferenceResult:
    """Train a reward model, or a policy by DPO, on preference pairs, as a config says.

    Args:
        kind: ``reward_model`` or ``dpo``.
        source: A YAML or JSON file, a mapping, or a loaded run. See `RewardModelRunConfig` and `DPORunConfig`.
        display: Shows training's progress in place of the trainer's own printing.
        report: Called with a line of text at the start of each stage.
        resume: Go on from the last checkpoint in the output folder (``save_strategy`` makes them).

    Returns:
        What came of it. The output folder then holds ``model/`` and ``history.jsonl``.

    Raises:
        ConfigError: The config is refused, or its output folder already holds a trained model.
        DataError: A pair is refused.
        MissingExtraError: The extra ``train`` is not installed.
    """
    run = source if isinstance(source, Run) else load_preference_run(kind, source)
    model_folder = run.output / MODEL_FOLDER
    refuse_processes()
    checkpoint = starting_point(run, kind, resume=resume)
    try:
        from transformers import PrinterCallback

        from rlaif_sdk.training.data import load_prompts
        from rlaif_sdk.training.resuming import go_on

        settings = preference_settings(kind, run)
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="train") from error

    train, held_out = (pairs(rows) for rows in load_prompts(run.config.data, run.folder))
    tables = {"train": train, "held_out": held_out}
    with recorded(run, kind, settings, tables, resume=resume, report=report) as results:
        report(f"loading {run.model_name}")
        trainer, tokenizer = _trainer(kind, run, settings, train, held_out)
        trainer.remove_callback(PrinterCallback)
        if display is not None:
            trainer.add_callback(display)
        report(f"evaluating on {len(held_out)} held-out pairs before training")
        before = measured(trainer.evaluate())
        report("training")
        started = time.monotonic()
        go_on(trainer, checkpoint)
        seconds = time.monotonic() - started
        try:
            report(f"evaluating on {len(held_out)} held-out pairs after training")
            after = measured(trainer.evaluate())
        finally:  # not before, since saving merges an adapter
            report(f"saving {model_folder}")
            if kind == "reward_model":
                trainer.save_reward(model_folder)
            else:
                save_policy(run, trainer, tokenizer, model_folder)
        steps = int(trainer.state.global_step)
        results |= {"steps": steps, "training_seconds": round(seconds, 1)}
        history = [without_nan(entry) for entry in trainer.state.log_history if "loss" in entry]
        write_rows(run.output / HISTORY_FILE, history)
        with contextlib.suppress(OSError):  # the trainer makes the folder even if nothing is to be saved
            run.checkpoints.rmdir()
    return PreferenceResult(kind, before, after, trainer.calibration, history, model_folder, run.output, steps, seconds)


def pairs(rows: Dataset) -> Dataset:
    """The columns that the trainers take, others being of no use to them."""
    return rows.select_columns([column for column in COLUMNS if column in rows.column_names])


def preference_settings(kind: Kind, run: Run) -> Any:
    """The trainer's settings, a `trl.RewardConfig` or `trl.DPOConfig`.

    Raises:
        ConfigError: A key is unknown, belongs elsewhere, or its value is refused.
    """
    import torch
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.reward_config import RewardConfig

    settings: Any = run.settings(
        RewardConfig if kind == "reward_model" else DPOConfig,
        kind,
        logging_steps=10,
        bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        gradient_checkpointing=False,
    )
    if kind == "dpo":
        from rlaif_sdk.training.dpo import check_settings

        try:
            check_settings(settings)
        except ConfigError as error:
            raise run.document.error(error.message, (kind, str(error.key)), error.hint) from error
    return settings


def _trainer(
    kind: Kind, run: Run, settings: Any, train: Dataset, held_out: Dataset
) -> tuple[Any, PreTrainedTokenizerBase]:
    model, tokenizer = _load_scorer(run) if kind == "reward_model" else load_policy(run)
    options: dict[str, Any] = {
        "args": settings,
        "train_dataset": train,
        "eval_dataset": held_out,
        "processing_class": tokenizer,
        "peft_config": adapter(run, TASKS[kind]),
    }
    if kind == "reward_model":
        from rlaif_sdk.training.reward_model import SoftRewardTrainer

        return SoftRewardTrainer(model, **options), tokenizer
    from rlaif_sdk.training.dpo import SoftDPOTrainer

    return SoftDPOTrainer(model, **options), tokenizer


def _load_scorer(run: Run) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model with a head of one score, new unless the model has one, and its tokenizer."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

    settings = run.config.model
    if settings.quantization:
        raise run.document.error(
            "a reward model's new head is trained with it, and quantised weights do not train",
            ("model", "quantization"),
            "leave it out",
        )
    set_seed(run.config.seed)
    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            run.model_name, revision=settings.revision, dtype=settings.dtype, num_labels=1
        )
        tokenizer = AutoTokenizer.from_pretrained(run.model_name, revision=settings.revision)
    except (OSError, ValueError) as error:
        raise run.document.error(f"cannot be loaded: {error}", ("model", "name")) from error
    return model, tokenizer
