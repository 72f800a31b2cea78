"""Reward models and DPO, trained on preference pairs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rlaif_sdk.conversations import prompt_problem
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.training.config import Run, RunConfig, TableSettings
from rlaif_sdk.training.methods import Method
from rlaif_sdk.training.models import load_policy
from rlaif_sdk.training.offline import OfflineResult, offline_defaults, train_offline

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rlaif_sdk.statistics.calibration import Calibration


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceResult(OfflineResult):
    """What came of a run.

    Attributes:
        calibration: The reliability of the trained model on the held-out pairs.
    """

    calibration: Calibration


def _result(trainer: Any, fields: dict[str, Any]) -> PreferenceResult:
    return PreferenceResult(calibration=trainer.calibration, **fields)


def _load_pairs(run: Run, *, needs_prompt: bool, **options: Any) -> tuple[Dataset, Dataset]:
    from rlaif_sdk.training.data import load_split

    data = run.config.data
    return load_split(data, run.folder, partial(_pairs, column=data.prompt, needs_prompt=needs_prompt), **options)


def _pairs(rows: Dataset, place: str, *, column: str, needs_prompt: bool) -> Dataset:
    """The pairs of a table; the prompt may stand in the messages of both answers."""
    from rlaif_sdk.training.data import check_prompt_column, checked_preferences, same_answers

    if column != "prompt":
        check_prompt_column(rows, column, place)
        rows = rows.select_columns([name for name in rows.column_names if name != "prompt"])
        rows = rows.rename_column(column, "prompt")
    checked: Dataset = checked_preferences(rows, place, needs_prompt=needs_prompt)
    checked = checked.select_columns([name for name in COLUMNS if name in checked.column_names])
    same_answers(checked, place)  # which the trainer warns of
    for number, prompt in enumerate(checked["prompt"] if "prompt" in checked.column_names else (), start=1):
        if problem := prompt_problem(prompt):
            raise DataError(problem, file=place, row=number)
    return checked


def _check_reward_model(_: Run, settings: Any) -> None:
    from rlaif_sdk.training.reward_model import check_settings

    check_settings(settings)


def _check_dpo(_: Run, settings: Any) -> None:
    from rlaif_sdk.training.dpo import check_settings

    check_settings(settings)


def _reward_model_trainer(run: Run, _: Dataset) -> tuple[Any, Any, Any]:
    from rlaif_sdk.training.reward_model import SoftRewardTrainer

    return SoftRewardTrainer, *_load_scorer(run)


def _dpo_trainer(run: Run, _: Dataset) -> tuple[Any, Any, Any]:
    from rlaif_sdk.training.dpo import SoftDPOTrainer

    return SoftDPOTrainer, *load_policy(run)


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
            run.model_name, dtype=settings.dtype, num_labels=1, **settings.loading
        )
        tokenizer = AutoTokenizer.from_pretrained(run.model_name, revision=settings.revision)
    except (OSError, ValueError) as error:
        raise run.document.error(f"cannot be loaded: {error}", ("model", "name")) from error
    return model, tokenizer


_PreferenceMethod = partial(
    Method,
    run=Run,
    learns_from="pairs",
    defaults=offline_defaults,
    train=partial(train_offline, result=_result),
    report="rlaif_sdk.reporting.training_report:report_offline",
)
REWARD_MODEL = _PreferenceMethod(
    name="reward_model",
    config=RewardModelRunConfig,
    settings="trl.trainer.reward_config:RewardConfig",
    check=_check_reward_model,
    load_rows=partial(_load_pairs, needs_prompt=False),
    trainer=_reward_model_trainer,
    task="SEQ_CLS",
    skips_long_rows=True,
    keeps_reference=lambda _: False,
)
DPO = _PreferenceMethod(
    name="dpo",
    config=DPORunConfig,
    settings="trl.trainer.dpo_config:DPOConfig",
    check=_check_dpo,
    load_rows=partial(_load_pairs, needs_prompt=True),
    trainer=_dpo_trainer,
    keeps_reference=lambda settings: not settings.precompute_ref_log_probs,
)
