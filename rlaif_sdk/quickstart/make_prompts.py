"""Make the quickstart's prompts from two published data sets; how ``data/*.jsonl`` came about, and how to remake them.

    python -m rlaif_sdk.quickstart.make_prompts harmless-base_test.jsonl.gz TruthfulQA.csv

The first file is ``harmless-base/test.jsonl.gz`` of github.com/anthropics/hh-rlhf (MIT), the second ``TruthfulQA.csv``
of github.com/sylinrl/TruthfulQA (Apache-2.0). The result depends on the two files alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypedDict

from rlaif_sdk.conversations import view
from rlaif_sdk.io.digests import bytes_digest
from rlaif_sdk.io.tables import read_rows, write_table

HELD_OUT_SIZES = {"hh-rlhf": 48, "truthfulqa": 80}
TRAIN_SIZES = {"hh-rlhf": 112, "truthfulqa": 144}
LONGEST_QUESTION = 25
"""In words: short prompts make a quick run."""

HERE = Path(__file__).parent
HH_RLHF_LINES = frozenset(map(int, (HERE / "hh-rlhf-lines.txt").read_text(encoding="utf-8").split()))
"""Lines of hh-rlhf's file (from 1) whose opening question was picked by hand. That set was written to provoke; these
questions are impolite at worst, so that anyone can read the quickstart's samples."""


class PromptRow(TypedDict):
    """One line of the data files; ``reference`` is what a right answer may say, or null where nobody knows."""

    prompt: list[dict[str, str]]
    reference: str | None
    source: str


def hh_rlhf_rows(file: Path) -> Iterator[PromptRow]:
    """The opening questions of the dialogues on `HH_RLHF_LINES`; nobody knows a right answer to them."""
    for number, record in enumerate(read_rows(file), start=1):
        if number in HH_RLHF_LINES:
            dialogue = record["chosen"].split("\n\nHuman: ")[1]
            yield _row(dialogue.split("\n\nAssistant:")[0], None, "hh-rlhf")


def truthfulqa_rows(file: Path) -> Iterator[PromptRow]:
    """The questions that are short and no stereotype, each with all its correct answers as the reference."""
    for record in read_rows(file):
        answers = [record["Best Answer"], *record["Correct Answers"].split(";")]
        sentences = dict.fromkeys(answer.strip().rstrip(".") for answer in answers if answer.strip())
        sentences.pop("I have no comment", None)
        short = len(record["Question"].split()) <= LONGEST_QUESTION
        if sentences and short and record["Category"] != "Stereotypes":
            yield _row(record["Question"], ". ".join(sentences) + ".", "truthfulqa")


def choose(rows: Iterable[PromptRow], counts: list[int]) -> list[list[PromptRow]]:
    """Disjoint samples of the given sizes, without repeated questions, in an order fixed by each question's hash."""
    questions = {view(row["prompt"], "transcript").lower(): row for row in rows}
    ordered = [questions[key] for key in sorted(questions, key=lambda text: bytes_digest(text.encode()))]
    samples, start = [], 0
    for count in counts:
        samples.append(ordered[start : start + count])
        start += count
    return samples


def interleave(parts: list[list[PromptRow]]) -> list[PromptRow]:
    """All rows, each part spread evenly over the whole, so that any stretch of the file has some of each."""
    placed: list[tuple[float, int, Any]] = [
        ((index + 0.5) / len(part), number, row) for number, part in enumerate(parts) for index, row in enumerate(part)
    ]
    return [row for _, _, row in sorted(placed, key=lambda entry: entry[:2])]


def _row(question: str, reference: str | None, source: str) -> PromptRow:
    return {
        "prompt": [{"role": "user", "content": " ".join(question.split())}],
        "reference": reference,
        "source": source,
    }


def main() -> None:
    """Write ``data/train.jsonl`` and ``data/held-out.jsonl`` beside this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hh_rlhf", type=Path, help="hh-rlhf's harmless-base/test.jsonl.gz")
    parser.add_argument("truthfulqa", type=Path, help="TruthfulQA.csv")
    files = parser.parse_args()
    rows = {"hh-rlhf": hh_rlhf_rows(files.hh_rlhf), "truthfulqa": truthfulqa_rows(files.truthfulqa)}
    chosen = {name: choose(part, [HELD_OUT_SIZES[name], TRAIN_SIZES[name]]) for name, part in rows.items()}
    for index, name in enumerate(("held-out", "train")):
        write_table(interleave([samples[index] for samples in chosen.values()]), HERE / "data" / f"{name}.jsonl")


if __name__ == "__main__":
    main()
