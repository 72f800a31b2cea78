"""A progress display for training, as a callback of transformers' trainers."""

from __future__ import annotations

import math
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text
from transformers import TrainerCallback

SHOWN: Mapping[str, Mapping[str, str]] = {
    "rewards": {
        "reward": "total",
        "reward_std": "spread",
        "rewards/chosen": "chosen",
        "rewards/rejected": "rejected",
        "rewards/margins": "margin",
        "rewards/accuracies": "accuracy",
    },
    "policy": {
        "loss": "loss",
        "kl": "KL",
        "entropy": "entropy",
        "clip_ratio/region_mean": "clipped",
        "clip_ratio/policy": "clipped",
        "mean_token_accuracy": "token accuracy",
    },
    "lengths": {
        "completions/mean_length": "mean",
        "completions/max_length": "longest",
        "completions/clipped_ratio": "truncated",
    },
}
"""The logged numbers that are shown, in groups of a line each, with their labels."""
_WIDTH = max(map(len, SHOWN))
_WHOLE_RUN = 1e9
"""Seconds over which the bar takes a step's mean: one that makes a rollout takes many times as long as the others."""


class _BarWithLines(Progress):
    """A bar with lines below it."""

    lines: Sequence[str] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield from map(Text, self.lines)


class TrainingProgress(TrainerCallback):
    """A bar over the optimiser steps, and below it the latest rewards, losses and lengths, a line each.

    Where the output is no terminal these lines are printed at each logged step instead, with the speed. Use it as a context
    manager, so that the terminal is left in order when training is interrupted.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        console.file = console.file  # rich's own while it is live: see PrintableStream
        self._began = (0, 0.0)
        self._bar = _BarWithLines(
            TextColumn("training"),
            BarColumn(),
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=_WHOLE_RUN,
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
        self._task = self._bar.add_task("", total=state.max_steps, completed=state.global_step)
        self._began = (state.global_step, time.monotonic())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        del args, control, kwargs
        self._bar.update(self._task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Note the latest numbers."""
        del args, control, kwargs
        lines = [line for group, numbers in _groups(logs or {}) for line in _lines(group, numbers, self._console.width)]
        if not lines:
            return
        self._bar.lines = lines
        if not self._console.is_terminal:
            first = f"step {state.global_step}/{state.max_steps}{self._speed(state.global_step, state.max_steps)}"
            self._console.print(*(Text(line) for line in (first, *lines)), sep="\n")

    def _speed(self, step: int, steps: int) -> str:
        """The mean seconds of a step so far, and how long the others take so; nothing of the first, which may make a rollout."""
        before, then = self._began
        if step <= before + 1:
            return ""
        seconds = (time.monotonic() - then) / (step - before)
        return f"  {seconds:.3g} s a step, {timedelta(seconds=round(seconds * (steps - step)))} left"

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the bar as it is."""
        del args, state, control, kwargs
        self._bar.stop()


def _lines(group: str, numbers: Sequence[str], width: int) -> list[str]:
    """A group's numbers in lines of a width, each number whole."""
    whole = "  ".join(number.replace(" ", "\xa0") for number in numbers)
    indent = " " * (_WIDTH + 4)
    lines = textwrap.wrap(f"  {group:<{_WIDTH}}  {whole}", width, subsequent_indent=indent, break_on_hyphens=False)
    return [line.replace("\xa0", " ") for line in lines]


def _groups(logs: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """The numbers of each group that has any; None stands for one that nothing is known of, such as an unscored reward."""
    for group, labels in SHOWN.items():
        numbers = [f"{label} {logs[key]:.3g}" for key, label in labels.items() if logs.get(key) is not None]
        if group == "rewards":
            numbers += _rewards(logs)
        if numbers:
            yield group, numbers


def _rewards(logs: Mapping[str, Any]) -> Iterator[str]:
    """Each reward's mean in its own units, and the number of rows on which it failed: ``brevity 0.4 (2 failed)``."""
    for key, mean in logs.items():
        name = key.removeprefix("reward/").removesuffix("/raw_mean")
        if key != f"reward/{name}/raw_mean":
            continue
        failed = logs.get(f"reward/{name}/failed") or 0.0
        shown = "unscored" if mean is None or math.isnan(mean) else f"{mean:.3g}"
        yield f"{name} {shown}" + (f" ({failed:g} failed)" if failed else "")
