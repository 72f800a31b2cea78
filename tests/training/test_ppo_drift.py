"""Reward hacking, seen in the log while a policy trains."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from rlaif_sdk import Composer, RewardBatch, reward
from rlaif_sdk.composer import Component
from rlaif_sdk.diagnostics.drift import MIN_STEPS
from rlaif_sdk.training.ppo import PPOTrainer

Make = Callable[..., PPOTrainer]


@reward
class Rising:
    """Gives more from step to step, or less, with a noise that differs between neighbours."""

    def __init__(self, sign: int) -> None:
        self.sign = sign

    def score(self, batch: RewardBatch) -> list[float | None]:
        wavering = 4 * (batch.progress.step % 2)
        return [self.sign * (batch.progress.step + wavering + 0.1 * row) for row in range(len(batch))]


@pytest.mark.parametrize("held_out", [-1, 1])
def test_a_total_that_rises_as_a_reward_of_weight_0_falls_is_logged_and_warned_of_once(
    make_trainer: Make, llama: Any, held_out: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The statistic is in the log as soon as there are steps enough; where both rise, nothing is said."""
    rewards = {"gain": Component(Rising(1)), "judge": Component(Rising(held_out), weight=0.0)}
    with Composer(rewards) as composer, caplog.at_level(logging.WARNING, logger="rlaif_sdk"):
        trainer = make_trainer(llama, composer, max_steps=MIN_STEPS + 20, logging_steps=1, steps_per_generation=1)
        trainer.train()
    logged = {entry["step"]: entry["drift/judge"] for entry in trainer.state.log_history if "drift/judge" in entry}
    assert min(logged) == MIN_STEPS + 1
    assert (logged[max(logged)] > 5) == (held_out < 0)
    said = [record.getMessage() for record in caplog.records if "at its cost" in record.getMessage()]
    assert len(said) == (held_out < 0)
