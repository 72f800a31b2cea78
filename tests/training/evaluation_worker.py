"""One of two processes of ``test_evaluation_means.py``; called with a folder."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import torch
from datasets import Dataset

from rlaif_sdk import Composer
from rlaif_sdk.training.ppo import PPOConfig, PPOTrainer
from tests.training.conftest import build_llama, build_tokenizer

warnings.simplefilter("ignore")
torch.set_num_threads(1)
FOLDER, RANK = Path(sys.argv[1]), os.environ["RANK"]
scores: list[float] = []


def length(completions: list[str]) -> list[float]:
    """Keeps what it gave."""
    scores.extend(len(text) / 10 for text in completions)
    return [len(text) / 10 for text in completions]


prompts = Dataset.from_dict({"prompt": [f"w{row} w2" for row in range(8)]})
with Composer({"length": length}) as composer:
    trainer = PPOTrainer(
        build_llama(),
        composer,
        args=PPOConfig(
            str(FOLDER / "run"),
            per_device_train_batch_size=2,
            per_device_eval_batch_size=2,
            max_completion_length=8,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            log_completions=True,
        ),
        train_dataset=prompts,
        eval_dataset=prompts.select(range(5)),
        processing_class=build_tokenizer(),
    )
    metrics = trainer.evaluate()
timed = ("second", "seconds", "runtime", "time")
metrics = {name: value for name, value in metrics.items() if not name.endswith(timed)}
(FOLDER / f"rank{RANK}.json").write_text(json.dumps({"scores": scores, "metrics": metrics}))
torch.distributed.destroy_process_group()
