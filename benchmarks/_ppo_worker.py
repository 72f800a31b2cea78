"""One side of `ppo_step.py`: a trainer that takes turns, of rlaif_sdk or of TRL 1.12, on the same model and prompts."""

from __future__ import annotations

import argparse
import importlib
import os
import random
import tempfile
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}

import torch
from _turns import resident_mib, turn_taker
from _words import word_tokenizer
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

VOCABULARY = 32_000
LEARNING_RATE = 3e-6


def model_config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        num_labels=1,
    )


def build_prompts(rows: int) -> list[str]:
    """Prompts of 8 to 24 tokens."""
    draw = random.Random(0)
    return [" ".join(f"w{draw.randrange(20_000)}" for _ in range(draw.randint(8, 24))) for _ in range(rows)]


def train_ours(options: argparse.Namespace, baseline: dict[str, float]) -> None:
    """PPO of this SDK."""
    from rlaif_sdk.training.ppo import PPOConfig, PPOTrainer

    def reward(completions: list[str], **_: Any) -> list[float]:
        return [text.count("1") / options.tokens for text in completions]

    critic = {"critic": "separate"} if options.side == "critic" else {}
    trainer = PPOTrainer(
        LlamaForCausalLM(model_config()),
        reward,
        args=PPOConfig(
            per_device_train_batch_size=options.batch,
            num_iterations=options.epochs,
            max_completion_length=options.tokens,
            max_steps=1_000_000,
            learning_rate=LEARNING_RATE,
            kl_coef=0.05,
            temperature=1.0,
            logging_steps=1,
            **critic,
            **common_settings(),
        ),
        train_dataset=Dataset.from_dict({"prompt": build_prompts(1024)}),
        processing_class=word_tokenizer(VOCABULARY),
        callbacks=[turn_taker(options.epochs, baseline)],
    )
    trainer.train()


def train_trl(options: argparse.Namespace, baseline: dict[str, float]) -> None:
    """The last PPOTrainer of TRL. Its reward must be a module, here one that costs nothing."""
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    class Backbone(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
            return argparse.Namespace(hidden_states=[(input_ids[..., None] % 7).float()])

    class Reward(torch.nn.Module):
        base_model_prefix = "backbone"

        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.score = Backbone(), torch.nn.Linear(1, 1)

    tokenizer = word_tokenizer(VOCABULARY)
    rows = [{"input_ids": tokenizer(text).input_ids} for text in build_prompts(1024)]
    trainer = PPOTrainer(
        PPOConfig(
            per_device_train_batch_size=options.batch,
            num_ppo_epochs=options.epochs,
            response_length=options.tokens,
            total_episodes=1_000_000 * options.batch,
            learning_rate=LEARNING_RATE,
            kl_coef=0.05,
            temperature=1.0,
            num_sample_generations=0,
            logging_steps=1,
            **common_settings(),
        ),
        processing_class=tokenizer,
        model=LlamaForCausalLM(model_config()),
        ref_model=None,
        reward_model=Reward(),
        value_model=LlamaForSequenceClassification(model_config()),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows[: options.batch]),
        callbacks=[turn_taker(1, baseline)],
    )
    trainer.train()


def common_settings() -> dict[str, Any]:
    return {
        "output_dir": tempfile.mkdtemp(prefix="ppo-step-"),
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=["shared", "critic", "trl"], required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    importlib.import_module("trl.experimental.ppo" if options.side == "trl" else "rlaif_sdk.training.ppo.trainer")
    train = train_trl if options.side == "trl" else train_ours
    train(options, {"imports": resident_mib()[0]})


if __name__ == "__main__":
    main()
