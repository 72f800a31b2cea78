"""The training of a round: a run of its own, from a config made of the loop's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.io.files import write_json
from rlaif_sdk.io.tables import write_table
from rlaif_sdk.training.config import Run
from rlaif_sdk.training.iterate.config import IterateRun
from rlaif_sdk.training.iterate.training_data import label_job
from rlaif_sdk.training.methods import get_method, run_of, train, trainer_settings
from rlaif_sdk.training.run_folder import MODEL_FOLDER, can_resume

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
    method, settings = get_method(run.config.method), dict(getattr(run.config, run.config.method))
    online = method.learns_from == "prompts"
    if run.config.data.curriculum:
        unshuffled = {"train_sampling_strategy": "sequential"} if not online else {"shuffle_dataset": False}
        settings = {**unshuffled, **settings}
    # a trainer for policies answers held-out prompts too, which the loop does by itself: one of them is enough
    data = {"train": str((folder / TRAIN_ROWS).resolve()), "held_out": str((folder / HELD_OUT_ROWS).resolve())}
    model = run.with_model(policy).config.model
    config = {
        "model": {**model.model_dump(), "name": policy},
        "data": data,
        method.name: settings,
        "output": str((folder / TRAINING_FOLDER).resolve()),
        "seed": run.config.seed + number,
    }
    if online:
        config["composition"] = run.document.data["composition"]
    document = replace(run.document, data=config)
    return run_of(method.name, document, allow_changed=run.allow_changed)


def check_settings(run: IterateRun) -> None:
    """Refuse settings of the trainer before anything is generated.

    Raises:
        ConfigError: A setting is refused.
    """
    if run.config.label is not None:
        label_job(run, run.model_name, run.output)
    trainer_settings(round_run(run, run.model_name, run.output, 0))


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
    """Train a round, unless that is done; a run that was cut off resumes from its last checkpoint if it has one.

    Args:
        run: The loop.
        policy: The model to start from.
        folder: The round's folder.
        number: The round.
        rows: What to train on, and what is held back from it.
        display: See `rlaif_sdk.training.methods.train`.
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
    result = train(inner.method, inner, display=display, report=report, resume=can_resume(training))
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
