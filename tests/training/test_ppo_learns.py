"""PPO learns: a small Llama finds out which words are wanted."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any

import pytest

pytest.importorskip("trl")

from datasets import Dataset

from rlaif_sdk.training.ppo import PPOTrainer

COMPLETION_LENGTH = 16
WANTED = {f"w{index}" for index in range(7)}


def wanted_words_minus_length(completions: list[str], **_: Any) -> list[float]:
    """Share of wanted words, less a hundredth a word: at most 0.84, about 0.05 for random words."""
    words = [text.split() for text in completions]
    return [sum(word in WANTED for word in row) / COMPLETION_LENGTH - 0.01 * len(row) for row in words]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_small_llama_learns_which_words_are_wanted(
    make_trainer: Callable[..., PPOTrainer], make_llama: Any, record_property: Any, seed: int
) -> None:
    """In 80 rollouts of 64 completions, from random words to nearly the best possible reward of 0.84."""
    prompts = Dataset.from_dict({"prompt": [f"w{row % 28} w{row * 5 % 28}" for row in range(256)]})
    trainer = make_trainer(
        make_llama(hidden_size=64, intermediate_size=128, initializer_range=0.02),
        wanted_words_minus_length,
        train_dataset=prompts,
        per_device_train_batch_size=32,
        steps_per_generation=2,
        max_completion_length=COMPLETION_LENGTH,
        max_steps=160,
        lr_scheduler_type="constant",
        kl_coef=0.0,
        seed=seed,
    )
    trainer.train()
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert len(rewards) == 80
    figures = {rollouts: fmean(rewards[rollouts - 3 : rollouts]) for rollouts in (20, 40, 80)}
    print(f"seed {seed}: " + ", ".join(f"{reward:.3f} after {rollouts}" for rollouts, reward in figures.items()))  # noqa: T201 - for runs with -s
    record_property("rewards", figures)
    assert rewards[0] < 0.15
    assert figures[20] > 0.5
    assert figures[40] > 0.7
    assert figures[80] > 0.78
