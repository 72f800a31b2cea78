"""TRL's GRPO trains on a server that learns: the steps are those of a composer in its own process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("trl")

from datasets import Dataset

from rlaif_sdk import Composer
from tests.integrations.conftest import build_llama
from tests.serving.loopback import serving

STEPS, GROUPS, GENERATIONS = 3, 4, 4


def wanted(completions: list[str]) -> list[float]:
    return [float(sum(word < "w20" for word in text.split())) for text in completions]


def words(completions: list[str]) -> list[float]:
    return [float(len(set(text.split()))) for text in completions]


CONFIG = {
    "rewards": {
        "wanted": {"use": f"{__name__}:wanted", "normalize": "group_zscore"},
        "words": {
            "use": f"{__name__}:words",
            "normalize": "zscore",
            "weight": {"schedule": "linear", "from": 0.1, "to": 1, "end": STEPS},
        },
    },
    "constraints": [{"reward": "words", "min": 6.0, "step_size": 0.5}],
}
"""A group's comparison, a running statistic, a schedule by step and a multiplier: all that depends on where it is learned."""


def rewards_of(make_trainer: Callable[..., Any], composer: Composer) -> list[float]:
    """Each step's mean reward, and after them the standard deviations."""
    trainer = make_trainer(
        "grpo",
        composer.for_trl(),
        model=build_llama(),
        train_dataset=Dataset.from_dict({"prompt": [f"w{row % 28} w{row * 5 % 28}" for row in range(64)]}),
        per_device_train_batch_size=GROUPS * GENERATIONS,
        num_generations=GENERATIONS,
        max_completion_length=8,
        max_steps=STEPS,
        learning_rate=1e-3,
        seed=3,
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    return [entry[name] for name in ("reward", "reward_std") for entry in logged]


@pytest.mark.slow
def test_grpo_trains_on_a_server_that_learns(make_trainer: Callable[..., Any]) -> None:
    """Rewards step by step, with what was learned before, the schedule's weight and the multiplier at each."""
    with Composer.from_config(CONFIG) as composer:
        expected = rewards_of(make_trainer, composer)
    with serving(CONFIG, cohort=True) as server:
        remote = {"remote": {"params": {"url": server.url, "scope": "group"}}}
        with Composer.from_config({"rewards": remote}) as composer:
            found = rewards_of(make_trainer, composer)
        learned = server.app.state.service.learned()
    assert len(found) == 2 * STEPS
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert learned["groups_scored"] == STEPS * GROUPS
    assert learned["constraints"]["words/min"]["state"]["multiplier"] > 0, "after a step in which it was broken"
