"""The progress display of training."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

pytest.importorskip("transformers")

from rich.console import Console

from rlaif_sdk.reporting.progress import TrainingProgress


def test_a_rollout_without_scores_does_not_end_training() -> None:
    """The trainer logs None where every row is unscored: the figure is left out, the others are shown."""
    written = io.StringIO()
    state = SimpleNamespace(max_steps=8, global_step=3)
    with TrainingProgress(Console(file=written)) as display:
        display.on_train_begin(None, state, None)
        display.on_log(None, state, None, logs={"reward": None, "kl": 0.25, "completions/mean_length": 12.0})
        display.on_log(None, state, None, logs={"reward": None})
        display.on_log(None, state, None, logs=None)
    assert written.getvalue() == "step 3/8  tokens 12  KL 0.25\n"


def test_each_reward_stands_beside_the_total_with_its_failures() -> None:
    """One whose rows all failed says so, since the total alone looks sound."""
    written = io.StringIO()
    logs = {
        "reward": 0.5,
        "reward/short/raw_mean": 0.25,
        "reward/short/raw_std": 0.1,
        "reward/short/failed": 0.0,
        "reward/judge/raw_mean": None,
        "reward/judge/failed": 8.0,
    }
    state = SimpleNamespace(max_steps=8, global_step=3)
    with TrainingProgress(Console(file=written)) as display:
        display.on_train_begin(None, state, None)
        display.on_log(None, state, None, logs=logs)
    assert written.getvalue() == "step 3/8  reward 0.5  short 0.25  judge unscored (8 failed)\n"
