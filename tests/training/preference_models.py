"""Small reward models, and preference pairs with a planted rule."""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

from tests.tiny_models import WORDS

SETTINGS = {
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "max_steps": 2,
    "logging_steps": 1,
    "save_strategy": "no",
    "learning_rate": 1e-3,
    "report_to": [],
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
    "seed": 3,
}


def build_reward_llama(**overrides: Any) -> LlamaForSequenceClassification:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
    settings = {"vocab_size": 34, "num_labels": 1, "max_position_embeddings": 128, "initializer_range": 0.2}
    return LlamaForSequenceClassification(LlamaConfig(**{**settings, **shape, **ids, **overrides}))


def build_reward_bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return BertForSequenceClassification(
        BertConfig(vocab_size=34, num_labels=1, max_position_embeddings=128, pad_token_id=0, **shape)
    )


def planted_pairs(rows: int, *, seed: int = 0, strength: float = 1.0, **columns: Any) -> Dataset:
    """Pairs whose label is the logistic of how many more words of the first half of the vocabulary ``chosen`` has."""
    draw = random.Random(seed)
    pairs = []
    for _ in range(rows):
        chosen, rejected = ([draw.choice(WORDS) for _ in range(draw.randint(3, 8))] for _ in range(2))
        ahead = good_words(chosen) - good_words(rejected)
        pairs.append(
            {
                "prompt": " ".join(draw.choices(WORDS, k=draw.randint(1, 4))) + " ",
                "chosen": " ".join(chosen),
                "rejected": " ".join(rejected),
                "chosen_prob": 1 / (1 + math.exp(-strength * ahead)),
            }
        )
    dataset = Dataset.from_list(pairs)
    for name, values in columns.items():
        dataset = dataset.remove_columns([name]) if name in dataset.column_names else dataset
        dataset = dataset if values is None else dataset.add_column(name, values)
    return dataset


def good_words(words: list[str]) -> int:
    return sum(WORDS.index(word) < 14 for word in words)


def first_batch(trainer: Any) -> dict[str, Any]:
    return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


def loss_and_gradients(trainer: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The loss of a batch, and its gradient on every weight that has one."""
    trainer.model.train()
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    return loss.detach(), [weight.grad.clone() for weight in trainer.model.parameters() if weight.grad is not None]
