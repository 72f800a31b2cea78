"""How fast PPO with its default settings learns a small task, beside TRL's RLOO and GRPO with theirs.

A small Llama with random weights is paid for wanted words and pays for length: the most is 0.84. Each trainer samples 64
completions a rollout and has 80 rollouts. The task's own settings, the same for all: no KL penalty and a learning rate
that stays constant. Every rate of a grid is shown for every trainer, so that none is chosen to suit one of them. By
default PPO makes two updates of a rollout and the other two make one, so all three are also shown at the same number.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
from _report import save
from _words import word_tokenizer
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from rlaif_sdk.training.ppo import PPOConfig, PPOTrainer

WORDS = [f"w{index}" for index in range(28)]
WANTED = frozenset(WORDS[:7])
VOCABULARY, LENGTH, ROLLOUT = 34, 16, 64
TRAINERS: Mapping[str, tuple[Any, Any, Mapping[str, Any]]] = {
    "PPO": (PPOTrainer, PPOConfig, {"kl_coef": 0.0}),
    "RLOO": (RLOOTrainer, RLOOConfig, {"beta": 0.0}),
    "GRPO": (GRPOTrainer, GRPOConfig, {"beta": 0.0}),
}


class Run(NamedTuple):
    """What one run showed, rollout by rollout, and the processor seconds until then."""

    rewards: list[float]
    tokens: list[float]
    clock: list[float]
    divergence: list[float]

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.clock[-1]

    def reward_at(self, rollout: int) -> float:
        """The mean reward of the three rollouts up to this one."""
        return statistics.mean(self.rewards[rollout - 3 : rollout])

    def first_at(self, wanted: float) -> int | None:
        """The first rollout up to which the reward is as wanted."""
        return next((at for at in range(3, len(self.rewards) + 1) if self.reward_at(at) >= wanted), None)


class Clock(TrainerCallback):
    """Reads the processor's seconds after each rollout that is logged."""

    def __init__(self) -> None:
        self.read: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        if "reward" in logs:
            self.read.append(time.process_time())


def reward(completions: list[str], **_: Any) -> list[float]:
    """A sixteenth for each wanted word, less a hundredth for each word."""
    texts = [text.split() for text in completions]
    return [sum(word in WANTED for word in words) / LENGTH - 0.01 * len(words) for words in texts]


def build_model(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
    )


def grpo_trainer(rewards: Any, seed: int, rollouts: int, folder: str) -> GRPOTrainer:
    """GRPO on the task, in groups of 8 and with one update a rollout, by rewards as TRL takes them."""
    trainer = GRPOTrainer(
        build_model(seed),
        reward_funcs=rewards,
        args=GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=ROLLOUT,
            num_generations=8,
            max_completion_length=LENGTH,
            max_steps=rollouts,
            learning_rate=3e-3,
            lr_scheduler_type="constant",
            beta=0.0,
            seed=seed,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict(
            {"prompt": [f"{WORDS[row % 28]} {WORDS[(row * 5) % 28]}" for row in range(256)]}
        ),
        processing_class=word_tokenizer(VOCABULARY, roles=["user", "assistant", "system"]),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def run(
    name: str,
    *,
    seed: int,
    learning_rate: float,
    rollouts: int,
    updates: int = 1,
    tried: Mapping[str, Any] | None = None,
) -> Run:
    """Train once, with so many updates a rollout, each on its share of the completions, and with settings to try."""
    trainer_class, config_class, settings = TRAINERS[name]
    settings = {"num_iterations": 1, "lr_scheduler_type": "constant", **settings, **(tried or {})}
    prompts = [f"{WORDS[row % 28]} {WORDS[(row * 5) % 28]}" for row in range(256)]
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_class(
            build_model(seed),
            reward_funcs=reward,
            args=config_class(
                output_dir=folder,
                per_device_train_batch_size=ROLLOUT // updates,
                steps_per_generation=updates,
                max_completion_length=LENGTH,
                max_steps=rollouts * updates * settings["num_iterations"],
                learning_rate=learning_rate,
                seed=seed,
                logging_steps=1,
                save_strategy="no",
                report_to=[],
                use_cpu=True,
                bf16=False,
                disable_tqdm=True,
                **settings,
            ),
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=word_tokenizer(VOCABULARY, roles=["user", "assistant", "system"]),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(clock := Clock())
        since = time.process_time()
        trainer.train()
    logs = [entry for entry in trainer.state.log_history if "reward" in entry]
    return Run(
        [entry["reward"] for entry in logs],
        [ROLLOUT * entry["completions/mean_length"] for entry in logs],
        [read - since for read in clock.read],
        [entry.get("kl", math.nan) for entry in logs],
    )


def default_updates(name: str) -> int:
    """The updates that a trainer makes of a rollout unless it is told otherwise."""
    _, config_class, settings = TRAINERS[name]
    with tempfile.TemporaryDirectory() as folder:
        made = config_class(folder, per_device_train_batch_size=ROLLOUT, use_cpu=True, bf16=False, **settings)
    return int(made.steps_per_generation)


def summary(runs: list[Run], at: list[int]) -> dict[str, Any]:
    """The figures of one trainer at one learning rate, over its seeds."""
    rewards = {rollout: [one.reward_at(rollout) for one in runs] for rollout in at}
    reached = [one.first_at(0.6) for one in runs]
    known = [(one, first) for one, first in zip(runs, reached, strict=True) if first is not None]
    all_reach = len(known) == len(runs)
    return {
        "mean reward": {rollout: statistics.mean(each) for rollout, each in rewards.items()},
        "worst seed": {rollout: min(each) for rollout, each in rewards.items()},
        "tokens to 0.6": statistics.mean(sum(one.tokens[:first]) for one, first in known) if all_reach else None,
        "processor seconds to 0.6": statistics.mean(one.clock[first - 1] for one, first in known)
        if all_reach
        else None,
        "processor seconds": statistics.mean(one.seconds for one in runs),
    }


def lead(own: list[Run], other: list[Run], rollout: int) -> tuple[float, float]:
    """By how much the first is ahead at a rollout, seed by seed: the mean, and its standard error."""
    leads = [one.reward_at(rollout) - two.reward_at(rollout) for one, two in zip(own, other, strict=True)]
    return statistics.mean(leads), statistics.stdev(leads) / len(leads) ** 0.5


def row(rate: float, name: str, updates: int, sides: Mapping[str, list[Run]], at: list[int]) -> tuple[Any, str]:
    """The figures of a trainer beside PPO's, and their line in a table."""
    figures = summary(sides[name], at)
    ahead = lead(sides["PPO"], sides[name], 20)
    cells = [*figures["mean reward"].values(), *list(figures["worst seed"].values())[-2:]]
    shown = [f"{rate:g}", name, str(updates), *(f"{cell:.3f}" for cell in cells)]
    shown.append("" if name == "PPO" else f"{ahead[0]:+.3f} ± {ahead[1]:.3f}")
    for key, form in (("tokens to 0.6", ",.0f"), ("processor seconds to 0.6", ".1f"), ("processor seconds", ".1f")):
        shown.append("not reached" if figures[key] is None else format(figures[key], form))
    return {**figures, "PPO ahead at 20": ahead}, f"| {' | '.join(shown)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(4)), help="two at least")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3, 1e-2])
    parser.add_argument(
        "--updates", type=int, nargs="+", default=[1, 2, 4], help="updates that a rollout is split into"
    )
    parser.add_argument("--rollouts", type=int, default=80, help="20 at least")
    parser.add_argument("--ppo", type=json.loads, help="settings of PPO to try, as JSON; results are shown, not saved")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)
    runs: dict[tuple[int, float, str], list[Run]] = {}
    for seed, updates, rate, name in itertools.product(options.seeds, options.updates, options.rates, TRAINERS):
        tried = options.ppo if name == "PPO" else None
        one = run(name, seed=seed, learning_rate=rate, rollouts=options.rollouts, updates=updates, tried=tried)
        runs.setdefault((updates, rate, name), []).append(one)
    at = [rollout for rollout in (10, 20, 40, 80) if rollout <= options.rollouts]
    columns = [*(f"at {rollout}" for rollout in at), *(f"worst at {rollout}" for rollout in at[-2:])]
    head = (
        f"| learning rate | trainer | updates | {' | '.join(columns)} | PPO ahead | tokens to 0.6 | s to 0.6 | s a run |\n"
        + "|---" * (len(columns) + 7)
        + "|"
    )
    by_default = {name: default_updates(name) for name in TRAINERS}
    groups = {"as it is by default": by_default}
    groups |= {f"with {updates} updates a rollout": dict.fromkeys(TRAINERS, updates) for updates in options.updates}
    results: dict[str, Any] = {}
    lines = [
        (
            f"Mean reward of the three rollouts up to a rollout (of {ROLLOUT} completions; the most is 0.84), over seeds "
            f"{', '.join(map(str, options.seeds))}; how far PPO is ahead at 20, seed by seed, with its standard error; tokens "
            "generated and processor seconds (one thread) until the reward is 0.6."
        )
    ]
    for group, updates_of in groups.items():
        if not set(updates_of.values()) <= set(options.updates):
            continue
        lines += ["", f"All {group}:" if group.startswith("with") else f"Each {group}:", "", head]
        for rate in options.rates:
            sides = {name: runs[updates, rate, name] for name, updates in updates_of.items()}
            for name, updates in updates_of.items():
                results[f"{name} at {rate:g}, {group}"], line = row(rate, name, updates, sides, at)
                lines.append(line)
    table = "\n".join(lines)
    if options.ppo:
        print(table)
    else:
        save("ppo_learning", {"mean over seeds": results}, table)


if __name__ == "__main__":
    main()
