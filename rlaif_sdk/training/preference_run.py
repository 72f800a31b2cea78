"""Runs on preference pairs from a config: evaluation before, training, evaluation after, the model saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from rlaif_sdk.exceptions import ConfigError, DataError
from rlaif_sdk.training.config import Run, RunConfig, TableSettings
from rlaif_sdk.training.models import adapter, load_policy, save_policy
from rlaif_sdk.training.rows_run import RowsMethod, RowsResult, train_on_rows

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


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceResult(RowsResult):
    """What came of a run.

    Attributes:
        kind: ``reward_model`` or ``dpo``.
        calibration: The reliability of the trained model on the held-out pairs.
    """

    kind: Kind
    calibration: Calibration


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
    method = RowsMethod(
        kind, "pairs", partial(preference_settings, kind), partial(load_pairs, kind), partial(_trainer, kind)
    )
    fields, trainer = train_on_rows(run, method, display=display, report=report, resume=resume)
    return PreferenceResult(kind=kind, calibration=trainer.calibration, **fields)


def load_pairs(kind: Kind, run: Run) -> tuple[Dataset, Dataset]:
    """The pairs to train on, and the held-out ones, with the columns that the trainers take.

    Raises:
        RlaifError: As `rlaif_sdk.training.data.load_split`, or a pair is refused.
    """
    from rlaif_sdk.training.data import load_split

    data = run.config.data
    return load_split(data, run.folder, partial(_pairs, column=data.prompt, needs_prompt=kind == "dpo"))


def _pairs(rows: Dataset, place: str, *, column: str, needs_prompt: bool) -> Dataset:
    """The pairs of a table; the prompt may stand in the messages of both answers."""
    from rlaif_sdk.training.data import prompt_problem
    from rlaif_sdk.training.preference_data import checked_preferences, same_answers

    if column != "prompt":
        if column not in rows.column_names:
            found = ", ".join(rows.column_names)
            raise DataError(
                f"has no column {column!r}", file=place, hint=f"columns present: {found}; name one under data.prompt"
            )
        rows = rows.select_columns([name for name in (column, *COLUMNS[1:]) if name in rows.column_names])
        rows = rows.rename_column(column, "prompt")
    rows = rows.select_columns([name for name in COLUMNS if name in rows.column_names])
    checked: Dataset = checked_preferences(rows, place, needs_prompt=needs_prompt)
    same_answers(checked, place)  # which the trainer warns of
    for number, prompt in enumerate(checked["prompt"] if "prompt" in checked.column_names else (), start=1):
        if problem := prompt_problem(prompt):
            raise DataError(problem, file=place, row=number)
    return checked


def preference_settings(kind: Kind, run: Run) -> Any:
    """The trainer's settings, a `trl.RewardConfig` or `trl.DPOConfig`.

    Raises:
        ConfigError: A key is unknown, belongs elsewhere, or its value is refused.
    """
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.reward_config import RewardConfig

    settings: Any = run.trl_settings(RewardConfig if kind == "reward_model" else DPOConfig, kind, logging_steps=10)
    from rlaif_sdk.training import dpo, reward_model

    try:
        (dpo if kind == "dpo" else reward_model).check_settings(settings)
    except ConfigError as error:
        raise run.document.error(error.message, (kind, str(error.key)), error.hint) from error
    return settings


def _trainer(
    kind: Kind, run: Run, settings: Any, train: Dataset, held_out: Dataset
) -> tuple[Any, Callable[[Path], object]]:
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

        scorer = SoftRewardTrainer(model, **options)
        return scorer, scorer.save_reward
    from rlaif_sdk.training.dpo import SoftDPOTrainer

    trainer = SoftDPOTrainer(model, **options)
    return trainer, partial(save_policy, run, trainer, tokenizer)


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
