"""TRL's own reward loop: the smallest real GRPO trainer, and the code path that scores its rollouts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from rlaif_sdk import RewardBatch


def trl_rewards(
    functions: Mapping[str, Callable[..., Any]], weights: Mapping[str, float]
) -> Callable[[RewardBatch], list[float]]:
    """The totals of a batch as GRPO computes them: its reward loop, then its weighted sum."""
    vocabulary = {"<pad>": 0, "<unk>": 1, "</s>": 2, "hello": 3}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    trainer = GRPOTrainer(
        LlamaForCausalLM(config),
        reward_funcs=list(functions.values()),
        args=GRPOConfig(
            output_dir=tempfile.mkdtemp(prefix="trl-loop-"),
            use_cpu=True,
            bf16=False,
            report_to=[],
            reward_weights=[weights[name] for name in functions],
        ),
        train_dataset=Dataset.from_dict({"prompt": ["hello"] * 8}),
        processing_class=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
        ),
    )

    def score(batch: RewardBatch) -> list[float]:
        inputs = [{"prompt": prompt} for prompt in batch.prompts]
        token_ids = [[] for _ in batch.prompts]
        per_function = trainer._calculate_rewards(inputs, list(batch.prompts), list(batch.completions), token_ids)  # noqa: SLF001
        weighted: torch.Tensor = per_function * trainer.reward_weights
        return weighted.nansum(dim=1).tolist()

    return score
