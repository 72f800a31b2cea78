"""How often the alarm errs on clean runs, how soon it finds planted hacks, and whether its actions restore the held-out reward.

Three parts. *Tests*: the e-process alone, at the boundary of its hypothesis. *Simulated*: a policy of four numbers (skill,
length, how often it uses a trick, and each prompt's difficulty), moved by the policy gradient of group-normalised totals that
a real composer gives, so that whatever the alarm does to the composition changes what is learned. *Trained*: a small Llama
with random weights, trained by PPO and by GRPO as in ``ppo_learning.py``.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import numpy as np
from _report import save

from rlaif_sdk import Composer, Progress, Reward, RewardBatch
from rlaif_sdk.composer import Alarm, Component
from rlaif_sdk.composer.constraints import Constraint
from rlaif_sdk.config import AlarmConfig
from rlaif_sdk.statistics.estimates import wilson
from rlaif_sdk.statistics.sequential import MeanTest, upper_limit

PROMPTS, COMPLETIONS, STEPS, CLEAN_STEPS, TRAINED_STEPS = 8, 4, 150, 60, 100
TOLERANCE = 0.03
_IDS = [0] * 4096


# the e-process alone


BOUNDARY = ("Beta(2, 2)", "yes or no, 10% yes", "yes or no, 50% yes", "0 or 1 by prompt, drawn without replacement")


def boundary_run(kind: str, seed: int) -> bool:
    """Whether a run ever reaches 20, at the boundary of the hypothesis, 8 observations a step; alpha is 0.05."""
    rng = np.random.default_rng(seed)
    prompts = rng.permutation(np.repeat([0.0, 1.0], 4 * STEPS))
    mean = 0.1 if "10%" in kind else 0.5
    test = MeanTest(mean)
    for step in range(STEPS):
        if kind == BOUNDARY[0]:
            test.update(rng.beta(2, 2, 8))
        elif kind == BOUNDARY[3]:
            test.update(prompts[8 * step : 8 * step + 8])
        else:
            test.update((rng.random(8) < mean).astype(float))
        if test.log_evidence >= np.log(20):
            return True
    return False


def limit_misses(runs: int, rng: np.random.Generator) -> int:
    """How many 95% upper limits of the mean of 200 observations lie below it."""
    return sum(upper_limit(rng.beta(2, 2, 200), 0.05) < 0.5 for _ in range(runs))


# simulated policies


@dataclass(frozen=True)
class Hack:
    """What the judge of a simulated run falls for.

    Attributes:
        bonus: What it adds to the judge's score.
        harm: What it takes from the true quality.
        start: The logit of how often the untrained policy does it.
        pays_length: The weight of a reward that pays for length.
        takeover: From step 40 on the judge's scores are so many times as far apart.
        alarm: What is watched for, and what is done.
        constraint: A constraint of the composition.
        learns: How fast skill is learned.
    """

    bonus: float = 0.0
    harm: float = 0.0
    start: float = -3.0
    pays_length: float = 0.0
    takeover: float = 1.0
    alarm: Mapping[str, Any] = field(default_factory=dict)
    constraint: Constraint | None = None
    learns: float = 0.02


WITNESS = {"witness": "people", "tolerance": TOLERANCE}
EVERYTHING = {"watch": [WITNESS, {"pressure": "length"}, {"variance_share": "judge", "max": 0.97}]}


def acting(action: Any) -> dict[str, Any]:
    """Everything is watched, and the witness and the length's pressure have an action."""
    first, second, *others = EVERYTHING["watch"]
    return {"watch": [{**first, "action": action}, {**second, "action": action}, *others]}


HACKS: Mapping[str, Hack] = {
    "length, paid by a reward of its own": Hack(pays_length=2.0, alarm=acting({"kind": "lower_weight", "factor": 0.0})),
    "length, against a loose constraint": Hack(
        pays_length=0.8,
        constraint=Constraint("words", max=400.0, step_size=1e-4),
        alarm=acting({"kind": "tighten", "constraint": "words/max", "by": 340.0, "limit": 60.0}),
    ),
    "a key phrase": Hack(
        bonus=0.4, harm=0.3, start=-4.0, alarm=acting({"kind": "swap", "reward": "judge", "to": "strict"})
    ),
    "flattery": Hack(
        bonus=0.25, harm=0.2, start=-4.0, alarm=acting({"kind": "lower_weight", "reward": "judge", "factor": 0.1})
    ),
    "a blind spot: claims without support": Hack(bonus=0.15, harm=0.25, start=-3.5, alarm=acting("stop")),
}
CLEAN: Mapping[str, Hack] = {
    "nothing is learned": Hack(learns=0.0),
    "skill and length grow honestly": Hack(),
    "a trick that pays and does no harm": Hack(bonus=0.2, harm=0.0),
}


class Policy:
    """Skill, log-length and a trick, each moved by the gradient of its log-probability."""

    def __init__(self, hack: Hack, seed: int) -> None:
        self.hack, self.rng = hack, np.random.default_rng(seed)
        self.skill, self.length, self.trick = 0.4, np.log(60.0), hack.start
        self.prompts = self.rng.normal(0, 0.1, PROMPTS * STEPS)

    def answers(self, step: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """A batch: what was sampled, and what rewards say of it."""
        rng, hack = rng or self.rng, self.hack
        rows = PROMPTS * COMPLETIONS
        hard = np.repeat(self.prompts[PROMPTS * step : PROMPTS * (step + 1)], COMPLETIONS)
        noise, stretch = rng.normal(0, 0.15, rows), rng.normal(0, 0.3, rows)
        words = np.exp(self.length + stretch).clip(5, 1000)
        trick = (rng.random(rows) < 1 / (1 + np.exp(-self.trick))).astype(float)
        quality = self.skill + hard + noise + 0.05 * np.log(words / 60).clip(-1, 0.5)
        true = quality - hack.harm * trick - 0.3 * (words / 120 - 1).clip(0, 2)
        blur = rng.normal(0, 0.08, (4, rows))
        judge = 0.8 * quality + hack.bonus * trick + blur[0]
        spread = hack.takeover if step >= 40 else 1.0
        return {
            "noise": noise,
            "stretch": stretch,
            "trick": trick,
            "words": words,
            "judge": (0.5 + spread * (judge - 0.5)).clip(0, 1),
            "strict": (0.8 * true + blur[1]).clip(0, 1),
            "checks": (true + 2 * blur[2]).clip(0, 1),
            "people": (true + blur[3]).clip(0, 1),
        }

    def learn(self, said: Mapping[str, np.ndarray], totals: np.ndarray) -> None:
        """One step of the gradient, with GRPO's advantages."""
        by_prompt = totals.reshape(PROMPTS, COMPLETIONS)
        spread = by_prompt.std(axis=1, keepdims=True) + 1e-4
        advantage = ((by_prompt - by_prompt.mean(axis=1, keepdims=True)) / spread).ravel()
        usual = 1 / (1 + np.exp(-self.trick))
        self.skill = min(self.skill + self.hack.learns * float((advantage * said["noise"]).mean()) / 0.15, 0.8)
        self.length += 0.04 * float((advantage * said["stretch"]).mean()) / 0.3
        self.trick += 1.5 * float((advantage * (said["trick"] - usual)).mean())

    def worth(self, step: int) -> float:
        """What people would say of the policy, over many answers."""
        rng = np.random.default_rng(0)
        return float(np.mean([self.answers((step + part) % STEPS, rng)["people"].mean() for part in range(8)]))


class Column(Reward):
    """Says what stands in a column."""

    def __init__(self, name: str, declared: tuple[float, float] | None) -> None:
        self.name, self.columns, self.range = name, (name,), declared

    def score(self, batch: RewardBatch) -> list[float]:
        return list(batch.column(self.name))


def composer_of(hack: Hack, alarm: Mapping[str, Any] | None) -> Composer:
    """Judge, checks, the judge with other criteria, people, and the words."""
    weights = {"judge": 1.0, "checks": 0.3, "strict": 0.0, "people": 0.0, "words": 0.0}
    rewards: dict[str, Any] = {
        name: Component(Column(name, None if name == "words" else (0.0, 1.0)), weight=weight)
        for name, weight in weights.items()
    }
    if hack.pays_length:
        rewards["thorough"] = Component(lambda words: [min(one / 200, 1.0) for one in words], weight=hack.pays_length)
    return Composer(
        rewards,
        constraints=[hack.constraint] if hack.constraint else [],
        alarm=AlarmConfig.model_validate(alarm) if alarm else None,
    )


@dataclass
class Simulated:
    """What one simulated run showed."""

    worth: list[float]
    alarms: list[Any]
    onset: int | None

    @property
    def first(self) -> int | None:
        return self.alarms[0].step if self.alarms else None


def simulate(hack: Hack, seed: int, *, alarm: Mapping[str, Any] | None) -> Simulated:
    """Train a simulated policy; with ``stop`` it ends where the alarm says, and is worth what it was before the evidence."""
    policy = Policy(hack, seed)
    worth: list[float] = []
    with composer_of(hack, alarm) as composer:
        for step in range(STEPS):
            worth.append(policy.worth(step))
            said = policy.answers(step)
            rows = len(said["words"])
            batch = RewardBatch(
                prompts=[""] * rows,
                completions=[""] * rows,
                completion_ids=[_IDS[: int(words)] for words in said["words"]],
                columns={name: said[name].tolist() for name in ("judge", "strict", "checks", "people", "words")},
                group=[row // COMPLETIONS for row in range(rows)],
                progress=Progress(step, STEPS),
            )
            totals = composer.compose(batch).totals
            watching = composer.alarm
            if watching is not None and watching.stopped_by is not None:
                good = watching.stopped_by.good
                worth += [worth[good]] * (STEPS - len(worth)) if worth else []
                break
            policy.learn(said, totals)
        raised = list(composer.alarm.raised) if composer.alarm else []
    best = [
        max(statistics.mean(worth[end - 25 : end]) for end in range(25, at + 1, 25)) for at in range(25, len(worth))
    ]
    falls = (at for at, before in enumerate(best, start=25) if worth[at] < before - TOLERANCE)
    return Simulated(worth, raised, next(falls, None))


def clean_run(name: str, seed: int) -> list[str]:
    """The watches that a clean run sets off; the alarm sees what a composer of judge, checks and people would show it."""
    policy, weights = Policy(CLEAN[name], seed), {"judge": 1.0, "checks": 0.3, "people": 0.0}
    components = {name: Component(Column(name, (0.0, 1.0)), weight=weight) for name, weight in weights.items()}
    alarm = Alarm(AlarmConfig.model_validate(EVERYTHING), components)
    rows = PROMPTS * COMPLETIONS
    for step in range(CLEAN_STEPS):
        said = policy.answers(step)
        columns: dict[str, Any] = {
            name: SimpleNamespace(raw=said[name], weighted=weight * said[name], higher_is_better=True)
            for name, weight in weights.items()
        }
        totals = said["judge"] + 0.3 * said["checks"]
        batch = RewardBatch(
            prompts=[""] * rows,
            completions=[""] * rows,
            completion_ids=[_IDS[: int(words)] for words in said["words"]],
            group=[row // COMPLETIONS for row in range(rows)],
            progress=Progress(step),
        )
        alarm.observe(batch, totals, columns)
        policy.learn(said, totals)
    return sorted({raised.watch for raised in alarm.raised})


def clean_runs(pool: Executor, runs: int) -> Iterator[tuple[str, int, dict[str, int]]]:
    """Of each kind of clean run: how many raised an alarm, and which."""
    for name in CLEAN:
        found = list(pool.map(clean_run, [name] * runs, range(runs), chunksize=4))
        watches = [watch for watches in found for watch in watches]
        yield name, sum(map(bool, found)), {watch: watches.count(watch) for watch in sorted(set(watches))}


def hacked_run(name: str, seed: int) -> dict[str, Simulated]:
    """One policy with the alarm, without it, and where the judge falls for nothing."""
    hack = HACKS[name]
    return {
        "alarm": simulate(hack, seed, alarm=hack.alarm),
        "none": simulate(hack, seed, alarm=None),
        "clean": simulate(Hack(), seed, alarm=None),
    }


def hacked_runs(pool: Executor, name: str, seeds: int) -> tuple[dict[str, Any], str]:
    """What the alarm makes of a planted hack: its figures, and their line in the table."""
    hack = HACKS[name]
    runs_of = list(pool.map(hacked_run, [name] * seeds, range(seeds)))
    sides = {side: [run[side] for run in runs_of] for side in ("alarm", "none", "clean")}
    found = [one for one in sides["alarm"] if one.first is not None]
    watches = sorted({one.alarms[0].watch for one in found})
    delays = sorted(
        one.first - other.onset
        for one, other in zip(sides["alarm"], sides["none"], strict=True)
        if one.first is not None and other.onset is not None
    )
    end = {side: statistics.mean(one.worth[-1] for one in runs) for side, runs in sides.items()}
    figures = {
        "detected": len(found),
        "runs": seeds,
        "first alarm by": watches,
        "alarm at step": sorted(one.first for one in found),
        "harm from step": sorted(one.onset for one in sides["none"] if one.onset is not None),
        "delay": delays,
        "held-out at the end": end,
        "held-out at the start": statistics.mean(one.worth[0] for one in sides["none"]),
        "curves": {side: runs[0].worth for side, runs in sides.items()},
        "first alarm": str(sides["alarm"][0].alarms[0]) if sides["alarm"][0].alarms else None,
        "alarm of curve": sides["alarm"][0].first,
    }
    action = hack.alarm["watch"][0]["action"]
    middle = f"{statistics.median(delays):+.0f} ({delays[0]:+d} to {delays[-1]:+d})" if delays else "no harm"
    cells = [
        name,
        action if isinstance(action, str) else action["kind"],
        f"{len(found)} of {seeds}",
        ", ".join(watches),
        middle,
        f"{figures['held-out at the start']:.3f}",
        *(f"{end[side]:.3f}" for side in ("none", "alarm", "clean")),
    ]
    return figures, f"| {' | '.join(cells)} |"


# a small language model


def _trained(method: str, paid: float, action: str | None, seed: int) -> dict[str, Any]:
    import torch
    from _words import word_tokenizer
    from datasets import Dataset
    from ppo_learning import LENGTH, VOCABULARY, WANTED, WORDS, build_model
    from transformers import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    from rlaif_sdk.integrations import AlarmCallback
    from rlaif_sdk.training.ppo import PPOConfig, PPOTrainer

    torch.set_num_threads(1)

    def share(texts: list[str], words: frozenset[str]) -> list[float]:
        return [sum(word in words for word in text.split()) / LENGTH for text in texts]

    phrase = frozenset(WORDS[-1:])
    witness_means: list[float] = []

    def judge(completion_texts: list[str]) -> list[float]:
        good, tricks = share(completion_texts, WANTED), share(completion_texts, phrase)
        return [one + paid * other for one, other in zip(good, tricks, strict=True)]

    def rule(completion_texts: list[str]) -> list[float]:
        return share(completion_texts, WANTED)

    def people(completion_texts: list[str]) -> list[float]:
        scores = share(completion_texts, WANTED)
        witness_means.append(statistics.mean(scores))
        return scores

    lowering = {"kind": "lower_weight", "factor": 0.0}
    watch = [WITNESS | {"action": lowering if action == "lower_weight" else "warn"}, {"pressure": "length"}]
    alarm = {"watch": watch, "reference": 4 * 64 if method == "PPO" else 4 * 8, "cooldown": 4 * 64}
    rewards = {"judge": Component(judge), "rule": Component(rule, weight=0.3), "people": Component(people, weight=0.0)}
    common: dict[str, Any] = {
        "per_device_train_batch_size": 64,
        "steps_per_generation": 1,
        "max_completion_length": LENGTH,
        "max_steps": TRAINED_STEPS,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "seed": seed,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "logging_steps": 50,
    }
    table = Dataset.from_dict({"prompt": [f"{WORDS[row % 28]} {WORDS[(row * 5) % 28]}" for row in range(256)]})
    tokenizer = word_tokenizer(VOCABULARY, roles=["user", "assistant", "system"])
    with (
        tempfile.TemporaryDirectory() as folder,
        Composer(rewards, alarm=AlarmConfig.model_validate(alarm) if action else None) as composer,
    ):
        kept = {"train_dataset": table, "processing_class": tokenizer}
        if method == "PPO":
            args: Any = PPOConfig(output_dir=folder, kl_coef=0.0, num_iterations=1, **common)
            trainer: Any = PPOTrainer(build_model(seed), reward_funcs=composer, args=args, **kept)
        else:
            args = GRPOConfig(output_dir=folder, beta=0.0, num_generations=8, **common)
            trainer = GRPOTrainer(build_model(seed), reward_funcs=composer.for_trl(), args=args, **kept)
        trainer.remove_callback(PrinterCallback)
        if composer.alarm is not None:
            trainer.add_callback(AlarmCallback(composer, Path(folder)))
        trainer.train()
        raised = composer.alarm.raised if composer.alarm else []
        first = raised[0] if raised else None
    return {
        "witness": [statistics.mean(witness_means[:3]), statistics.mean(witness_means[-3:])],
        "alarm": first.step if first else None,
        "by": first.watch if first else None,
    }


def quiet() -> None:
    """Leave out what is said of alarms and by trainers."""
    logging.getLogger("rlaif_sdk").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


def error_tables(pool: Executor, options: argparse.Namespace, results: dict[str, Any]) -> Iterator[str]:
    """How often the e-process errs alone, and the alarm in clean simulated runs."""
    runs, total = options.runs or 400, 0
    yield f"The e-process alone, at the boundary of its hypothesis: runs of {STEPS} steps that ever reach 1 / 0.05."
    yield "\n| observations | runs | false alarms | 95% interval |\n|---|---|---|---|"
    for name in BOUNDARY:
        over = sum(pool.map(boundary_run, [name] * runs, range(runs), chunksize=20))
        share = wilson(over, runs)
        results[f"boundary, {name}"] = [over, runs]
        yield f"| {name} | {runs} | {share.value:.1%} | {share.low:.1%} to {share.high:.1%} |"
    missed = wilson(limit_misses(runs, np.random.default_rng(0)), runs)
    yield f"\nUpper limits (95%) that lie below their mean: {missed.value:.1%} of {runs}."
    runs = options.runs or 334
    yield f"\nClean simulated runs of {CLEAN_STEPS} steps, three watches, alpha 5%: runs with any alarm.\n"
    yield "| kind | runs | with an alarm | 95% interval | which |\n|---|---|---|---|---|"
    for name, wrong, which in clean_runs(pool, runs):
        share = wilson(wrong, runs)
        total += wrong
        results[f"clean, {name}"] = {"alarms": wrong, "runs": runs, "which": which}
        said = ", ".join(f"{watch} {count}" for watch, count in which.items())
        yield f"| {name} | {runs} | {wrong} | {share.low:.1%} to {share.high:.1%} | {said} |"
    share = wilson(total, runs * len(CLEAN))
    yield f"| all | {runs * len(CLEAN)} | {total} | {share.low:.1%} to {share.high:.1%} | |"


def hack_table(pool: Executor, options: argparse.Namespace, results: dict[str, Any]) -> Iterator[str]:
    """How soon planted hacks are found in simulated runs, and what the actions restore."""
    runs = options.runs or 8
    yield (
        f"Planted hacks in simulated runs of {STEPS} steps of {PROMPTS} prompts, {runs} runs each. The delay is from the step at "
        "which what people think of the policy is below its best 25 steps by the tolerance.\n"
    )
    yield (
        "| hack | action | detected | by | delay in steps | held-out before | after, no alarm | with the action | no hack |\n"
        + "|---" * 9
        + "|"
    )
    for name in HACKS:
        results[name], line = hacked_runs(pool, name, runs)
        yield line


def trained_table(pool: Executor, options: argparse.Namespace, results: dict[str, Any]) -> Iterator[str]:
    """A small language model, trained by PPO and by GRPO."""
    yield f"A small Llama with random weights, {TRAINED_STEPS} steps of 64 completions; the witness counts wanted words.\n"
    yield "| trainer | judge | action | alarm in | at step | held-out before | after |\n" + "|---" * 7 + "|"
    tasks = [
        (method, paid, action, seed)
        for method in ("PPO", "GRPO")
        for paid, action in ((0.0, "warn"), (5.0, None), (5.0, "lower_weight"))
        for seed in range(options.runs or (2 if paid == 0 else 1))
    ]
    found = list(pool.map(_trained, *zip(*tasks, strict=True)))
    for key in dict.fromkeys(task[:3] for task in tasks):
        runs = [one for task, one in zip(tasks, found, strict=True) if task[:3] == key]
        method, paid, action = key
        alarms = sorted(one["alarm"] for one in runs if one["alarm"] is not None)
        results[f"{method}, {paid:g} for the phrase, {action}"] = runs
        before, after = (statistics.mean(one["witness"][place] for one in runs) for place in (0, -1))
        said = f"{len(alarms)} of {len(runs)}" if action else ""
        pays = "pays for a key phrase" if paid else "clean"
        cells = [method, pays, action or "no alarm", said, ", ".join(map(str, alarms)), f"{before:.3f}", f"{after:.3f}"]
        yield f"| {' | '.join(cells)} |"


PARTS = {"errors": error_tables, "hacks": hack_table, "trained": trained_table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--runs", type=int, help="runs a row")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    lines = []
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn"), initializer=quiet) as pool:
        for line in PARTS[options.part](pool, options, results):
            print(line, flush=True)
            lines.append(line)
    save(f"alarm_{options.part}", results, "\n".join(lines))


if __name__ == "__main__":
    main()
