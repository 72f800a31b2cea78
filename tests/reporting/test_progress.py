"""The progress display of training."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("transformers")

from rich.console import Console

from rlaif_sdk.reporting.progress import TrainingProgress


@pytest.fixture(autouse=True)
def two_seconds_pass_between_looks_at_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 2.0)
    monkeypatch.setattr("rlaif_sdk.reporting.progress.time.monotonic", lambda: next(clock))


def shown(*logs: Mapping[str, Any] | None, width: int = 80, step: int = 4, **options: Any) -> str:
    """What is printed of logs at one step."""
    written = io.StringIO()
    with TrainingProgress(Console(file=written, width=width, **options)) as display:
        display.on_train_begin(None, SimpleNamespace(max_steps=8, global_step=0), None)
        state = SimpleNamespace(max_steps=8, global_step=step)
        for entry in logs:
            display.on_log(None, state, None, logs=entry)
    return written.getvalue()


def test_a_rollout_without_scores_does_not_end_training() -> None:
    """The trainer logs None where every row is unscored: the number is left out, the others are shown."""
    logs = {"reward": None, "kl": 0.25, "completions/mean_length": 12.0}
    assert shown(logs, {"reward": None}, {"train_runtime": 3.0}, None) == (
        "step 4/8  0.5 s a step, 0:00:02 left\n  policy   KL 0.25\n  lengths  mean 12\n"
    )


def test_each_reward_stands_beside_the_total_with_its_failures() -> None:
    """One whose rows all failed says so, since the total alone looks sound."""
    logs = {
        "reward": 0.5,
        "reward/short/raw_mean": 0.25,
        "reward/short/raw_std": 0.1,
        "reward/short/failed": 0.0,
        "reward/judge/raw_mean": None,
        "reward/judge/failed": 8.0,
    }
    assert shown(logs).splitlines()[1:] == ["  rewards  total 0.5  short 0.25  judge unscored (8 failed)"]


GRPO = {
    "loss": 0.0123456,
    "grad_norm": 1.25,
    "learning_rate": 1e-6,
    "num_tokens": 2048.0,
    "completions/mean_length": 45.25,
    "completions/min_length": 3.0,
    "completions/max_length": 64.0,
    "completions/clipped_ratio": 0.125,
    "rewards/composed_reward/mean": 0.5,
    "reward": 0.5,
    "reward_std": 0.25,
    "frac_reward_zero_std": 0.0,
    "kl": 0.001234,
    "entropy": 1.5,
    "clip_ratio/region_mean": 0.03125,
    "reward/toxicity/raw_mean": 0.9,
    "reward/conciseness/raw_mean": 0.4,
    "reward/a_reward_with_a_long_name/raw_mean": 0.123456,
    "reward/another-one/raw_mean": -1.5,
    "reward/another-one/failed": 2.0,
}
DPO = {
    "loss": 0.69,
    "rewards/chosen": 0.1,
    "rewards/rejected": -0.1,
    "rewards/margins": 0.2,
    "rewards/accuracies": 0.75,
    "logps/chosen": -40.0,
    "mean_token_accuracy": 0.5,
    "entropy": 2.0,
}


def test_a_logged_step_is_readable_at_80_columns() -> None:
    """A line for each of rewards, policy and lengths, none wider; what a trainer logs besides is in its history."""
    assert shown(GRPO).splitlines() == [
        "step 4/8  0.5 s a step, 0:00:02 left",
        "  rewards  total 0.5  spread 0.25  toxicity 0.9  conciseness 0.4",
        "           a_reward_with_a_long_name 0.123  another-one -1.5 (2 failed)",
        "  policy   loss 0.0123  KL 0.00123  entropy 1.5  clipped 0.0312",
        "  lengths  mean 45.2  longest 64  truncated 0.125",
    ]
    assert shown(DPO).splitlines()[1:] == [
        "  rewards  chosen 0.1  rejected -0.1  margin 0.2  accuracy 0.75",
        "  policy   loss 0.69  entropy 2  token accuracy 0.5",
    ]
    assert all(len(line) <= 40 for line in shown(GRPO, width=40).splitlines())


def test_on_a_terminal_the_numbers_stand_below_the_bar() -> None:
    """And the last ones stay there."""
    written = shown(GRPO, force_terminal=True, color_system=None)
    last = written[written.rindex("training") :]
    assert "step 0/8" in last
    assert "  policy   loss 0.0123  KL 0.00123  entropy 1.5  clipped 0.0312" in last


def test_the_time_left_is_by_all_steps_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that makes a rollout takes ten times as long as the next: neither says how long the others take."""
    seconds = iter([0.0, 80.0, 90.0, 100.0])
    monkeypatch.setattr("rlaif_sdk.reporting.progress.time.monotonic", lambda: next(seconds))
    output = io.StringIO()
    state = SimpleNamespace(max_steps=10, global_step=0)
    with TrainingProgress(Console(file=output, width=80)) as progress:
        progress.on_train_begin(None, state, None)
        for step in (1, 2, 3, 4):
            state.global_step = step
            progress.on_log(None, state, None, logs={"loss": 1.0})
    said = [line for line in output.getvalue().splitlines() if line.startswith("step")]
    assert said == [
        "step 1/10",
        "step 2/10  40 s a step, 0:05:20 left",
        "step 3/10  30 s a step, 0:03:30 left",
        "step 4/10  25 s a step, 0:02:30 left",
    ]
