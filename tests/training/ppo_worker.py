"""One of two processes of ``test_ppo_processes.py``; called with a scenario and a folder."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import save_file

from rlaif_sdk import Composer
from rlaif_sdk.composer import Component
from rlaif_sdk.composer.normalizers import ZScore
from rlaif_sdk.training.ppo import PPOConfig, PPOTrainer
from rlaif_sdk.training.ppo.checkpoint import CheckpointState
from tests.training.conftest import BUILDERS, WORDS, build_tokenizer

warnings.simplefilter("ignore")
torch.set_num_threads(1)
SCENARIO, FOLDER, RANK = sys.argv[1], Path(sys.argv[2]), int(os.environ["RANK"])
KIND, VARIANT = SCENARIO.split("-")


def letters(completions: list[str], log_metric: Any, log_extra: Any, **_: Any) -> list[float]:
    log_metric("process", RANK)
    log_extra(f"length{RANK}", [len(text) for text in completions])
    log_extra("process", [RANK] * len(completions))
    return [len(text) / 10 + 3 * text.count("w1") for text in completions]


def composer() -> Composer:
    return Composer({"letters": Component(letters, normalizer=ZScore())})


def trainer(scores: Composer, **settings: Any) -> PPOTrainer:
    model = BUILDERS[KIND]()
    lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, fan_in_fan_out=KIND == "gpt2")
    defaults = {
        "output_dir": str(FOLDER / "run"),
        "per_device_train_batch_size": 4,
        "steps_per_generation": settings.get("gradient_accumulation_steps", 1),
        "max_completion_length": 8,
        "temperature": 3.0,
        "kl_coef": 0.1,
        "kl_target": 1.0,
        "kl_horizon": 50.0,
        "critic": "separate" if VARIANT == "separate" else "shared",
        "optim": "sgd",
        "learning_rate": 1e-2,
        "value_learning_rate": 1e-1,
        "score_normalization": "running",
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 3,
    }
    prompts = [" ".join(WORDS[(row + k) % 28] for k in range(1 + row % 4)) for row in range(16)]
    made = PPOTrainer(
        model,
        scores,
        args=PPOConfig(**{**defaults, **settings}),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=build_tokenizer(),
        peft_config=lora if VARIANT == "lora" else None,
    )
    if VARIANT == "lora":  # whose first weights differ from process to process until training begins
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in made.model.named_parameters():
                if "lora_B" in name:
                    parameter.zero_()
                elif "lora_A" in name:
                    parameter.normal_(std=0.2)
        torch.manual_seed(RANK)
    return made


def weights(of: PPOTrainer) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in of.model.named_parameters()}


def losses(of: PPOTrainer) -> list[float]:
    return [entry["loss"] for entry in of.state.log_history if "loss" in entry]


def main() -> None:
    answer: dict[str, Any] = {}
    composers = [composer() for _ in range(4)]

    # One step of both, which is then done again by one process with the rows of both.
    stepping = trainer(composers[0], max_steps=1, log_completions=True)
    if RANK == 0:
        save_file(weights(stepping), FOLDER / "start.safetensors")
    generated: list[Any] = []
    generate = stepping._generate

    def remembered(prompts: list[Any]) -> Any:
        generated.append([prompts, *generate(prompts)])
        return generated[-1][1:]

    stepping._generate = remembered
    stepping.train()
    save_file(weights(stepping), FOLDER / f"step{RANK}.safetensors")
    answer["prompts"] = generated[0][0]
    answer["completions"] = generated[0][3]
    answer["together"] = figures(stepping)
    answer["extra"] = {name: list(values) for name, values in stepping._logs["extra"].items()}
    parts: list[Any] = [None, None]
    torch.distributed.all_gather_object(parts, generated[0])

    whole = trainer(
        composers[1], max_steps=4, save_strategy="steps", save_steps=2, gradient_accumulation_steps=2, num_iterations=2
    )
    written: list[str] = []
    save = CheckpointState.save
    CheckpointState.save = lambda self, folder, *rest: (written.append(str(folder)), save(self, folder, *rest))[1]
    whole.train()
    save_file(weights(whole), FOLDER / f"end{RANK}.safetensors")
    resumed = trainer(composers[2], max_steps=4, save_strategy="no", gradient_accumulation_steps=2, num_iterations=2)
    resumed.train(resume_from_checkpoint=str(FOLDER / "run" / "checkpoint-2"))
    logged = [
        {name: value for name, value in entry.items() if "time" not in name and "seconds" not in name}
        for entry in whole.state.log_history
        if "reward" in entry
    ]
    answer |= {
        "kl_coef": whole.kl_controller.coef,
        "composer": composers[1].state_dict(),
        "normalizer": whole.score_normalizer.state_dict(),
        "logged": [{k: v for k, v in entry.items() if "second" not in k} for entry in logged],
        "scored": 16,
        "losses_after_resuming": losses(whole)[2:],
        "resumed": losses(resumed)[2:],
        "written": bool(written),
    }

    torch.distributed.destroy_process_group()
    answer["single"] = alone(parts, composers[3]) if RANK == 0 else None
    (FOLDER / f"rank{RANK}.json").write_text(json.dumps(answer))
    for used in composers:
        used.close()


def figures(of: PPOTrainer) -> dict[str, float]:
    entry = of.state.log_history[0]
    names = ("kl", "kl_per_token", "values/explained_variance", "returns/mean", "reward/letters/raw_mean", "reward")
    return {name: entry[name] for name in names} | {"loss": entry["loss"]}


def alone(parts: list[Any], scores: Composer) -> dict[str, float]:
    """One process with the rows of both."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)
    single = trainer(scores, max_steps=1, per_device_train_batch_size=8)
    joined = [[row for part in parts for row in part[field]] for field in range(4)]
    single._generate = lambda _: joined[1:]
    collect = single._collect
    single._collect = lambda _: collect([{"prompt": prompt} for prompt in joined[0]])
    single.train()
    save_file(weights(single), FOLDER / "single.safetensors")
    return figures(single)


main()
