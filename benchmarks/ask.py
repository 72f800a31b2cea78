"""Asking a costly reward only where its answer matters: calls saved against advantages turned, and what a policy learns.

    python benchmarks/ask.py [--seeds 0 1 2] [--data DATA] [--picture]

Recorded: GRPO on the small task of ``ppo_learning.py``, of which a rule sees the first half of an answer and a simulated judge
the whole, through a haze; every answer of the judge is kept in a ledger and replayed under each policy. Published: groups of
``DATA`` (``truthfulqa``, ``rm-bench``, ``surge-toxicity``), where the embedded rewards are cheap and what people or the data's
authors said is the costly one. Random asking asks as many rows, drawn at random, of the same model, and imputes the rest alike.
Learning: GRPO with the judge asked always, by the policy, and in as many groups drawn at random.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import numpy as np
import torch
from _report import save
from ppo_learning import LENGTH, WANTED, grpo_trainer

from rlaif_judge.tournament import _Group, _informative, _swiss
from rlaif_sdk import Composer, Reward, RewardBatch, bradley_terry
from rlaif_sdk.composer import Ask, Component, Ledger
from rlaif_sdk.composer.asking import Asking, ScoreModel
from rlaif_sdk.statistics.arrays import Array, encode_groups
from rlaif_sdk.statistics.groups import group_means, rows_of_groups

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("RLAIF_DATA") or ROOT.parent / "shared" / "data")
CONFIDENCES = (0.55, 0.65, 0.75, 0.85, 0.9, 0.95, 0.99, 1.0)
HAZE, GROUP = 0.1, 8
HALF_A_STEP = 0.05
"""Of the judge's scale of tenths."""
LEARNING = Ask(confidence=0.75)
TRAINED = {"rule": 1.0, "judge": 0.5}


def share_of_wanted(words: Sequence[str], most: int) -> float:
    return sum(word in WANTED for word in words) / most


def rule(completion_texts: list[str]) -> list[float]:
    """Sees the first half of an answer."""
    return [share_of_wanted(text.split()[: LENGTH // 2], LENGTH // 2) for text in completion_texts]


class HazyJudge(Reward):
    """Sees how many of all words are wanted, off by a standard deviation of 0.1; whole tenths, as a judge gives them."""

    name, version, range = "hazy judge", "1", (0.0, 1.0)

    def __init__(self) -> None:
        self.calls = 0

    async def score(self, batch: RewardBatch) -> list[float]:
        self.calls += len(batch)
        seen = (
            share_of_wanted(text.split(), LENGTH) + random.Random(text).gauss(0, HAZE)
            for text in batch.completion_texts
        )
        return [round(10 * min(1.0, max(0.0, share))) / 10 for share in seen]


@dataclass
class Replay:
    """What a policy cost and turned, over a whole run, the time until it was ready included."""

    asked: float
    flipped: float
    waves: float = 1.0

    @classmethod
    def mean(cls, replays: Sequence[Replay]) -> Replay:
        return cls(*(statistics.mean(values) for values in zip(*(vars(one).values() for one in replays), strict=True)))


class Recorded(Reward):
    """Gives what stands in its column, and counts."""

    range, version, inputs = (0.0, 1.0), "1", ()

    def __init__(self, column: str) -> None:
        self.columns = (column,)
        self.calls: list[int] = []

    async def score(self, batch: RewardBatch) -> list[float | None]:
        self.calls.append(len(batch))
        return list(batch.column(self.columns[0]))


def centred(values_B: Array, batch: RewardBatch) -> Array:
    group_B = encode_groups(batch.group)
    return values_B - group_means(values_B, group_B)[group_B]


def flips(
    batches: Sequence[RewardBatch], totals: Sequence[Array], weights: Mapping[str, float], tolerance: float
) -> float:
    """The share of all advantages that have another sign than with every answer, and were further from 0 than the tolerance."""
    turned = rows = 0
    for batch, found_B in zip(batches, totals, strict=True):
        true_B = sum(weight * np.array(batch.column(name)) for name, weight in weights.items())
        gaps_B, now_B = centred(true_B, batch), centred(found_B, batch)
        has_turned_B = np.sign(np.round(gaps_B, 9)) * np.sign(np.round(now_B, 9)) < 0
        turned += int((has_turned_B & (np.abs(gaps_B) > tolerance)).sum())
        rows += len(batch)
    return turned / rows


def replay(
    batches: Sequence[RewardBatch], weights: Mapping[str, float], ask: Ask | None, ledger: Ledger | None = None
) -> Replay:
    """Ask a recorded judge by a policy, or always."""
    rewards = {name: Recorded(name) for name in weights}
    parts = {
        name: Component(rewards[name], weight=weight, ask=ask if name == "judge" else None)
        for name, weight in weights.items()
    }
    with Composer(parts, ledger=ledger) as composer:
        totals = [composer.compose(batch).totals for batch in batches]
    calls = rewards["judge"].calls
    turned = flips(batches, totals, weights, ask.tolerance if ask else 0.0)
    return Replay(sum(calls) / sum(map(len, batches)), turned, len(calls) / len(batches))


def replay_at_random(
    batches: Sequence[RewardBatch], weights: Mapping[str, float], share: float, seed: int, tolerance: float
) -> Replay:
    """Ask about so many rows drawn at random; the rest is imputed by the same model, which learns of all that was asked."""
    model, draw = ScoreModel(len(weights) - 1), np.random.default_rng(seed)
    names = [name for name in weights if name != "judge"]
    totals, asked, rows = [], 0, 0
    for batch in batches:
        group_B = encode_groups(batch.group)
        others_BF = np.stack([np.array(batch.column(name), dtype=np.float64) for name in names], axis=1)
        cheap_B = others_BF @ np.array([weights[name] for name in names])
        answer_B = np.array(batch.column("judge"), dtype=np.float64)
        summed = lambda raw_B, cheap_B=cheap_B: (cheap_B + weights["judge"] * raw_B,) * 2  # noqa: E731
        everyone_B, nobody_B = np.ones(len(batch), dtype=bool), np.zeros(len(batch), dtype=bool)
        if model.prediction.is_ready:
            chosen_B = draw.random(len(batch)) < share
            asking = Asking(Ask(), model.prediction, (0, 1), group_B, others_BF, everyone_B, nobody_B, summed)
            asking.tell(np.flatnonzero(chosen_B).tolist(), answer_B[chosen_B])
            totals.append(asking.totals())
        else:
            chosen_B = everyone_B
            totals.append(summed(answer_B)[0])
        known_B = np.where(chosen_B, answer_B, np.nan)
        use_B = np.zeros(len(batch)) if model.prediction.is_ready else 1.0 + group_B % 2
        model.learn(
            np.column_stack([others_BF, known_B]), group_B, use_B, np.ones(len(batch)), np.full(len(batch), np.nan)
        )
        asked, rows = asked + int(chosen_B.sum()), rows + len(batch)
    return Replay(asked / rows, flips(batches, totals, weights, tolerance))


def train(seed: int, rollouts: int, ask: Ask | None) -> tuple[list[float], list[int], list[RewardBatch]]:
    """GRPO: the share of wanted words by rollout, the judge's calls until then, and the batches with all that was said."""
    shares: list[float] = []
    calls: list[int] = []
    judge = HazyJudge()
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.sqlite", cache=False)
        parts = {
            "rule": Component(rule, weight=TRAINED["rule"]),
            "judge": Component(judge, weight=TRAINED["judge"], ask=ask),
        }
        with Composer(parts, ledger=ledger) as composer:

            def watch(made: Any) -> None:
                shares.append(
                    statistics.mean(share_of_wanted(text.split(), LENGTH) for text in made.batch.completion_texts)
                )
                calls.append(judge.calls)

            composer.observers = (watch,)
            trainer = grpo_trainer(composer.for_trl(), seed, rollouts, folder)
            trainer.train()
            batches = [
                RewardBatch(
                    entry.batch.prompts,
                    entry.batch.completions,
                    columns={name: answer.raw.tolist() for name, answer in entry.answers.items()},
                    group=entry.batch.group,
                )
                for entry in ledger.batches()
            ]
    return shares, calls, batches


def scored(rewards: Mapping[str, Any], groups: Sequence[Sequence[tuple[str, str, float, str]]]) -> list[RewardBatch]:
    """Groups of (prompt, answer, verdict, reference) as batches of eight, with what cheap rewards say, in [0, 1]."""
    found = []
    with Composer.from_config({"rewards": rewards}) as composer:
        for start in range(0, len(groups), 8):
            rows = [(number, *row) for number, group in enumerate(groups[start : start + 8]) for row in group]
            numbers, prompts, answers, verdicts, references = zip(*rows, strict=True)
            batch = RewardBatch(prompts, answers, columns={"reference": references}, group=numbers, training=False)
            said = composer.compose(batch).rewards
            columns = {}
            for name, column in said.items():
                low, high = column.declared_range
                share_B = (np.nan_to_num(column.raw, nan=low) - low) / (high - low)
                columns[name] = (share_B if column.higher_is_better else 1 - share_B).tolist()
            found.append(RewardBatch(prompts, answers, columns={**columns, "judge": list(verdicts)}, group=numbers))
    return found


def published(data: Path) -> Iterator[tuple[str, list[RewardBatch]]]:
    """Real texts with real verdicts."""
    draw = random.Random(0)
    with (data / "truthfulqa" / "TruthfulQA.csv").open(encoding="utf-8", newline="") as file:
        groups = []
        for row in csv.DictReader(file):
            pool = [(text, 1.0) for text in row["Correct Answers"].split("; ") if text != row["Best Answer"]]
            pool += [(text, 0.0) for text in row["Incorrect Answers"].split("; ")]
            drawn = draw.sample(pool, min(GROUP, len(pool)))
            groups.append([(row["Question"], text, verdict, row["Best Answer"]) for text, verdict in drawn])
    yield "truthfulqa", scored({"factuality": {}, "conciseness": {"params": {"target": 12}}}, groups)
    chats = json.loads((data / "rm-bench" / "chat_filtered.json").read_text(encoding="utf-8"))
    groups = [
        [(row["prompt"], text, float(side == "chosen"), "") for side in ("chosen", "rejected") for text in row[side]]
        for row in chats
    ]
    yield "rm-bench", scored({"conciseness": {"params": {"target": 150}}, "toxicity": {}}, groups)
    with (data / "surge-toxicity" / "toxicity_en.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], float(row["is_toxic"] != "Toxic")) for row in csv.DictReader(file)]
    draw.shuffle(rows)
    groups = [
        [(f"Comments {start // GROUP}", text, verdict, "") for text, verdict in rows[start : start + GROUP]]
        for start in range(0, len(rows), GROUP)
    ]
    yield "surge-toxicity", scored({"toxicity": {}}, groups)


def curves(
    runs: Sequence[Sequence[RewardBatch]], weights: Mapping[str, float], tolerance: float = 0.0
) -> list[dict[str, Any]]:
    """The policy at each confidence, and asking as often at random, over several runs."""
    points = []
    for confidence in CONFIDENCES:
        chosen = [replay(run, weights, Ask(confidence=confidence, tolerance=tolerance)) for run in runs]
        drawn = [
            replay_at_random(run, weights, one.asked, seed, tolerance)
            for seed, (run, one) in enumerate(zip(runs, chosen, strict=True))
        ]
        own, other = Replay.mean(chosen), Replay.mean(drawn)
        points.append(
            {
                "confidence": confidence,
                "saved": 1 - own.asked,
                "flipped": own.flipped,
                "waves": own.waves,
                "random: saved": 1 - other.asked,
                "random: flipped": other.flipped,
            }
        )
    return points


def after_another(runs: Sequence[Sequence[RewardBatch]], weights: Mapping[str, float]) -> list[dict[str, Any]]:
    """What the policy saves in all runs but the first, by themselves and with the first one's ledger as their past."""
    points = []
    with tempfile.TemporaryDirectory() as folder:
        past = Path(folder) / "ledger.sqlite"
        with Ledger(past, cache=False) as ledger:
            replay(runs[0], weights, None, ledger)
        for confidence in (0.75, 0.9):
            point: dict[str, Any] = {"confidence": confidence}
            for name, earlier in (("by itself", None), ("after another", past)):
                own = Replay.mean([replay(run, weights, Ask(confidence=confidence, past=earlier)) for run in runs[1:]])
                point[name] = {"saved": 1 - own.asked, "flipped": own.flipped}
            points.append(point)
    return points


def alone(batches: Sequence[RewardBatch]) -> list[RewardBatch]:
    """Each group as a batch of its own."""
    return [batch.select(rows) for batch in batches for rows in rows_of_groups(np.asarray(encode_groups(batch.group)))]


def cost(batches: Sequence[RewardBatch], warm: int) -> float:
    """Processor milliseconds that the policy adds to a group of eight after so many batches, learning and more calls included."""
    seconds = {}
    for name, ask in (("always", None), ("ask", Ask()), ("always again", None), ("ask again", Ask())):
        parts = {"rule": Component(Recorded("rule")), "judge": Component(Recorded("judge"), ask=ask)}
        with Composer(parts) as composer:
            for batch in batches[:warm]:
                composer.compose(batch)
            since = time.process_time()
            for batch in batches[warm:]:
                composer.compose(batch)
            seconds[name] = time.process_time() - since
    groups = sum(len(set(batch.group)) for batch in batches[warm:])
    own, base = (min(seconds[name], seconds[f"{name} again"]) for name in ("ask", "always"))
    return 1e3 * (own - base) / groups


def right_order(rounds: int, groups: int) -> dict[str, float]:
    """By scheme the share of a group's pairs whose strengths are in the right order, after as many comparisons as Swiss makes.

    The judge says by how likely one is better than the other, and is off by one standard deviation of quality a pair.
    """
    right: dict[str, list[float]] = {"swiss": [], "information": [], "comparisons": []}
    for number in range(groups):
        draw = np.random.default_rng(number)
        quality_P, haze_PP = draw.normal(size=GROUP), draw.normal(size=(GROUP, GROUP))
        players = [f"{value:.9f}" for value in draw.random(GROUP)]
        played = 0
        for name in ("swiss", "information"):
            group = _Group(range(GROUP), "", "", players, players, {}, {})
            for games in _swiss(group, rounds) if name == "swiss" else _informative(group, played):
                for one, other in games:
                    chance = 1 / (1 + np.exp(-3 * (quality_P[one] - quality_P[other] + haze_PP[one, other])))
                    group.wins_PP[one, other] += chance
                    group.wins_PP[other, one] += 1 - chance
            played = round(group.games_PP.sum() / 2)
            strengths_P = bradley_terry(group.wins_PP)
            gaps_PP, true_PP = (np.subtract.outer(values_P, values_P) for values_P in (strengths_P, quality_P))
            right[name].append(float((gaps_PP * true_PP > 0)[np.triu_indices(GROUP, 1)].mean()))
        right["comparisons"].append(played)
    return {name: statistics.mean(values) for name, values in right.items()}


def draw_picture(results: Mapping[str, Any]) -> None:
    """The curves, for the how-to."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    for colour, (name, unsorted) in enumerate(results["curves"].items()):
        points = sorted(unsorted, key=lambda point: point["saved"])
        for kind, style in (("", "o-"), ("random: ", "x:")):
            saved = [100 * point[f"{kind}saved"] for point in points]
            turned = [100 * point[f"{kind}flipped"] for point in points]
            left.plot(saved, turned, style, color=f"C{colour}", label=name if not kind else None, markersize=4)
    left.axhline(2, color="grey", linewidth=0.8)
    left.set(
        xlabel="calls saved, %",
        ylabel="advantages with another sign, %",
        title="by the policy (lines), at random (dotted)",
    )
    left.set_ylim(-0.5, 27)
    left.legend(fontsize=8, loc="upper left")
    for colour, (name, curve) in enumerate(results["learning"].items()):
        right.plot(curve["calls"], curve["share"], color=f"C{colour}", label=name)
    right.set(xlabel="calls of the judge", ylabel="share of wanted words", title="GRPO on the small task")
    right.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "pictures" / "ask.png", dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rollouts", type=int, default=40)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--groups", type=int, default=500, help="groups of the simulated tournaments")
    parser.add_argument("--picture", action="store_true", help="draw docs/pictures/ask.png")
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"there is no folder {options.data}: name it by --data or RLAIF_DATA")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)
    always = [train(seed, options.rollouts, None) for seed in options.seeds]
    runs = [batches for _, _, batches in always]
    found = {
        f"GRPO runs, judge of weight {weight:g} beside a rule of 1": curves(runs, {"rule": 1.0, "judge": weight})
        for weight in (0.2, TRAINED["judge"], 1.0)
    }
    for weight in (0.2, TRAINED["judge"], 1.0):
        found[f"the same, weight {weight:g}, tolerance half a step of the judge"] = curves(
            runs, {"rule": 1.0, "judge": weight}, HALF_A_STEP * weight
        )
    for name, batches in published(options.data):
        cheap = [column for column in batches[0].columns if column != "judge"]
        found[name] = curves([batches], {**dict.fromkeys(cheap, 1 / len(cheap)), "judge": 1.0})
    asking = [train(seed, options.rollouts, LEARNING) for seed in options.seeds]
    share = statistics.mean(calls[-1] / always[0][1][-1] for _, calls, _ in asking)
    nothing = Ask(tolerance=1e9, random_share=round(share, 3))
    drawn = [train(seed, options.rollouts, nothing) for seed in options.seeds]
    learning = {
        name: {
            "share": np.mean([shares for shares, _, _ in own], axis=0).tolist(),
            "calls": np.mean([calls for _, calls, _ in own], axis=0).tolist(),
            "last by seed": [statistics.mean(shares[-3:]) for shares, _, _ in own],
        }
        for name, own in (
            ("always", always),
            (f"ask, confidence {LEARNING.confidence:g}", asking),
            ("random groups", drawn),
        )
    }
    results = {
        "curves": found,
        "after another run": after_another(runs, TRAINED) if len(runs) > 1 else [],
        "learning": learning,
        "pairs": {str(rounds): right_order(rounds, options.groups) for rounds in (2, 3, 4, 5)},
        "added (ms a group of 8)": {"in batches of 8 groups": cost(runs[0], 10), "alone": cost(alone(runs[0]), 80)},
    }
    save("ask", results, table_of(results, options))
    if options.picture:
        draw_picture(results)


def table_of(results: Mapping[str, Any], options: argparse.Namespace) -> str:
    lines = [
        "Calls of the costly reward saved, and advantages whose sign is another than with every answer, over whole runs. With a",
        "tolerance only those count that were further from 0. Random asking asks as often and imputes alike:",
        "",
        "| scores | confidence | saved | flipped | calls in a row | random: saved | random: flipped |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, points in results["curves"].items():
        lines += [
            f"| {name} | {point['confidence']:g} | {point['saved']:.1%} | {point['flipped']:.2%} | {point['waves']:.2f} | "
            f"{point['random: saved']:.1%} | {point['random: flipped']:.2%} |"
            for point in points
        ]
    lines += [
        "",
        f"Runs of GRPO whose judge has the weight {TRAINED['judge']:g}, by themselves and with the ledger of another one as `past`:",
        "",
        "| confidence | saved, flipped by itself | saved, flipped after another |",
        "|---|---|---|",
    ]
    for point in results["after another run"]:
        both = (f"{point[name]['saved']:.1%}, {point[name]['flipped']:.2%}" for name in ("by itself", "after another"))
        lines.append(f"| {point['confidence']:g} | {' | '.join(both)} |")
    at = [rollout for rollout in (5, 10, 20, 40) if rollout <= options.rollouts]
    lines += [
        "",
        f"Share of wanted words by GRPO in the three rollouts up to a rollout, over seeds {', '.join(map(str, options.seeds))}:",
        "",
        f"| judge asked | {' | '.join(f'at {rollout}' for rollout in at)} | calls |",
        f"|---{'|---' * len(at)}|---|",
    ]
    for name, curve in results["learning"].items():
        means = [statistics.mean(curve["share"][rollout - 3 : rollout]) for rollout in at]
        lines.append(f"| {name} | {' | '.join(f'{mean:.3f}' for mean in means)} | {curve['calls'][-1]:.0f} |")
    lines += [
        "",
        f"Pairs of a group of 8 in the right order by a hazy judge, by scheme of ``tournament``, over {options.groups} groups:",
        "",
        "| comparisons of a group | swiss | information |",
        "|---|---|---|",
        *(
            f"| {own['comparisons']:.1f} | {own['swiss']:.3f} | {own['information']:.3f} |"
            for own in results["pairs"].values()
        ),
    ]
    added = ", ".join(f"{value:.2f} ms {name}" for name, value in results["added (ms a group of 8)"].items())
    lines += ["", f"Processor time that the policy adds to a group of 8: {added}."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
