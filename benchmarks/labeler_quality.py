"""How an AI labeler's ways of asking change its labels: alignment with people, flip rate, position bias, cost.

On pairs that people have judged: LLMBar Natural, and hh-rlhf's harmless dialogues. Labels are kept in a folder, so a run
that was stopped goes on, one with more pairs asks about the new ones alone, and one with all of them only makes the tables.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from _report import save

from rlaif_sdk.evaluation import LabelEvaluation, LabelTable, evaluate_labels, read_labels
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.tables import write_rows
from rlaif_sdk.judges import PairwiseLabeler, PairwisePrompt
from rlaif_sdk.judges.backends.local import TransformersBackend
from rlaif_sdk.judges.prompts import Detail, Task
from rlaif_sdk.preferences import run_labeling
from rlaif_sdk.statistics.estimates import Estimate, bootstrap_mean

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("RLAIF_DATA") or ROOT.parent / "shared" / "data")
LLMBAR, HARMLESS = "LLMBar Natural", "hh-rlhf harmless"
TASKS: dict[str, Task] = {LLMBAR: "helpfulness", HARMLESS: "harmlessness"}
PAIRS_IN_A_CALL = 4
"""What a kill loses at most."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way of asking."""

    detail: Detail
    chain_of_thought: bool

    def __str__(self) -> str:
        return f"{self.detail}, chain of thought" if self.chain_of_thought else self.detail


PLAIN = [Way("base", chain_of_thought=False), Way("detailed", chain_of_thought=False)]
THOUGHTS = [Way("base", chain_of_thought=True), Way("detailed", chain_of_thought=True)]


def llmbar_pairs() -> Iterator[Row]:
    """Instructions with two outputs of which annotators agreed that one is better."""
    file = DATA / "llmbar" / "Dataset_LLMBar_Natural_dataset.json"
    for row, pair in enumerate(json.loads(file.read_text(encoding="utf-8"))):
        responses = {"response_1": pair["output_1"], "response_2": pair["output_2"]}
        yield {"prompt": pair["input"], **responses, "human": pair["label"], "number": row}


def harmless_pairs() -> Iterator[Row]:
    """Dialogues with two last turns, the one that a person chose in a place drawn by lot."""
    draw = random.Random(0)
    turn = "\n\nAssistant:"
    with gzip.open(DATA / "hh-rlhf-harmless" / "harmless-base_test.jsonl.gz", "rt", encoding="utf-8") as file:
        for row, line in enumerate(file):
            sides = [json.loads(line)[name].rpartition(turn) for name in ("chosen", "rejected")]
            human = draw.choice((1, 2))
            if sides[0][0] != sides[1][0]:  # a few pairs part earlier than at the last turn
                continue
            first, second = (side[2].strip() for side in (sides if human == 1 else reversed(sides)))
            responses = {"response_1": first, "response_2": second}
            yield {"prompt": sides[0][0].strip(), **responses, "human": human, "number": row}


def write_pairs(name: str, folder: Path) -> Path:
    """All pairs of a set; how many of them are labelled, the job says."""
    path = folder / f"{name.replace(' ', '-')}.jsonl"
    if not path.exists():
        with write_rows(path) as writer:
            for pair in llmbar_pairs() if name == LLMBAR else harmless_pairs():
                writer.write(pair)
    return path


def is_labelled(output: Path, rows: int) -> bool:
    """Whether nothing is left to ask."""
    journal = output / "__job__" / "journal.jsonl"
    return journal.exists() and len(journal.read_text(encoding="utf-8").splitlines()) >= rows


def label(backend: TransformersBackend, task: Task, way: Way, pairs: Path, rows: int, output: Path, words: int) -> None:
    """Label the first pairs of a file, as far as they are not, and note what time it took."""
    prompt = PairwisePrompt.named(task, way.detail)
    labeler = PairwiseLabeler(backend, prompt, chain_of_thought=way.chain_of_thought, max_new_tokens=words)
    config = {
        "pairs": {"file": str(pairs), "rows": rows},
        "judge": {"model": "the backend that is passed"},
        "output": str(output),
        "rows_per_call": PAIRS_IN_A_CALL,
    }
    if not is_labelled(output, rows):
        backend.setup()  # loading is no part of what a pair takes
    since = time.process_time()
    asked = run_labeling(config, labeler=labeler).asked
    if asked:
        with (output / "times.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"pairs": asked, "cpu_seconds": time.process_time() - since}) + "\n")


def cpu_seconds(output: Path) -> float:
    """Processor seconds a pair, over all runs that came to their end."""
    runs = [json.loads(line) for line in (output / "times.jsonl").read_text(encoding="utf-8").splitlines()]
    return sum(run["cpu_seconds"] for run in runs) / sum(run["pairs"] for run in runs)


def agreement(labels: Path) -> dict[int, tuple[float, float]]:
    """By a pair's number: whether the averaged label agrees with people, and the mean of the two orders on their own.

    1 where the label agrees, 0 where it does not, 0.5 for a tie.
    """
    table: LabelTable = read_labels(labels, columns=["human", "number"])
    human_N = np.array([1.0 if value == 1 else 0.0 for value in table.columns["human"]])
    orders_2N = np.stack([table.when_first_N, table.when_second_N])
    both_N = 1 - np.abs(table.outcomes_N - human_N)
    alone_N = (1 - np.abs(0.5 * (1 + np.sign(orders_2N - 0.5)) - human_N)).mean(0)
    return {
        number: (float(both), float(alone))
        for number, both, alone in zip(table.columns["number"], both_N, alone_N, strict=True)
        if not np.isnan(alone)
    }


def mean_difference(differences: list[float]) -> Estimate:
    return bootstrap_mean(np.array(differences), np.arange(len(differences)))


def effects(found: dict[Way, dict[int, tuple[float, float]]]) -> dict[str, Estimate]:
    """What each measure changes of the alignment, pair by pair on the pairs that both ways labelled."""
    changes = {
        f"both orders averaged, not one ({way})": mean_difference([both - alone for both, alone in own.values()])
        for way, own in found.items()
    }
    for name, way, other in (
        ("detailed preamble, not base", PLAIN[1], PLAIN[0]),
        ("chain of thought, not none (base)", THOUGHTS[0], PLAIN[0]),
        ("chain of thought, not none (detailed)", THOUGHTS[1], PLAIN[1]),
    ):
        if way in found and other in found:
            common = sorted(found[way].keys() & found[other].keys())
            changes[name] = mean_difference([found[way][row][0] - found[other][row][0] for row in common])
    return changes


def percent(figure: Estimate | None) -> str:
    return "–" if figure is None else f"{figure.value:.0%} ({figure.low:.0%} to {figure.high:.0%})"


def points(figure: Estimate) -> str:
    return f"{100 * figure.value:+.0f} ({100 * figure.low:+.0f} to {100 * figure.high:+.0f})"


def row(way: Way, found: LabelEvaluation, mass: float, seconds: float) -> str:
    assert found.alignment is not None
    asked = found.alignment
    shares = (asked.when_first, asked.when_second, asked.accuracy, found.flip_rate)
    places = " / ".join(f"{figure.value:.0%}" for figure in (found.first_wins, found.second_wins) if figure)
    kappa = f"{asked.symmetric_kappa.value:.2f} ({asked.symmetric_kappa.low:.2f} to {asked.symmetric_kappa.high:.2f})"
    error = f"{asked.calibration.error:.2f}" if asked.calibration else "–"
    costs = f"{mass:.2f} | {seconds:.1f} | {found.usage.tokens / found.labels:.0f}"
    cells = f"{' | '.join(map(percent, shares))} | {places} | {kappa} | {found.ties} | {error} | {costs}"
    return f"| {way} | {found.labels} | {cells} |"


HEAD = (
    "| way of asking | pairs | given order | turned order | both averaged | flip rate | first / second place wins "
    "| symmetric kappa | ties | ECE | label mass | CPU s a pair | tokens a pair |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def measured(folders: dict[Way, Path]) -> tuple[dict[str, Any], list[str]]:
    """The figures of a set by one judge, and the lines of its two tables."""
    results: dict[str, Any] = {}
    lines = [HEAD]
    for way, folder in folders.items():
        labels = folder / "labels.jsonl"
        found, seconds = evaluate_labels(labels, human="human"), cpu_seconds(folder)
        masses = read_labels(labels, columns=["label_mass"]).columns["label_mass"]
        known = [value for value in masses if value is not None]
        mass = sum(known) / len(known)
        results[str(way)] = {**found.record(), "mean_label_mass": mass, "cpu_seconds_per_pair": seconds}
        lines.append(row(way, found, mass, seconds))
    changes = effects({way: agreement(folder / "labels.jsonl") for way, folder in folders.items()})
    results["changes"] = {name: figure.record() for name, figure in changes.items()}
    lines += ["", "| what changes | alignment, in points | pairs |", "|---|---|---|"]
    lines += [f"| {name} | {points(figure)} | {figure.n} |" for name, figure in changes.items()]
    return results, lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a folder or hub name; by default the quickstart's model")
    parser.add_argument("--name", default="labeler_quality", help="of the files of results")
    parser.add_argument("--dtype", default="bfloat16", help="float32 takes some four times as long on a CPU")
    parser.add_argument("--sets", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--pairs", type=int, nargs="+", default=[60], help="of all sets, or of each in turn")
    parser.add_argument("--thoughts", type=int, nargs="+", default=[16], help="pairs asked with a chain of thought")
    parser.add_argument("--max-new-tokens", type=int, default=40, help="of a rationale")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--labels", type=Path, default=Path(tempfile.gettempdir()) / "labeler-quality")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    if options.model is None:
        from rlaif_sdk.quickstart.model import prepare_policy

        options.model = str(prepare_policy())
    model = Path(options.model).name
    results: dict[str, Any] = {}
    lines = [f"{model} in {options.dtype}; 95% intervals in brackets."]
    backend = TransformersBackend(options.model, dtype=options.dtype)
    for name, plain, thoughts in zip(options.sets, cycle(options.pairs), cycle(options.thoughts), strict=False):
        home = options.labels / model / name.replace(" ", "-")
        home.mkdir(parents=True, exist_ok=True)
        pairs = write_pairs(name, options.labels)
        folders = {}
        for way in [*PLAIN, *(THOUGHTS if thoughts else [])]:
            rows = thoughts if way.chain_of_thought else plain
            folders[way] = home / str(way).replace(", ", "-").replace(" ", "-")
            label(backend, TASKS[name], way, pairs, rows, folders[way], options.max_new_tokens)
        results[name], own = measured(folders)
        lines += ["", f"**{name}**", "", *own]
    save(options.name, {"judge": model, "dtype": options.dtype, **results}, "\n".join(lines))


if __name__ == "__main__":
    main()
