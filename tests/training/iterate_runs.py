"""A closed loop on a tiny Llama, small enough for a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

REWARDS = '''\
"""Rewards of a test; every call leaves a line in a file, so that a test can count them."""

from pathlib import Path

CALLS = Path(__file__).with_name("calls.txt")


def wanted(completions, target):
    with CALLS.open("a") as stream:
        stream.write(f"{len(completions)}\\n")
    return [sum(word.startswith(start) for word in text.split()) / 8 for text, start in zip(completions, target)]
'''

TRAINER: dict[str, dict[str, Any]] = {
    "dpo": {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "beta": 0.1},
    "sft": {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2},
    "ppo": {
        "max_steps": 2,
        "per_device_train_batch_size": 8,
        "steps_per_generation": 1,
        "max_completion_length": 8,
        "learning_rate": 1e-2,
    },
    "grpo": {
        "max_steps": 2,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 8,
        "learning_rate": 1e-2,
    },
}
TRAINER["rloo"] = TRAINER["grpo"]


def loop_config(folder: Path, llama: Any, tokenizer: Any, method: str = "dpo") -> dict[str, Any]:
    """A loop over sixteen prompts, its files beside it; the reward's scale is learned, so that there is state."""
    llama.save_pretrained(folder / "start")
    tokenizer.save_pretrained(folder / "start")
    (folder / "rewards.py").write_text(REWARDS)
    rows = [{"prompt": f"w{row % 9} w3", "target": "w1"} for row in range(16)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "model": {"name": str(folder / "start")},
        "data": {"train": str(folder / "prompts.jsonl"), "held_out_rows": 4},
        "composition": {"rewards": {"wanted": {"use": f"{folder}/rewards.py:wanted", "normalize": "zscore"}}},
        "method": method,
        "candidates": {"prompts": 8, "completions": 4, "batch_size": 8, "max_completion_length": 8},
        method: {**TRAINER[method], "use_cpu": True},
        "stop": {"rounds": 2},
        "output": str(folder / "out"),
        **({"best": {"drop_truncated": False}} if method == "sft" else {}),
    }


def scored_rows(folder: Path) -> int:
    """How many completions the rewards were called with since the last count."""
    calls = folder / "calls.txt"
    counted = sum(map(int, calls.read_text().split())) if calls.exists() else 0
    calls.unlink(missing_ok=True)
    return counted
