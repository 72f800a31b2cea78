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
