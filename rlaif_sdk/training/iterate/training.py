"""The training of a round: a run of its own, from a config made of the loop's."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.config.documents import validate
from rlaif_sdk.io.files import write_json
from rlaif_sdk.io.tables import write_table
from rlaif_sdk.training.config import PPORun, PPORunConfig, Run
from rlaif_sdk.training.iterate.config import OFFLINE, IterateRun
from rlaif_sdk.training.iterate.training_data import label_job
from rlaif_sdk.training.online import CONFIGS as ONLINE_CONFIGS
from rlaif_sdk.training.online import OnlineRun, run_online, run_ppo
from rlaif_sdk.training.preferences import DPORunConfig, preference_settings, run_preferences
from rlaif_sdk.training.run_folder import MODEL_FOLDER, last_checkpoint
from rlaif_sdk.training.sft import SFTRunConfig, run_sft, sft_settings

if TYPE_CHECKING:
    from transformers import TrainerCallback

TRAINING_FOLDER = "training"
TRAINED_FILE = "trained.json"
TRAIN_ROWS, HELD_OUT_ROWS = "train.jsonl", "held-out.jsonl"


def round_run(run: IterateRun, policy: str, folder: Path, number: int) -> Run:
    """The run that trains a round, from the rows in the round's folder.

    Args:
        run: The loop.
        policy: The model to start from.
        folder: The round's folder.
        number: The round; it changes the seed.

    Raises:
        ConfigError: The trainer's settings are refused, with their place in the loop's file.
    """
    method, settings = run.config.method, dict(getattr(run.config, run.config.method))
    if run.config.data.curriculum:
        unshuffled = {"train_sampling_strategy": "sequential"} if method in OFFLINE else {"shuffle_dataset": False}
        settings = {**unshuffled, **settings}
    # a trainer for policies answers held-out prompts too, which the loop does by itself: one of them is enough
    data = {"train": str((folder / TRAIN_ROWS).resolve()), "held_out": str((folder / HELD_OUT_ROWS).resolve())}
    model = run.with_model(policy).config.model
    config = {
        "model": {**model.model_dump(), "name": policy},
        "data": data,
        method: settings,
        "output": str((folder / TRAINING_FOLDER).resolve()),
        "seed": run.config.seed + number,
    }
    if method not in OFFLINE:
        config["composition"] = run.document.data["composition"]
    document = replace(run.document, data=config)
    changed = run.allow_changed
    if method == "dpo":
        return Run(validate(DPORunConfig, document), document, allow_changed=changed)
    if method == "sft":
        return Run(validate(SFTRunConfig, document), document, allow_changed=changed)
    if method == "ppo":
        return PPORun(validate(PPORunConfig, document), document, allow_changed=changed)
    return OnlineRun(validate(ONLINE_CONFIGS[method], document), document, method, allow_changed=changed)


def check_settings(run: IterateRun) -> None:
    """Refuse settings of the trainer before anything is generated.

    Raises:
        ConfigError: A setting is refused.
    """
    if run.config.label is not None:
        label_job(run, run.model_name, run.output)
    trial = round_run(run, run.model_name, run.output, 0)
    if isinstance(trial, PPORun):
        trial.ppo_config()
    elif isinstance(trial, OnlineRun):
        trial.trainer_config()
    elif run.config.method == "dpo":
        preference_settings("dpo", trial)
    else:
        sft_settings(trial)


def train_round(
    run: IterateRun,
    policy: str,
    folder: Path,
    number: int,
    rows: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]],
    *,
    display: TrainerCallback | None,
    report: Any,
) -> Path:
    """Train a round, unless that is done; a run that was cut off goes on from its last checkpoint if it has one.

    Args:
        run: The loop.
        policy: The model to start from.
        folder: The round's folder.
        number: The round.
        rows: What to train on, and what is held back from it.
        display: See `rlaif_sdk.training.online.run_ppo`.
        report: Likewise.

    Returns:
        The folder of the trained model.
    """
    training = folder / TRAINING_FOLDER
    model_folder = training / MODEL_FOLDER
    if (folder / TRAINED_FILE).exists():
        return model_folder
    for name, part in zip((TRAIN_ROWS, HELD_OUT_ROWS), rows, strict=True):
        write_table(part, folder / name)
    inner = round_run(run, policy, folder, number)
    options: Any = {"display": display, "report": report, "resume": can_go_on(training)}
    result: Any
    if isinstance(inner, PPORun):
        result = run_ppo(inner, **options)
    elif isinstance(inner, OnlineRun):
        result = run_online(inner, **options)
    elif run.config.method == "dpo":
        result = run_preferences("dpo", inner, **options)
    else:
        result = run_sft(inner, **options)
    write_json(
        folder / TRAINED_FILE,
        {
            "from": policy,
            "rows": len(rows[0]),
            "steps": result.steps,
            "training_seconds": round(result.training_seconds, 1),
        },
    )
    return model_folder


def can_go_on(training: Path) -> bool:
    """Make a run's folder ready for a start, and say whether it goes on from a checkpoint.

    A model without the mark that training was finished may have been cut off while it was saved: it is removed, and
    without a checkpoint everything else of the run as well.
    """
    resume = last_checkpoint(training / "checkpoints") is not None
    shutil.rmtree(training / MODEL_FOLDER if resume else training, ignore_errors=True)
    return resume
