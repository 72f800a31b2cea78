"""Training on preferences in two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

ROOT = Path(__file__).parents[2]

SCRIPT = """\
import json, os, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, RewardConfig
from rlaif_sdk.training.dpo import SoftDPOTrainer
from rlaif_sdk.training.reward_model import SoftRewardTrainer
from tests.training.preference_models import SETTINGS, build_reward_llama, planted_pairs

torch.set_num_threads(1)
folder, world = sys.argv[1], int(os.environ.get("WORLD_SIZE", "1"))
settings = {**SETTINGS, "output_dir": folder + "/run", "max_grad_norm": 0.0}
settings |= {"per_device_train_batch_size": 4 // world, "per_device_eval_batch_size": 4 // world}
settings |= {"ddp_backend": "gloo"} if world > 1 else {}
data = {
    "train_dataset": planted_pairs(8),
    "eval_dataset": planted_pairs(11, seed=1),
    "processing_class": AutoTokenizer.from_pretrained(folder),
}
policy = AutoModelForCausalLM.from_pretrained(folder)
found = {}
for trainer in (
    SoftRewardTrainer(build_reward_llama(), args=RewardConfig(**settings), **data),
    SoftDPOTrainer(policy, args=DPOConfig(**settings), **data),
):
    trainer.train()
    metrics = trainer.evaluate()
    weights = sum(weight.double().sum().item() for weight in trainer.model.parameters())
    kept = {name: metrics["eval_" + name] for name in ("ece", "agreement", "cross_entropy", "label_distance")}
    found[type(trainer).__name__] = {**kept, "pairs": trainer.calibration.pairs, "weights": weights}
if trainer.accelerator.is_main_process:
    open(f"{folder}/found-{world}.json", "w").write(json.dumps(found))
"""


@pytest.mark.slow
def test_two_processes_train_and_judge_as_one(tmp_path: Path, llama: Any, tokenizer: Any) -> None:
    """Weights and figures are equal, and a held-out set that does not divide by two counts each pair once."""
    llama.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    alone = [sys.executable]
    together = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for start in (alone, together):
        command = [*start, str(tmp_path / "script.py"), str(tmp_path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / f"found-{world}.json").read_text()) for world in (1, 2))
    for trainer, figures in one.items():
        assert figures["pairs"] == 11
        assert two[trainer] == pytest.approx(figures, rel=1e-4), trainer
