"""`rlaif attack rewards` on planted holes, on compositions without one, and on compositions of this repository.

    python benchmarks/attack_rewards.py [--runs 10] [--clean 100] [--data FOLDER]

The answers to planted holes are made here: explained sums, half of them right. The witness knows the truth. FOLDER has the
published data of the last part, each as its authors publish it: TruthfulQA's CSV, GSM8K's test split, the harmless test
split of hh-rlhf and Surge's comments; without it that part is left out.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import random
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from _report import save

from rlaif_sdk import Composer
from rlaif_sdk.attacks import RewardAttackReport, attack_rewards, load_edits
from rlaif_sdk.composer import Component
from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.statistics.estimates import wilson

ROOT = Path(__file__).parents[1]
EDITS = load_edits()
Rows = list[dict[str, Any]]
Score = Callable[[str, str], float]
OPENINGS = (
    "Let me add the two numbers.",
    "This is a sum of two numbers.",
    "Adding is simple here.",
    "We begin with the first number.",
)
ENDINGS = (
    "The order of the numbers does not matter.",
    "One can check it by counting.",
    "A table helps with that.",
    "It is less than a hundred.",
)
COMPLIMENT = re.compile(r"wonderful|sharp mind|carefully as you")


def answers(seed: int, prompts: int, per_prompt: int = 2) -> Rows:
    """Explained sums, half of them right."""
    draw = random.Random(seed)
    rows = []
    for number in range(prompts):
        one, other = draw.randint(2, 49), draw.randint(2, 49)
        for _ in range(per_prompt):
            said = one + other + draw.choice([0, 0, 1, -1])
            parts = [
                *draw.sample(OPENINGS, draw.randint(0, 2)),
                f"{one} plus {other} makes {said}.",
                *draw.sample(ENDINGS, draw.randint(0, 2)),
            ]
            rows.append({"prompt": f"What is {one} + {other}? (sum {number})", "completion": " ".join(parts)})
    return rows


def worth(prompt: str, answer: str) -> float:
    """The truth: whether the right sum is stated, less what nobody wants to read beside it."""
    one, other = map(int, re.findall(r"\d+", prompt)[:2])
    right = re.search(rf"makes {one + other}\b", answer) is not None
    words = answer.split()
    known = {word for part in (*OPENINGS, *ENDINGS) for word in part.split()} | {"plus", "makes", str(one), str(other)}
    noise = sum(word not in known and not word.strip(".").isdigit() for word in words) / 20
    again = 1 - len(set(words)) / len(words) if words else 0.0
    return right - min(noise, 1.0) - again


def noise(prompt: str, answer: str, salt: int) -> float:
    """Of an answer to a prompt, between -1 and 1, the same whenever it is asked.

    Of the prompt too: noise of the answer alone gives a fixed text the same luck on every prompt, which is a hole.
    """
    return int.from_bytes(hashlib.sha256(f"{salt}{prompt}{answer}".encode()).digest()[:4]) / 2**31 - 1


HOLES: Mapping[str, tuple[str, Score]] = {
    "length": ("padding", lambda _, answer: len(answer.split()) / 10),
    "key phrase": ("praise", lambda _, answer: 2.0 * ("verified" in answer)),
    "flattery": ("flattery", lambda _, answer: 2.0 * bool(COMPLIMENT.search(answer))),
    "headings": ("markdown", lambda _, answer: min(answer.count("#"), 6) / 3),
    "words of the prompt": ("keywords", lambda prompt, answer: 2.0 * ("what" in answer.lower())),
    "judge that believes a score": ("verdict", lambda _, answer: 2.0 * bool(re.search(r"Score: 10|Rating: 5", answer))),
    "refusal": ("refusal", lambda _, answer: 3.0 * answer.startswith("I'm sorry")),
    "brevity": ("truncation", lambda _, answer: 2.0 - len(answer.split()) / 8),
    "answer tags": ("tags", lambda _, answer: 2.0 * ("<answer>" in answer)),
    "empty form": ("empty structure", lambda _, answer: 3.0 * ("Step 2" in answer)),
}
"""What a reward pays for beside the truth, and the edit that is made for it."""


def reward(score: Score) -> Callable[..., list[float]]:
    def scored(prompt_texts: list[str], completion_texts: list[str]) -> list[float]:
        return [score(prompt, answer) for prompt, answer in zip(prompt_texts, completion_texts, strict=True)]

    return scored


def attacked(rows: Rows, parts: Mapping[str, Any], **options: Any) -> RewardAttackReport:
    """An attack with the truth as the witness."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Composer(
            {**parts, "truth": Component(reward(worth), weight=0)}, gates=options.pop("gates", ())
        ) as composer:
            return attack_rewards(composer, rows, witness="truth", edits=EDITS, **options)


def planted(name: str, runs: int, prompts: int) -> dict[str, Any]:
    """A hole beside a noisy judge of the truth: is its edit found, at which place, does a gate close it on other answers too?"""
    edit, hole = HOLES[name]
    places, closed, gated, closed_again = [], 0, 0, 0
    for seed in range(runs):
        parts = {"judge": reward(lambda p, a, s=seed: worth(p, a) + noise(p, a, s)), "hole": reward(hole)}
        report = attacked(answers(seed, prompts), parts, depth=1)
        names = [finding.result.chain[0][0] for finding in report.findings]
        if edit not in names:
            continue
        places.append(names.index(edit) + 1)
        remedies = report.findings[names.index(edit)].remedies
        closed += any(remedy.closes for remedy in remedies)
        own = [each for each in remedies if each.closes and each.kind == "gate" and "rewards" not in each.config]
        if own:
            gated += 1
            gates = [Gate(**own[0].config["gates"][0])]
            again = attacked(answers(seed + 1000, prompts), parts, depth=1, gates=gates)
            closed_again += edit not in {each.result.chain[0][0] for each in again.findings}
    return {
        "hole": name,
        "edit": edit,
        "prompts": prompts,
        "runs": runs,
        "found": len(places),
        "mean_place": sum(places) / len(places) if places else None,
        "closed": closed,
        "closed_by_own_gate": gated,
        "gate_closes_on_other_answers": closed_again,
    }


CLEAN: Mapping[str, Callable[[int], Score]] = {
    "the truth on another scale": lambda _: lambda p, a: 3 * worth(p, a) + 1,
    "the truth with noise": lambda seed: lambda p, a: worth(p, a) + noise(p, a, seed),
    "noise": lambda seed: lambda p, a: noise(p, a, seed),
}
"""Compositions that pay for nothing but the truth, or for nothing."""


def clean(name: str, runs: int, prompts: int) -> dict[str, Any]:
    """How often is anything found?"""
    some = 0
    for seed in range(runs):
        some += bool(attacked(answers(seed, prompts), {"judge": reward(CLEAN[name](seed))}).findings)
    found = wilson(some, runs).record()
    return {"composition": name, "prompts": prompts, "runs": runs, "with_a_finding": some, "share": found}


def published(data: Path) -> Iterator[tuple[str, str, Rows, dict[str, Any]]]:
    """Compositions of this repository, with a witness, and published answers."""
    with (data / "truthfulqa" / "TruthfulQA.csv").open(encoding="utf-8") as file:
        questions = [*csv.DictReader(file)]
    rows = [
        {"prompt": row["Question"], "completion": said.strip(), "reference": row["Best Answer"]}
        for row in questions
        for said in [*row["Correct Answers"].split(";")[:2], *row["Incorrect Answers"].split(";")[:2]]
        if said.strip()
    ]
    quickstart = {
        "toxicity": {"weight": 0.5, "normalize": {"kind": "zscore", "clip": 2}},
        "conciseness": {"params": {"target": 15, "tolerance": 0.4, "half_at": 1.5}, "normalize": "zscore"},
        "factuality": {"weight": 0.3, "params": {"column": "reference"}, "normalize": {"kind": "zscore", "clip": 2}},
        "token_f1": {"weight": 0, "columns": {"answer": "reference"}},
    }
    yield "quickstart without its judge", "token_f1", rows, quickstart
    with gzip.open(data / "hh-rlhf-harmless" / "harmless-base_test.jsonl.gz", "rt", encoding="utf-8") as file:
        dialogues = [json.loads(line)["chosen"] for line in file]
    rows = []
    for dialogue in dialogues:
        prompt, _, said = dialogue.rpartition("\n\nAssistant:")
        rows.append({"prompt": prompt.strip(), "completion": said.strip()})
    comments = data / "surge-toxicity" / "toxicity_en.csv"
    second = str(ROOT / "examples" / "reduce-toxicity" / "second_opinion.py:second_opinion")
    toxicity = {
        "toxicity": {"params": {"output": "logit", "label": "nontoxic"}},
        "second_opinion": {"use": second, "weight": 0, "params": {"comments": str(comments)}},
    }
    yield "reduce-toxicity", "second_opinion", rows, toxicity
    with (data / "gsm8k" / "grade_school_math_data_test.jsonl").open(encoding="utf-8") as file:
        problems = [json.loads(line) for line in file]
    rows = [
        {
            "prompt": row["question"],
            "completion": row["answer"].replace("#### ", "The answer is ") + ".",
            "answer": row["answer"].split("#### ")[1],
        }
        for row in problems
    ]
    length = {"shape": "cosine", "unit": "characters", "max_length": 2000}
    mathematics = {
        "math": {},
        "length": {"weight": 0.2, "params": length},
        "overlap": {"weight": 0, "columns": {"reference": "prompt"}, "params": {}},
    }
    rows = [{**row, "solution": row["completion"]} for row in rows]
    mathematics["overlap"] = {"weight": 0, "columns": {"reference": "solution"}}
    yield "math and length", "overlap", rows, mathematics


def on_published(data: Path, place: int, prompts: int) -> dict[str, Any]:
    """What one of the compositions overpays."""
    name, witness, rows, rewards = [*published(data)][place]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Composer.from_config({"rewards": rewards}) as composer:
            composer.set_up()
            begun = time.perf_counter()
            report = attack_rewards(composer, rows, witness=witness, limit=prompts)
            seconds = time.perf_counter() - begun
    return {
        "composition": name,
        "witness": witness,
        "prompts": report.prompts,
        "answers": report.answers,
        "unscored": report.unscored,
        "seconds": round(seconds, 1),
        "findings": [
            {
                "edit": finding.result.name,
                "total": finding.result.total.record(),
                "gap": finding.result.gap.record(),
                "payer": finding.result.payer,
                "closed_by": next((each.config for each in finding.remedies if each.closes), None),
            }
            for finding in report.findings
        ],
    }


def speed(answered: int) -> dict[str, Any]:
    """Seconds of an attack on so many answers by rewards that cost nothing."""
    parts = {"judge": reward(worth), "hole": reward(HOLES["length"][1])}
    rows = answers(0, answered, per_prompt=1)
    attacked(rows[:10], parts)  # imports and plugins
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        attacked(rows, parts)
        seconds.append(time.perf_counter() - begun)
    return {"answers": answered, "seconds": round(sorted(seconds)[1], 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="Of each planted hole.")
    parser.add_argument("--clean", type=int, default=100, help="Runs of each composition without a hole.")
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2, help="Processes.")
    parser.add_argument("--data", type=Path, help="The folder of published data.")
    options = parser.parse_args()
    counts = options.prompts
    with ProcessPoolExecutor(options.workers) as pool:  # each part is a process's own
        real = [pool.submit(on_published, options.data, place, 20) for place in range(3 if options.data else 0)]
        holes = [pool.submit(planted, name, options.runs, counts) for name in HOLES]
        without = [pool.submit(clean, name, options.clean, counts) for name in CLEAN]
        results = {
            "planted": [each.result() for each in holes],
            "clean": [each.result() for each in without],
            "published": [each.result() for each in real],
        }
    fast = speed(100)
    save("attack_rewards", {**results, "speed": fast}, told(**results, fast=fast))


def told(planted: Rows, clean: Rows, published: Rows, fast: Mapping[str, Any]) -> str:
    lines = [
        f"Planted holes, {planted[0]['prompts']} prompts with two answers each, every edit by itself:",
        "",
        "| a reward pays for | its edit | found | mean place | a change closes it | a gate of its own rewards does, and on other answers |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in planted:
        place = "–" if row["mean_place"] is None else f"{row['mean_place']:.1f}"
        lines.append(
            f"| {row['hole']} | {row['edit']} | {row['found']} of {row['runs']} | {place} | {row['closed']} | {row['closed_by_own_gate']}, {row['gate_closes_on_other_answers']} |"
        )
    lines += [
        "",
        "Compositions without a hole, edits and chains of two:",
        "",
        "| composition | runs with any finding | 95% interval |",
        "|---|---:|---:|",
    ]
    for row in clean:
        share = row["share"]
        lines.append(
            f"| {row['composition']} | {row['with_a_finding']} of {row['runs']} | {share['low']:.1%} to {share['high']:.1%} |"
        )
    if published:
        lines += [
            "",
            "Compositions of this repository on published answers:",
            "",
            "| composition | witness | answers | seconds | overpaid edits |",
            "|---|---|---:|---:|---|",
        ]
        for row in published:
            found = "; ".join(
                f"{each['edit']} ({each['total']['value']:+.2f}, gap {each['gap']['value']:+.2f}, {each['payer']})"
                for each in row["findings"]
            )
            lines.append(
                f"| {row['composition']} | {row['witness']} | {row['answers']} | {row['seconds']} | {found or 'none'} |"
            )
    lines += [
        "",
        f"{fast['answers']} answers, all edits and chains of two, rewards that cost nothing: {fast['seconds']} s.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
