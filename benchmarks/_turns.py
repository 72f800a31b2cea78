"""Trainers in processes of their own that take turns: each does one step when it is told to, and says what it cost.

The workers may run in different environments, so nothing here needs more than the standard library and transformers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident_mib() -> tuple[float, float]:
    """The memory of this process that is resident now, and the most that was since `forget_peak`."""
    lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="utf-8").splitlines())
    now, peak = (int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak


def forget_peak() -> None:
    """Let the peak of resident memory start again from what is resident now."""
    _CLEAR.write_text("5", encoding="utf-8")


def turn_taker(steps_a_turn: int, baseline: Mapping[str, float]) -> Any:
    """A trainer callback that hands the turn back after every ``steps_a_turn`` steps of its trainer.

    Args:
        steps_a_turn: How many optimiser steps the trainer calls a step of its own for one rollout.
        baseline: Resident memory, in MiB, at points before training; its peak is reported above each.
    """
    from transformers import TrainerCallback

    class TurnTaker(TrainerCallback):  # type: ignore[misc]  # without the library, its base is unknown
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.levels = {**baseline, "models": resident_mib()[0]}
            forget_peak()
            self._wait()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % steps_a_turn == 0:
                _say({"wall": time.perf_counter() - self.wall, "cpu": time.process_time() - self.cpu})
                if self._wait() == "stop":
                    peak = resident_mib()[1]
                    _say({f"peak above {name}": peak - level for name, level in self.levels.items()})
                    os._exit(0)

        def _wait(self) -> str:
            command = sys.stdin.readline().strip()
            self.wall, self.cpu = time.perf_counter(), time.process_time()
            return command

    return TurnTaker()


def _say(figures: Mapping[str, float]) -> None:
    print(f"turn {json.dumps(figures)}", file=sys.__stdout__, flush=True)


class Worker:
    """A process that trains in turns; it waits before its first step."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def turn(self) -> dict[str, float]:
        """Do one step: its wall and processor time in seconds."""
        return self._ask("go")

    def stop(self) -> dict[str, float]:
        """End the process: the peak of its resident memory, in MiB."""
        figures = self._ask("stop")
        self.process.wait()
        return figures

    def _ask(self, command: str) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("turn "):
                figures: dict[str, float] = json.loads(line.removeprefix("turn "))
                return figures
        raise RuntimeError(f"{self.process.args} ended with status {self.process.wait()}")
