"""Distilled RLAIF on a tiny Llama that is policy, judge and reward model, small enough for a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.training.conftest import build_llama

VOCABULARY = ["<pad>", "<eos>", "<unk>", "1", "2", "user", *(f"w{index}" for index in range(28))]
PROMPTS, HELD_OUT = 8, 4


def distill_config(folder: Path, *, chat: bool = True) -> dict[str, Any]:
    """A run over twelve prompts, its files beside it."""
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "{% for m in messages %}{{ m.role + ' ' + m.content + ' ' }}{% endfor %}"
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **special).save_pretrained(
        folder / "start"
    )
    build_llama(max_position_embeddings=512).save_pretrained(folder / "start")
    texts = [f"w{row} w3" for row in range(PROMPTS + HELD_OUT)]
    rows = [{"prompt": [{"role": "user", "content": text}] if chat else text} for text in texts]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trainer = {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "use_cpu": True}
    return {
        "model": {"name": str(folder / "start"), "dtype": "float32", "lora": {"r": 2, "alpha": 4}},
        "data": {"train": str(folder / "prompts.jsonl"), "held_out_rows": HELD_OUT},
        "candidates": {
            "prompts": PROMPTS,
            "completions": 3,
            "batch_size": 6,
            "max_completion_length": 6,
            "held_out_share": 0.25,
        },
        "label": {"judge": {"model": "$policy"}, "rows_per_call": 4, "max_failed_share": 0},
        "reward_model": {**trainer, "per_device_eval_batch_size": 4},
        "ppo": {**trainer, "steps_per_generation": 1, "per_device_eval_batch_size": 4, "max_completion_length": 6},
        "output": str(folder / "out"),
    }


def read_rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]
