"""One of two processes of ``gpu_check.py``, under FSDP; called with a folder that holds a model in ``start``."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rlaif_sdk.io.devices import own_device
from rlaif_sdk.training.ppo import PPOConfig, PPOTrainer

FOLDER, RANK = Path(sys.argv[1]), os.environ["RANK"]
trainer = PPOTrainer(
    AutoModelForCausalLM.from_pretrained(FOLDER / "start", dtype=torch.float32),
    lambda completions, **_: [1 / (1 + len(text)) for text in completions],
    args=PPOConfig(
        str(FOLDER / "run"),
        max_steps=2,
        save_steps=2,
        per_device_train_batch_size=4,
        steps_per_generation=1,
        max_completion_length=32,
        report_to=[],
    ),
    train_dataset=Dataset.from_dict({"prompt": [f"w{row} w3" for row in range(64)]}),
)
trainer.train()
placed: list[str] = []
loading = threading.Thread(target=lambda: placed.append(str(torch.zeros(1).to(own_device()).device)))
loading.start()
loading.join()
file = FOLDER / "run" / "checkpoint-2" / "value_head.safetensors"
critic = {name: weight.numel() for name, weight in load_file(file).items()} if RANK == "0" else {}
(FOLDER / f"rank{RANK}.json").write_text(json.dumps({"device": placed[0], "critic": critic}))
torch.distributed.destroy_process_group()
