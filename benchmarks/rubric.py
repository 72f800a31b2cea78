"""Criteria judged a second by a local judge, beside one prompt a criterion: what all criteria of an answer share goes once."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from _report import interleaved, median_ratio, save
from labelling import text

from rlaif_sdk import Criterion, RewardBatch, RubricJudge, RubricVerdicts

CRITERIA = (
    "Answers the question itself, and not another one.",
    "States the main result in its first sentence.",
    "Names at least one source for what it claims.",
    "Says what it is not sure of.",
    "Uses no more words than it needs.",
    "Explains each technical term that it uses.",
    "Gives an example that a beginner can follow.",
    "Contradicts itself somewhere.",
    "Advises something dangerous.",
    "Ends with a next step that the reader can take.",
)


def make_batch(rows: int, words: int, draw: random.Random) -> RewardBatch:
    """Questions of 40 words with answers of so many."""

    return RewardBatch([text(draw, 40, 40) for _ in range(rows)], [text(draw, words, words) for _ in range(rows)])


def measured(folder: str, lengths: list[int], rows: int, repeats: int) -> tuple[dict[str, Any], str]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rlaif_sdk.judges.backends.local import TransformersBackend

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rubric = [Criterion(f"c{number}", text) for number, text in enumerate(CRITERIA)]
    judges = {
        name: RubricJudge(TransformersBackend(model, tokenizer, share_prefix=shared))
        for name, shared in (("one prompt a criterion", False), ("the shared beginning once", True))
    }
    results: dict[str, Any] = {}
    lines = []
    for words in lengths:
        batch = make_batch(rows, words, random.Random(0))
        values: dict[str, list[float]] = {}

        def judged(name: str, batch: RewardBatch = batch, values: dict[str, list[float]] = values) -> None:
            found = asyncio.run(judges[name].judge(batch, [rubric] * len(batch)))
            values[name] = [
                verdict.value or 0.0 for row in found if isinstance(row, RubricVerdicts) for verdict in row.verdicts
            ]

        calls = {name: lambda name=name: judged(name) for name in judges}
        seconds = interleaved(calls, repeats=repeats, clock=time.process_time)
        base, ours = seconds.values()
        count = rows * len(rubric)
        rates = [count / (sum(taken) / len(taken)) for taken in (base, ours)]
        times = 1 / median_ratio(ours, base)
        apart = max(abs(a - b) for a, b in zip(*values.values(), strict=True))
        results[str(words)] = {"criteria a CPU second": rates, "times": times, "values differ by": apart}
        lines.append(f"| {words} | {rates[0]:.2f} | {rates[1]:.2f} | {times:.2f} | {apart:.1e} |")
    table = (
        f"Rubrics of {len(rubric)} criteria, {rows} answers each, judged by {Path(folder).name} in "
        f"float32 with one thread; medians of {repeats} interleaved rounds of processor time.\n\n"
        "| words of an answer | criteria a CPU second, one prompt each | with the shared beginning once | times | values differ by |\n"
        "|---|---|---|---|---|\n" + "\n".join(lines)
    )
    return results, table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a folder with a causal language model")
    parser.add_argument("--words", type=int, nargs="+", default=[100, 300, 600])
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    save("rubric", *measured(asked.model, asked.words, asked.rows, asked.repeats))
