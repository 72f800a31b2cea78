"""The folder of a run: what its files are called, and the checkpoint in it that training goes on from."""

from __future__ import annotations

from pathlib import Path

from rlaif_sdk.training.config import Run
from rlaif_sdk.training.manifest import status_of

MODEL_FOLDER = "model"
HISTORY_FILE = "history.jsonl"
EVALUATION_FILE = "evaluation.jsonl"
SAMPLES_FILE = "samples.jsonl"


def starting_point(run: Run, key: str, *, resume: bool) -> Path | None:
    """The checkpoint that training goes on from; None begins anew.

    Args:
        run: The loaded config.
        key: The key of the config that has the trainer's settings.
        resume: Whether to go on.

    Raises:
        ConfigError: The output folder already holds a trained model or an unfinished run and is not to be resumed, or
            its run was finished; or there is nothing to resume.
        StateError: The manifest of the run that is resumed cannot be read.
    """
    model_folder = run.output / MODEL_FOLDER
    trained = model_folder.exists()
    if trained and (not resume or status_of(run.output) in {None, "finished"}):
        hint = "to train on, name it as model.name of a new run" if resume else "name another folder"
        raise run.document.error(f"{run.output} already holds a trained model", ("output",), hint)
    checkpoint = last_checkpoint(run.checkpoints)
    if not resume:
        if checkpoint is not None and status_of(run.output) is not None:
            hint = "--resume resumes it, or name another folder"
            raise run.document.error(f"{run.output} holds an unfinished run", ("output",), hint)
        return None
    if checkpoint is None:
        makes = "save_strategy and save_steps make them"
        kept = f"{model_folder} holds the model as trained; to begin anew, remove it or name another folder"
        raise run.document.error(
            f"{run.checkpoints} holds no complete checkpoint to go on from", (key,), kept if trained else makes
        )
    return checkpoint


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written whole: the trainer's state is the last file of one."""
    numbered = ((int(path.name.rpartition("-")[2]), path) for path in folder.glob("checkpoint-[0-9]*"))
    whole = [(step, path) for step, path in numbered if (path / "trainer_state.json").is_file()]
    return max(whole)[1] if whole else None
