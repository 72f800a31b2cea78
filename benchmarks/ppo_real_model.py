"""PPO beside TRL's GRPO and RLOO on a real model, SmolLM2-135M, with the quickstart's composition and adapter.

All have the same composer, prompts, learning rate, temperature, length and rollout of 32 completions, and otherwise their
defaults. A run trains until it has used its processor seconds (one thread); answering and scoring held-out prompts between is
not counted. The held-out total is that of a composer whose normalizers have seen the starting model's answers and learn nothing
more: at the start it is about 0, and every run is measured on the same scale. KL is from the starting model, on those answers.

Each run is a process, and keeps a JSON file. What is there is not run again, so a run that was stopped is the only one lost, and
``--report`` makes the table of what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import numpy as np
import torch
import yaml
from _report import RESULTS, save
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl.trainer.utils import use_adapter

from rlaif_sdk import Composer, Composition
from rlaif_sdk.io.files import write_text
from rlaif_sdk.quickstart import model as quickstart
from rlaif_sdk.reporting.plots import drawing
from rlaif_sdk.training.generation import Answers, GenerationSettings, ScoredAnswers, answer_prompts
from rlaif_sdk.training.methods import get_method, load_run, trainer_settings
from rlaif_sdk.training.models import adapter, load_policy, prompt_ids
from rlaif_sdk.training.online import prompts_for_trainer
from rlaif_sdk.types import Progress

ROLLOUT = 32
METHODS = ("ppo", "grpo", "rloo")
FOLDER = RESULTS / "ppo_real_model"
SHARED = ("max_completion_length", "temperature", "learning_rate", "lr_scheduler_type")
"""Settings of the quickstart that all have."""
SAMPLED_FIRST = 1
"""The seed by which held-out prompts are answered, the same in all runs and at all times."""


def run_config(options: argparse.Namespace) -> dict[str, Any]:
    """The quickstart's run, of another method and seed."""
    text = (files("rlaif_sdk.quickstart") / "quickstart.yaml").read_text(encoding="utf-8")
    folder = str(quickstart.prepare_policy())
    text = text.replace("MODEL_FOLDER", json.dumps(folder)).replace("MODEL_DTYPE", quickstart.fast_dtype())
    config: dict[str, Any] = yaml.safe_load(text)
    prompts = str(files("rlaif_sdk.quickstart") / "data")
    config["data"] |= {"train": f"{prompts}/train.jsonl", "held_out": f"{prompts}/held-out.jsonl"}
    config["data"]["held_out_rows"] = options.held_out
    of_quickstart = config.pop("ppo")
    minibatches = options.updates or (2 if options.run == "ppo" else 1)
    settings = {
        **{name: of_quickstart[name] for name in SHARED},
        **({"kl_coef": of_quickstart["kl_coef"]} if options.run == "ppo" else {}),
        "per_device_train_batch_size": ROLLOUT // minibatches,
        "steps_per_generation": minibatches,
        "max_steps": 1_000_000,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
    }
    tried = options.settings if options.run == "ppo" else {}
    return {**config, options.run: settings | tried, "output": options.output, "seed": options.seed}


class Watch(TrainerCallback):
    """Ends training when its processor seconds are used up, and measures the policy on the way.

    Args:
        options: The command line.
        composer: What training is scored with.
        measuring: The same, for held-out answers.
        prompts: The held-out prompts.
        policy: The model with its adapter, and its tokenizer.
    """

    def __init__(
        self, options: argparse.Namespace, composer: Composer, measuring: Composer, prompts: Dataset, policy: Any
    ) -> None:
        self.options, self.composer, self.measuring, self.prompts = options, composer, measuring, prompts
        composer.observers = (self.count,)
        self.model, self.tokenizer = policy
        self.points: list[dict[str, float]] = []
        self.rollouts = self.tokens = 0
        self.elsewhere = 0.0
        self.since = time.process_time()

    @property
    def seconds(self) -> float:
        """Processor seconds of training."""
        return time.process_time() - self.since - self.elsewhere

    def count(self, composed: Composition) -> None:
        """What was sampled for training; a composer calls it with what it has composed."""
        if composed.batch.training:
            self.rollouts += 1
            self.tokens += sum(map(len, composed.batch.completion_ids or ()))

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.measure()
        self.since, self.elsewhere = time.process_time(), 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        ended = self.seconds >= self.options.seconds
        apart = self.options.seconds / self.options.points
        if ended or self.seconds // apart > self.points[-1]["seconds"] // apart:
            self.measure()
        control.should_training_stop = ended

    def measure(self) -> None:
        """Answer the held-out prompts, off the clock."""
        since, trained = time.process_time(), self.seconds
        sampling = GenerationSettings(batch_size=32, max_completion_length=48, temperature=0.7).sampling(SAMPLED_FIRST)
        self.model.eval()
        answers = answer_prompts(self.model, self.tokenizer, self.prompts, sampling)
        batch = answers.batch(Progress(0), training=not self.points)
        composed = self.measuring.compose(batch)
        if not self.points:  # loads the models of the rewards, which is no part of training
            self.composer.compose(answers.batch(Progress(0)).select([0, 1]))
        totals = composed.totals[~np.isnan(composed.totals)]
        found = ScoredAnswers(answers, composed)
        self.points.append(
            {
                "seconds": trained,
                "tokens": self.tokens,
                "rollouts": self.rollouts,
                "reward": float(totals.mean()),
                "error": float(totals.std(ddof=1) / len(totals) ** 0.5),
                "kl": statistics.mean(divergences(self.model, self.tokenizer, answers, sampling.temperature)),
                **{name: float(values_B.mean()) for name, values_B in found.health().items()},
                **{name: float(np.nanmean(raw_B)) for name, raw_B in found.rewards().items()},
            }
        )
        self.model.train()
        self.elsewhere += time.process_time() - since
        print(json.dumps(self.points[-1]), flush=True)


def divergences(model: Any, tokenizer: Any, answers: Answers, temperature: float) -> list[float]:
    """Of each answer how much likelier it is under the policy than under its start, in nats: the estimator k1."""
    found = []
    for prompt, said in zip(answers.prompts, answers.completion_ids, strict=True):
        ids = torch.tensor([[*prompt_ids(prompt, tokenizer, {}), *said]])
        likely = []
        with torch.no_grad():
            for name in (model.active_adapter, None):
                with use_adapter(model, adapter_name=name):
                    logits_TV = model(input_ids=ids).logits[0, -len(said) - 1 : -1].float() / temperature
                likely.append(float(logits_TV.log_softmax(-1).gather(1, ids[0, -len(said) :, None]).sum()))
        found.append(likely[0] - likely[1])
    return found


def run(options: argparse.Namespace) -> None:
    """Train once, and keep what was measured."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)
    with tempfile.TemporaryDirectory() as folder:
        options.output = folder
        found = load_run(options.run, run_config(options))
        method, settings = get_method(options.run), trainer_settings(found)
        rows = dict(zip(("train", "held_out"), method.load_rows(found), strict=True))
        model, tokenizer = load_policy(found, encoder_decoder=False)
        train, held_out = prompts_for_trainer(found, tokenizer, settings, rows)
        with found.composer(ledger=False) as composer, found.composer(ledger=False) as measuring:
            trainer = method.trainer(
                found,
                composer,
                None,
                settings,
                resume=False,
                model=model,
                train_dataset=train,
                eval_dataset=None,
                processing_class=tokenizer,
                peft_config=adapter(found, "CAUSAL_LM"),
            )
            watch = Watch(options, composer, measuring, held_out, (trainer.model, tokenizer))
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(watch)
            trainer.train()
    kept = {"method": options.run, "seed": options.seed, "set-up": set_up(options), "points": watch.points}
    write_text(file_of(options.folder, options.run, options.seed), json.dumps(kept, indent=1) + "\n")


def set_up(options: argparse.Namespace) -> dict[str, Any]:
    """What runs must have in common to stand in one table."""
    names = ("seconds", "points", "held_out", "updates", "settings")
    return {name: getattr(options, name) for name in names}


def file_of(folder: Path, method: str, seed: int) -> Path:
    """Where a run is kept."""
    return folder / f"{method}-{seed}.json"


def report(folder: Path) -> None:
    """Make the table and the curves of the runs that are there."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(folder.glob("*.json")):
        kept = json.loads(file.read_text(encoding="utf-8"))
        runs.setdefault(kept["method"], []).append(kept)
    if not runs:
        raise SystemExit(f"{folder} holds no runs")
    setups = {json.dumps(one["set-up"]) for each in runs.values() for one in each}
    if len(setups) > 1:
        raise SystemExit(f"the runs in {folder} are of several set-ups, so one table would mix them: {sorted(setups)}")
    stated = json.loads(setups.pop())
    lines = [
        (
            f"{stated['seconds']:g} processor seconds of training a run, a rollout of {ROLLOUT} completions, {stated['held_out']} "
            "held-out prompts; means at the end over the seeds, with the standard error over prompts (one seed) or seeds. The "
            "held-out total is in deviations of the starting model's, KL in nats an answer. A run ends with the optimiser step in "
            "which its time is used up."
        ),
        "",
        (
            "| | seeds | held-out total | worst seed | KL | repeated trigrams | truncated | tokens an answer | processor s "
            "| rollouts | tokens sampled |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    results: dict[str, Any] = {"set-up": stated}
    for method in (name for name in METHODS if name in runs):
        last = [one["points"][-1] for one in runs[method]]
        mean = {key: statistics.mean(point[key] for point in last) for key in last[0]}
        totals = [point["reward"] for point in last]
        error = statistics.stdev(totals) / len(totals) ** 0.5 if len(totals) > 1 else last[0]["error"]
        lines.append(
            f"| {method.upper()} | {', '.join(str(one['seed']) for one in runs[method])} | {mean['reward']:+.3f} ± {error:.3f} "
            f"| {min(totals):+.3f} | {mean['kl']:.2f} | {mean['repetition_share']:.3f} | {mean['truncated_share']:.2f} "
            f"| {mean['length_tokens']:.1f} | {mean['seconds']:.0f} | {mean['rollouts']:.1f} | {mean['tokens']:,.0f} |"
        )
        results[method] = {"end": mean, "runs": runs[method]}
    lines += ["", "Held-out total on the way, by processor seconds, between two measurements on a line:"]
    lines += ["", *_curves(runs, stated)]
    save("ppo_real_model", results, "\n".join(lines))
    draw(runs, Path(__file__).parent.parent / "docs" / "pictures" / "ppo-real-model.png")


def _curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], stated: Mapping[str, Any]) -> list[str]:
    marks = [stated["seconds"] * mark / stated["points"] for mark in range(stated["points"] + 1)]
    lines = [f"| | {' | '.join(f'{mark:.0f}' for mark in marks)} |", "|---" * (len(marks) + 1) + "|"]
    for method in (name for name in METHODS if name in runs):
        curves = []
        for one in runs[method]:
            seconds, totals = ([point[name] for point in one["points"]] for name in ("seconds", "reward"))
            curves.append(np.interp(marks, [0.0, *seconds[1:]], totals))
        lines.append(f"| {method.upper()} | {' | '.join(f'{total:+.3f}' for total in np.mean(curves, axis=0))} |")
    return lines


def draw(runs: Mapping[str, Sequence[Mapping[str, Any]]], file: Path) -> None:
    """The held-out total over seconds, tokens and KL, a line a run."""
    with drawing(file, 13, 3.6) as figure:
        labels = {
            "seconds": "processor seconds of training",
            "tokens": "tokens sampled",
            "kl": "KL from the start, nats",
        }
        for index, (key, label) in enumerate(labels.items(), start=1):
            axes = figure.add_subplot(1, len(labels), index)
            for color, method in enumerate(METHODS):
                for number, one in enumerate(runs.get(method, ())):
                    x, y = ([point[name] for point in one["points"]] for name in (key, "reward"))
                    axes.plot(x, y, marker=".", color=f"C{color}", label=None if number else method.upper())
            axes.set_xlabel(label)
            axes.set_ylabel("held-out total")
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1200, help="processor seconds of training of a run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=METHODS)
    parser.add_argument("--points", type=int, default=6, help="measurements after the first")
    parser.add_argument("--held-out", type=int, default=64, help="held-out prompts, 128 at most")
    parser.add_argument(
        "--updates", type=int, help="of a rollout by every method; by default PPO makes two, the others one"
    )
    parser.add_argument("--settings", type=json.loads, default={}, help="settings of PPO to try, as JSON")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where runs are kept, those of one set-up")
    parser.add_argument("--report", action="store_true", help="only make the table of what is there")
    parser.add_argument(
        "--run", choices=METHODS, help="train this one, of one seed; for the processes that this starts"
    )
    parser.add_argument("--seed", type=int, help="its seed")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.run:
        run(options)
        return
    for seed in () if options.report else options.seeds:  # seed by seed, so that what is there can be compared
        for method in options.methods:
            if not file_of(options.folder, method, seed).exists():
                subprocess.run([sys.executable, *sys.argv, "--run", method, "--seed", str(seed)], check=True)
    report(options.folder)


if __name__ == "__main__":
    main()
