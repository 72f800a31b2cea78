"""Training that goes on from a checkpoint, and does no more than was asked for where the checkpoint is the last one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback


class _AllStepsDoneError(Exception):
    """Leaves the trainer's loop before an epoch in which nothing is to be done."""


class _StopAtTheLastStep(TrainerCallback):
    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        del args, control, kwargs
        if state.global_step >= state.max_steps:
            raise _AllStepsDoneError


def go_on(trainer: Any, checkpoint: Path | None) -> None:
    """Train, from a checkpoint if there is one.

    `transformers.Trainer` does one step too many where it resumes from the last step, if that ends no epoch: it looks at
    the number of steps after a step alone.

    Args:
        trainer: Of transformers' kind.
        checkpoint: The folder of the checkpoint.
    """
    if checkpoint is None:
        trainer.train()
        return
    trainer.add_callback(_StopAtTheLastStep())
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint))
    except _AllStepsDoneError:
        if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint:
            trainer._load_best_model()  # noqa: SLF001 - transformers has no public name for it
        trainer.control = trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
