"""A callback that ends training when an alarm says so, keeps the last good checkpoint, and writes down what was found.

For any trainer of transformers' kind: TRL's, `rlaif_sdk.PPOTrainer`, and `rlaif train`, which adds it by itself.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from rlaif_sdk.composer import Composer
from rlaif_sdk.exceptions import AlarmError, ConfigError
from rlaif_sdk.io.files import atomic_folder
from rlaif_sdk.io.tables import read_rows, write_table

FILE = "alarms.jsonl"
FOLDER = "alarms"
GOOD = "good"


class AlarmCallback(TrainerCallback):
    """Has a trainer do what the alarm of a composer says.

    Each alarm becomes a line of ``alarms.jsonl``, and its rows a table in ``alarms/``, of which `rlaif review` shows those
    with two answers. A run is paused with a checkpoint, which holds the composer's state, or stopped without one, after the
    last update from the batch that raised the alarm. While an alarm may end the run, the newest checkpoint at which
    nothing was amiss is kept as ``alarms/good/checkpoint-N``, by hard links, so that ``save_total_limit`` does not remove it.

    Example::

        rewards = Composer.from_config("rewards.yaml")
        trainer = GRPOTrainer(..., reward_funcs=rewards.for_trl(), callbacks=[AlarmCallback(rewards)])
        trainer.train()

    Args:
        composer: What scores, with an alarm.
        folder: Where to write; the trainer's ``output_dir`` if None.

    Raises:
        ConfigError: The composer has no alarm.
    """

    def __init__(self, composer: Composer, folder: str | Path | None = None) -> None:
        if composer.alarm is None:
            raise ConfigError("the composer has no alarm", key="alarm", hint="give it one, or leave the callback out")
        self._alarm = composer.alarm
        self._alarm.trainer_stops = True
        self._folder = None if folder is None else Path(folder)
        self._written = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write down new alarms, and end training where one says so."""
        if state.is_world_process_zero:
            self._write(self._place(args))
        stopped_by = self._alarm.stopped_by
        if stopped_by is None or state.global_step % getattr(args, "updates_per_rollout", 1):
            return
        control.should_training_stop = True
        control.should_save = stopped_by.action == "pause"

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the newest checkpoint at which nothing was amiss."""
        del control
        if not (self._alarm.halts and state.is_world_process_zero):
            return
        kept = self._place(args) / FOLDER / GOOD
        saved = {_step(path): path for path in Path(args.output_dir).glob("checkpoint-[0-9]*")}
        good = max((step for step in saved if step <= self._alarm.good), default=None)
        if good is None or (kept / f"checkpoint-{good}").exists():
            return
        with atomic_folder(kept / f"checkpoint-{good}") as copy:
            shutil.copytree(saved[good], copy, copy_function=_link, dirs_exist_ok=True)
        for path in kept.glob("checkpoint-[0-9]*"):
            if _step(path) < good:
                shutil.rmtree(path)

    def end_run(self, resume: str) -> None:
        """End a run that is paused or stopped; nothing where it is not.

        Args:
            resume: The command that resumes it.

        Raises:
            AlarmError: It is; the hint says what is left and how to resume.
        """
        stopped_by = self._alarm.stopped_by
        if stopped_by is None or self._folder is None:
            return
        rows = self._folder / FOLDER / f"{stopped_by.watch}-{stopped_by.step}.jsonl"
        if stopped_by.action == "pause":
            raise AlarmError(str(stopped_by), hint=f"look at {rows}, then resume with: {resume}")
        good = [*(self._folder / FOLDER / GOOD).glob("checkpoint-[0-9]*")]
        left = f"the last good checkpoint is {good[0]}" if good else "no checkpoint was saved while nothing was amiss"
        raise AlarmError(str(stopped_by), hint=f"{left}; look at {rows}, and begin a new run with other rewards")

    def _place(self, args: Any) -> Path:
        return Path(args.output_dir) if self._folder is None else self._folder

    def _write(self, folder: Path) -> None:
        new = self._alarm.raised[self._written :]
        if not new:
            return
        self._written += len(new)
        file = folder / FILE
        before = [*read_rows(file)] if file.exists() else []
        write_table([*before, *(raised.record() for raised in new)], file)
        for raised in new:
            if raised.examples:
                rows = (example.record() for example in raised.examples)
                write_table(rows, folder / FOLDER / f"{raised.watch}-{raised.step}.jsonl")


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _link(source: str, target: str) -> None:
    """Hard-link a file, or copy it where the file system has no links."""
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)
