"""Measure the reward ``factuality`` on answers of TruthfulQA, beside plain word overlap.

    python evaluation/truthfulqa.py TruthfulQA.csv [--half held-out] [--model NLI_MODEL]

The best answer of a question is the source; the candidates are its other correct answers and its incorrect ones. Two
figures a scorer: AUC within a question (does a correct answer of this question score above an incorrect one? ties
count one half; mean over questions, standard error over questions) and pooled over all candidates (standard error by
resampling questions). The questions are halved by a hash of their text: the reward's constants were chosen on
``development``, and ``held-out`` is what is reported.

Data: https://github.com/sylinrl/TruthfulQA (Lin et al. 2022, arXiv 2109.07958), Apache-2.0.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlaif_factuality import FactualityParams, rlaif_rewards
from rlaif_sdk import RewardBatch

HALVES = ("development", "held-out")
SOURCES = ("best", "several")
RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class Case:
    """One candidate answer: the question it belongs to, the source texts, and whether it is correct."""

    question: str
    sources: tuple[str, ...]
    answer: str
    correct: bool


def load_cases(path: Path, *, half: str, source: str = "best") -> list[Case]:
    """The candidates of one half of the questions.

    Args:
        path: TruthfulQA.csv.
        half: ``development`` or ``held-out``.
        source: ``best``: the best answer alone; ``several``: with every second of the other correct answers.
    """
    cases: list[Case] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.DictReader(file) if half_of(row["Question"]) == half]
    for row in rows:
        best = row["Best Answer"].strip()
        correct = [answer for answer in _answers(row["Correct Answers"]) if _key(answer) != _key(best)]
        sources = (best, *correct[0::2]) if source == "several" else (best,)
        used = set(map(_key, sources))
        for answers, is_correct in ((correct, True), (_answers(row["Incorrect Answers"]), False)):
            cases += [Case(row["Question"], sources, text, is_correct) for text in answers if _key(text) not in used]
    return cases


def half_of(question: str) -> str:
    """Which half a question is in."""
    return HALVES[int(hashlib.sha256(question.encode()).hexdigest(), 16) % 2]


def _answers(cell: str) -> list[str]:
    return [answer.strip() for answer in cell.split(";") if answer.strip()]


def _key(answer: str) -> str:
    return " ".join(answer.casefold().strip(" .").split())


def word_overlap(cases: Sequence[Case]) -> list[float]:
    """The baseline: the share of an answer's words that the source has."""
    scores = []
    for case in cases:
        answer = set(re.findall(r"\w+", case.answer.casefold()))
        scores.append(len(answer & set(re.findall(r"\w+", " ".join(case.sources).casefold()))) / max(1, len(answer)))
    return scores


def factuality(cases: Sequence[Case], params: FactualityParams) -> list[float]:
    """The reward, as a user would call it."""
    reward = next(iter(rlaif_rewards())).build(params)
    batch = RewardBatch(
        prompts=[case.question for case in cases],
        completions=[case.answer for case in cases],
        columns={params.column: [list(case.sources) for case in cases]},
    )
    reward.setup()
    return [score.value for score in reward.score(batch)]


def auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """The probability that a positive scores above a negative, ties one half."""
    ordered = np.sort(negative)
    below, not_above = np.searchsorted(ordered, positive, "left"), np.searchsorted(ordered, positive, "right")
    return float((below + not_above).mean() / (2 * len(negative)))


def figures(cases: Sequence[Case], scores: Sequence[float]) -> tuple[float, float, float, float]:
    """AUC within a question and its standard error, AUC pooled and its standard error."""
    questions: dict[str, tuple[list[float], list[float]]] = {}
    for case, score in zip(cases, scores, strict=True):
        questions.setdefault(case.question, ([], []))[case.correct].append(score)
    groups = [(np.asarray(correct), np.asarray(wrong)) for wrong, correct in questions.values()]
    within = [auc(correct, wrong) for correct, wrong in groups if len(correct) and len(wrong)]

    def pooled(chosen: Sequence[int]) -> float:
        return auc(
            np.concatenate([groups[index][0] for index in chosen]),
            np.concatenate([groups[index][1] for index in chosen]),
        )

    rng = np.random.default_rng(0)
    resampled = [pooled(rng.integers(0, len(groups), len(groups)).tolist()) for _ in range(RESAMPLES)]
    return (
        float(np.mean(within)),
        float(np.std(within, ddof=1) / len(within) ** 0.5),
        pooled(range(len(groups))),
        float(np.std(resampled, ddof=1)),
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("csv", type=Path, help="TruthfulQA.csv")
    parser.add_argument("--half", choices=HALVES, default="held-out")
    parser.add_argument("--model", help="an entailment classifier, beside the default")
    arguments = parser.parse_args()

    scorers: dict[str, Callable[[Sequence[Case]], list[float]]] = {
        "word overlap": word_overlap,
        "without number and name checks": lambda cases: factuality(cases, FactualityParams(numbers=False, names=False)),
        "factuality": lambda cases: factuality(cases, FactualityParams()),
    }
    if arguments.model:
        scorers[arguments.model] = lambda cases: factuality(cases, FactualityParams(model=arguments.model))
    for source in SOURCES:
        cases = load_cases(arguments.csv, half=arguments.half, source=source)
        correct = sum(case.correct for case in cases)
        print(f"{arguments.half}, source: {source}, {correct} correct and {len(cases) - correct} incorrect answers")
        for name, scorer in scorers.items():
            within, within_error, pooled, pooled_error = figures(cases, scorer(cases))
            print(f"  {name:32} within {within:.3f} ± {within_error:.3f}   pooled {pooled:.3f} ± {pooled_error:.3f}")


if __name__ == "__main__":
    main()
