"""What the defences of judges cost on real answers: how many of published ones they refuse, by kind of data.

Give files as ``KIND=FILE``; a kind says where a file has its answers. A file may be compressed with gzip.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from _report import save

from rlaif_sdk.attacks import Refusals, measure_refusals
from rlaif_sdk.judges import load_judge

Rows = Iterator[Mapping[str, Any]]


def dialogues(rows: Rows) -> Iterator[str]:
    """All that the assistant says in two dialogues of one text each; what they share counts once."""
    for row in rows:
        turns = [turn for name in ("chosen", "rejected") for turn in row[name].split("\n\nAssistant:")[1:]]
        yield from dict.fromkeys(turn.partition("\n\nHuman:")[0].strip() for turn in turns)


def columns(*names: str) -> Callable[[Rows], Iterator[str]]:
    """What columns have: a text, or a list of texts."""

    def answers(rows: Rows) -> Iterator[str]:
        for row in rows:
            for name in names:
                yield from row[name] if isinstance(row[name], list) else [row[name]]

    return answers


def truthful(rows: Rows) -> Iterator[str]:
    """Answers that are separated by semicolons, right and wrong."""
    for row in rows:
        for name in ("Correct Answers", "Incorrect Answers"):
            yield from filter(None, map(str.strip, row[name].split(";")))


def numbers(rows: Rows) -> Iterator[str]:
    """The final number of a worked solution alone."""
    for row in rows:
        yield row["answer"].rpartition("####")[2].strip()


KINDS: Mapping[str, tuple[str, Callable[[Rows], Iterator[str]]]] = {
    "hh": ("turns of dialogues (hh-rlhf, harmless)", dialogues),
    "llmbar": ("answers to instructions (LLMBar)", columns("output_1", "output_2")),
    "rm-bench": ("long answers with Markdown (RM-Bench, chat)", columns("chosen", "rejected")),
    "truthfulqa": ("one-line answers (TruthfulQA)", truthful),
    "gsm8k": ("worked solutions (GSM8K)", columns("answer")),
    "gsm8k-numbers": ("their final numbers alone", numbers),
    "humaneval": ("code (HumanEval)", columns("canonical_solution")),
    "surge": ("comments (Surge, toxicity)", columns("text")),
    "davidson": ("tweets (Davidson et al.)", columns("tweet")),
}


def rows_of(file: Path) -> Rows:
    """The rows of CSV, a JSON array, or JSON lines."""
    data = file.read_bytes()
    text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode()
    if ".csv" in file.suffixes:
        yield from csv.DictReader(io.StringIO(text))
    elif text.lstrip().startswith("["):
        yield from json.loads(text)
    else:
        yield from map(json.loads, filter(str.strip, text.splitlines()))


def line(name: str, found: Refusals) -> str:
    """A row of the table."""
    share = found.share_of_openings
    changed = ", ".join(f"{flag} {count}" for flag, count in found.changed.items()) or "0"
    interval = f"{share.value:.2%} ({share.low:.2%} to {share.high:.2%})"
    return (
        f"| {name} | {found.answers:,} | {len(found.without_words)} | {len(found.openings)} | {interval} | {changed} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", help=f"KIND=FILE each; kinds: {', '.join(KINDS)}")
    answers: dict[str, list[str]] = {}
    for given in parser.parse_args().files:
        kind, _, file = given.partition("=")
        name, read = KINDS[kind]
        answers.setdefault(name, []).extend(read(rows_of(Path(file))))
    judge = load_judge(model="none", max_chars=1_000_000)
    found = {name: measure_refusals(judge, own) for name, own in answers.items()}
    found["all"] = measure_refusals(judge, (one for own in answers.values() for one in own))
    head = "| real answers | count | refused: no word | refused: only an opening | share (95% interval) | changed |"
    table = "\n".join([head, "|---|---|---|---|---|---|", *(line(name, own) for name, own in found.items())])
    counts = {name: {**own.record(), "refused": len(own.record()["refused"])} for name, own in found.items()}
    save("judge_refusals", counts, table)
    for name, own in found.items():
        if name != "all":
            for refused in own.openings:
                print(f"{name}, {refused.answer}: {refused.text[:100]!r}")


if __name__ == "__main__":
    main()
