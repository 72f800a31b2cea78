"""Supervised fine-tuning from a config, the phase before training on rewards: TRL trains, the model is saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rlaif_sdk.training.config import Run, RunConfig
from rlaif_sdk.training.models import adapter, load_policy, save_policy
from rlaif_sdk.training.rows_run import RowsMethod, RowsResult, train_on_rows
from rlaif_sdk.training.run import check_chat_template
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTResult(RowsResult):
    """What came of a run.

    The evaluations measure ``loss`` in nats a token, ``mean_token_accuracy`` and ``entropy``, as TRL means them of a batch;
    batches weigh by their rows.
    """


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
    method = RowsMethod("sft", "rows", sft_settings, load_sft_rows, _trainer)
    fields, _ = train_on_rows(run, method, display=display, report=report, resume=resume)
    return SFTResult(**fields)


def sft_settings(run: Run) -> Any:
    """The trainer's settings, a `trl.SFTConfig`.

    Raises:
        ConfigError: A key is unknown, belongs elsewhere, or its value is refused.
    """
    from trl.trainer.sft_config import SFTConfig

    return run.trl_settings(SFTConfig, "sft", logging_steps=10)


def load_sft_rows(run: Run) -> tuple[Dataset, Dataset]:
    """The rows to imitate, and the held-out ones.

    Raises:
        RlaifError: As `rlaif_sdk.training.data.load_split`, or a row is refused.
    """
    from rlaif_sdk.training.data import load_split

    data = run.config.data
    return load_split(data, run.folder, partial(sft_rows, settings=data))


def _trainer(run: Run, settings: Any, train: Dataset, held_out: Dataset) -> tuple[Any, Callable[[Path], object]]:
    from trl.trainer.sft_trainer import SFTTrainer

    from rlaif_sdk.training.evaluation_means import over_rows

    model, tokenizer = load_policy(run)
    check_chat_template(run, tokenizer, needed=is_conversational(train))
    trainer = over_rows(SFTTrainer)(
        model,
        args=settings,
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=adapter(run),
    )
    return trainer, partial(save_policy, run, trainer, tokenizer)
