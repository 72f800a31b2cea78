"""A progress display for training, as a callback of transformers' trainers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback

SHOWN = {"reward": "reward", "completions/mean_length": "tokens", "kl": "KL"}
"""The logged numbers that stand beside the bar, with their labels."""


class TrainingProgress(TrainerCallback):
    """A bar over the optimiser steps, with the latest reward, answer length and divergence beside it.

    Where the output is no terminal it prints a line a logged step instead. Use it as a context manager, so that the
    terminal is left in order when training is interrupted.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        console.file = console.file  # rich's own while it is live: see PrintableStream
        self._latest: dict[str, float] = {}
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the bar."""
        del args, control, kwargs
        self._bar.start()
        self._task = self._bar.add_task("", total=state.max_steps, completed=state.global_step, numbers="")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        del args, control, kwargs
        self._bar.update(self._task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Note the latest numbers."""
        del args, control, kwargs
        logs = logs or {}  # None stands for a number that nothing is known of, such as the reward of unscored rows
        found = {label: logs[key] for key, label in SHOWN.items() if logs.get(key) is not None}
        if not found:
            return
        numbers = "  ".join([*(f"{label} {value:.3g}" for label, value in found.items()), *_rewards(logs)])
        self._bar.update(self._task, numbers=numbers)
        if not self._console.is_terminal:
            self._console.print(f"step {state.global_step}/{state.max_steps}  {numbers}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the bar as it is."""
        del args, state, control, kwargs
        self._bar.stop()


def _rewards(logs: Mapping[str, Any]) -> Iterator[str]:
    """Each reward's mean in its own units, and the number of rows on which it failed: ``brevity 0.4 (2 failed)``."""
    for key, mean in logs.items():
        name = key.removeprefix("reward/").removesuffix("/raw_mean")
        if key != f"reward/{name}/raw_mean":
            continue
        failed = logs.get(f"reward/{name}/failed") or 0.0
        shown = "unscored" if mean is None or math.isnan(mean) else f"{mean:.3g}"
        yield f"{name} {shown}" + (f" ({failed:g} failed)" if failed else "")
