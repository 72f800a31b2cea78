"""Settings of a short PPO run, a recorded composer, small rewards, and what tests ask of a finished run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig

from rlaif_sdk import Composer, RewardBatch
from rlaif_sdk.training.ppo import PPOTrainer

TWO_STEPS = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "steps_per_generation": 1,
    "per_device_eval_batch_size": 4,
    "max_completion_length": 8,
    "use_cpu": True,
}


class Recorder:
    """Wraps a composer and keeps the batches that it is given."""

    def __init__(self, score: Callable[[RewardBatch], list[float | None]], name: str = "recorded") -> None:
        self.batches: list[RewardBatch] = []
        self.composer = Composer({name: lambda prompts, completions: score(self.batches[-1])})

    def compose(self, batch: RewardBatch) -> Any:
        self.batches.append(batch)
        return self.composer.compose(batch)


def by_length(batch: RewardBatch) -> list[float | None]:
    return [len(ids) / 8 for ids in batch.completion_ids or []]


def by_rule(completions: list[str], **_: Any) -> list[float]:
    return [len(text) / 40 for text in completions]


def rollouts_of(trainer: PPOTrainer) -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if "reward" in entry]


def lora(model: Any) -> LoraConfig:
    return LoraConfig(
        r=4,
        lora_alpha=8,
        lora_dropout=0.1,
        target_modules="all-linear",
        task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
        fan_in_fan_out=model.config.model_type == "gpt2",
    )


def state_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
