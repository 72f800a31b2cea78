"""One of two processes of a launcher, or the only one; called with a scenario and a folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from tests.distributed.launched import shard_on_cpu

SCENARIO, FOLDER, RANK = sys.argv[1], Path(sys.argv[2]), int(os.environ.get("RANK", "0"))
PROCESSES = int(os.environ.get("WORLD_SIZE", "1"))
KIND, *OPTIONS = SCENARIO.split("-")

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
torch.set_num_threads(1)
if PROCESSES > 1:
    shard_on_cpu()

from datasets import Dataset  # noqa: E402
from peft import LoraConfig  # noqa: E402

from rlaif_sdk import Composer, RlaifError  # noqa: E402
from rlaif_sdk.composer import Component  # noqa: E402
from rlaif_sdk.composer.normalizers import ZScore  # noqa: E402
from rlaif_sdk.training.ppo import PPOConfig, PPOTrainer  # noqa: E402
from tests.training.conftest import BUILDERS, WORDS, build_tokenizer  # noqa: E402

STEPS = 4


def letters(completions: list[str], **_: Any) -> list[float]:
    return [len(text) / 10 + 3 * text.count("w1") for text in completions]


def trainer(folder: str, **settings: Any) -> PPOTrainer:
    torch.manual_seed(11)
    lora = (
        LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False) if KIND in ("lora", "adapted") else None
    )
    defaults = {
        "output_dir": str(FOLDER / folder),
        "max_steps": STEPS,
        "per_device_train_batch_size": 8 // PROCESSES,
        "steps_per_generation": 1,
        "max_completion_length": 8,
        "kl_coef": 0.1,
        "kl_target": 1.0,
        "kl_horizon": 50.0,
        "critic": {"separate": "separate", "adapted": "lora"}.get(KIND, "shared"),
        "logprob_batch_tokens": 25 if PROCESSES > 1 else None,  # passes of which each process would make another number
        "optim": "adamw_torch" if "adam" in OPTIONS else "sgd",
        "learning_rate": 1e-2,
        "value_learning_rate": 1e-1,
        "max_grad_norm": 0.0,
        "bf16": "bf16" in OPTIONS,
        "save_strategy": "steps",
        "save_steps": 2,
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
        "seed": 3,
        "use_cpu": PROCESSES == 1,
    }
    prompts = [" ".join(WORDS[(row + k) % 28] for k in range(1 + row % 4)) for row in range(32)]
    made = PPOTrainer(
        BUILDERS["llama"](),
        Composer({"letters": Component(letters, normalizer=ZScore())}),
        args=PPOConfig(**{**defaults, **settings}),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=build_tokenizer(),
        peft_config=lora,
    )
    if "sampled" not in OPTIONS:
        made._generate = said(made)
    return made


def said(of: PPOTrainer) -> Any:
    """Completions that depend on prompt and step only, in however many processes."""

    def generate(prompts: list[str]) -> Any:
        drawn = [hashlib.md5(f"{prompt}{of.state.global_step}".encode()).digest() for prompt in prompts]
        ids = [[*(6 + byte % 28 for byte in each[1 : 3 + each[0] % 6]), 1] for each in drawn]
        tokenizer = of._tokenizer
        return [tokenizer(p)["input_ids"] for p in prompts], ids, tokenizer.batch_decode(ids, skip_special_tokens=True)

    return generate


def logged(of: PPOTrainer) -> list[dict[str, float]]:
    names = ("loss", "kl", "reward", "grad_norm", "entropy", "kl_coef")
    return [{name: entry[name] for name in names} for entry in of.state.log_history if "kl" in entry]


def train(answer: dict[str, Any]) -> None:
    settings = {"max_approx_kl": 1e-9, "num_iterations": 2} if "early" in OPTIONS else {}
    whole = trainer("run", **settings)
    gathers = count_gathers(whole) if "sampled" in OPTIONS else None
    whole.train()
    answer["logged"] = logged(whole)
    rollout = whole._rollout
    answer["dtypes"] = {
        name: str(getattr(rollout, name).dtype)
        for name in ("old_logprobs_BT", "ref_logprobs_BT", "old_values_BT", "advantages_BT", "returns_BT")
    }
    answer["gathers"] = gathers
    whole.save_model(str(FOLDER / "final"))
    if "resumed" in OPTIONS:
        again = trainer("run", save_strategy="no")
        again.train(resume_from_checkpoint=str(FOLDER / "run" / "checkpoint-2"))
        answer["resumed"] = logged(again)[-2:]
        answer["kl_coef"] = [whole.kl_controller.coef, again.kl_controller.coef]
        again.save_model(str(FOLDER / "again"))


def count_gathers(of: PPOTrainer) -> dict[str, int]:
    """How often FSDP brings weights together while completions are sampled, and how many forward passes that is."""
    from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup

    counted = {"gathers": 0, "passes": 0}
    plain, generate, forward = FSDPParamGroup.unshard, of._generate_single_turn, of._policy.forward
    sampling = False

    def unshard(self: Any, *args: Any, **options: Any) -> Any:
        counted["gathers"] += sampling and self.is_sharded
        return plain(self, *args, **options)

    def sampled(*args: Any, **options: Any) -> Any:
        nonlocal sampling
        sampling = True
        try:
            return generate(*args, **options)
        finally:
            sampling = False

    def passed(*args: Any, **options: Any) -> Any:
        counted["passes"] += sampling
        return forward(*args, **options)

    FSDPParamGroup.unshard, of._generate_single_turn, of._policy.forward = unshard, sampled, passed
    return counted


def main() -> None:
    answer: dict[str, Any] = {}
    try:
        train(answer)
    except RlaifError as error:
        answer["refused"] = f"{type(error).__name__}: {error}"
    (FOLDER / f"rank{RANK}.json").write_text(json.dumps(answer))
    if PROCESSES > 1:
        torch.distributed.destroy_process_group()


main()
