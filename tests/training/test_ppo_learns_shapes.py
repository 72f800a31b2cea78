"""PPO learns with policies in the shape of Llama, GPT-2 and Flan-T5, under either kind of critic."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any

import pytest

pytest.importorskip("trl")

from datasets import Dataset

from rlaif_sdk.training.ppo import PPOTrainer

COMPLETION_LENGTH = 12
WANTED = {f"w{index}" for index in range(7)}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 64, "intermediate_size": 128, "initializer_range": 0.02},
    "gpt2": {"n_embd": 64, "initializer_range": 0.02},
    "t5": {"d_model": 64, "d_kv": 16, "d_ff": 128, "initializer_factor": 0.1},
}


def wanted_words_minus_length(completions: list[str], **_: Any) -> list[float]:
    """Share of wanted words, less a hundredth a word: at most 0.88, about 0.05 for random words."""
    words = [text.split() for text in completions]
    return [sum(word in WANTED for word in row) / COMPLETION_LENGTH - 0.01 * len(row) for row in words]


@pytest.mark.slow
@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
def test_a_small_policy_learns_which_words_are_wanted(
    make_trainer: Callable[..., PPOTrainer], build_model: Any, record_property: Any, kind: str, critic: str
) -> None:
    """In 40 rollouts of 64 completions, from random words to most of the reward that there is."""
    prompts = Dataset.from_dict({"prompt": [f"w{row % 28} w{row * 5 % 28}" for row in range(256)]})
    trainer = make_trainer(
        build_model(kind, **SHAPES[kind]),
        wanted_words_minus_length,
        train_dataset=prompts,
        per_device_train_batch_size=32,
        steps_per_generation=2,
        max_completion_length=COMPLETION_LENGTH,
        max_steps=80,
        learning_rate=2e-3,
        lr_scheduler_type="constant",
        kl_coef=0.0,
        critic=critic,
    )
    trainer.train()
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    figures = {rollouts: fmean(rewards[max(0, rollouts - 3) : rollouts]) for rollouts in (1, 10, 20, 40)}
    print(f"{kind}, {critic}: " + ", ".join(f"{reward:.3f} after {rollouts}" for rollouts, reward in figures.items()))  # noqa: T201 - for runs with -s
    record_property("rewards", figures)
    assert figures[1] < 0.15
    assert figures[40] > 0.6
