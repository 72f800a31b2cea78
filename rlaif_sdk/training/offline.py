"""Training on given rows by one of TRL's trainers: evaluation before and after, the model saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from rlaif_sdk.exceptions import needs_extra
from rlaif_sdk.training.config import Run
from rlaif_sdk.training.methods import get_method, trainer_settings
from rlaif_sdk.training.model_card import write_model_card
from rlaif_sdk.training.models import adapter, check_trainable, save_policy
from rlaif_sdk.training.ranks import first_process, refuse_shards
from rlaif_sdk.training.run_folder import MODEL_FOLDER, RunResult, recorded, run_training, starting_point

if TYPE_CHECKING:
    from transformers import TrainerCallback


ResultT = TypeVar("ResultT", bound="OfflineResult")


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineResult(RunResult):
    """What came of a run.

    Attributes:
        held_out_rows: How many held-out rows were evaluated.
        before: What the evaluation on them measured before training, without prefixes.
        after: The same after it.
    """

    held_out_rows: int
    before: Mapping[str, float]
    after: Mapping[str, float]


def offline_defaults(run: Run) -> dict[str, Any]:
    """The defaults of the settings of all these methods."""
    return {**run.trl_defaults(), "logging_steps": 10}


def train_offline(
    run: Run,
    result: Callable[[Any, dict[str, Any]], ResultT],
    *,
    display: TrainerCallback | None,
    report: Callable[[str], None],
    on_result: Callable[[ResultT], object],
    resume: bool,
) -> ResultT:
    """Train on given rows; see `rlaif_sdk.training.methods.train`.

    The ``trainer`` of the method gives the class of the trainer, the model and its tokenizer, of the run and its rows;
    ``result`` makes what came of it, of the trainer and the fields of an `OfflineResult`. Under a launcher all processes
    train and evaluate, and the first writes.
    """
    method = get_method(run.method)
    rows = "pairs" if method.learns_from == "pairs" else "rows"
    model_folder = run.output / MODEL_FOLDER
    refuse_shards()
    checkpoint = starting_point(run, resume=resume)
    with needs_extra("train"):
        from transformers import PrinterCallback

        settings = trainer_settings(run)
        train, held_out = method.load_rows(run)

    with recorded(
        run, settings, {"train": train, "held_out": held_out}, checkpoint=checkpoint, resume=resume, report=report
    ) as results:
        report(f"loading {run.model_name}")
        kind, model, tokenizer = method.trainer(run, train)
        trainer = kind(
            model,
            args=settings,
            train_dataset=train,
            eval_dataset=held_out,
            processing_class=tokenizer,
            peft_config=adapter(run, method.task),
        )
        check_trainable(trainer.model)
        trainer.remove_callback(PrinterCallback)
        if display is not None:
            trainer.add_callback(display)
        report(f"evaluating on {len(held_out)} held-out {rows} before training")
        before = _measured(trainer.evaluate())
        report("training")
        fields = run_training(run, trainer, checkpoint, results, logged="loss")
        try:
            report(f"evaluating on {len(held_out)} held-out {rows} after training")
            after = _measured(trainer.evaluate())
        finally:  # not before, since saving merges an adapter
            report(f"saving {model_folder}")
            if method.task != "SEQ_CLS":
                save_policy(run, trainer, tokenizer, model_folder)
            elif first_process():
                trainer.save_reward(model_folder)
            if first_process():
                write_model_card(run, model_folder, steps=fields["steps"])
        made = result(trainer, {**fields, "held_out_rows": len(held_out), "before": before, "after": after})
        if first_process():
            on_result(made)
    return made


def _measured(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a trainer's evaluation without its prefix, its speed left out."""
    speed = ("runtime", "per_second", "preparation_time", "num_tokens", "epoch")
    return {name.removeprefix("eval_"): value for name, value in metrics.items() if not name.endswith(speed)}
