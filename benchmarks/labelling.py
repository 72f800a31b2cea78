"""Pairs labelled a second by a local judge, beside what a user would write."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from _report import interleaved, median_ratio, save

from rlaif_sdk.judges import Exemplar, Pair, PairwiseLabeler, PairwisePrompt

WORDS = (  # noqa: SIM905 - a list of a hundred quoted words reads worse
    "the of and to a in that is was he for it with as his on be at by had not are but from or have an they which one "
    "you were her all she there would their we him been has when who will more no if out so said what up its about "
    "into than them can only other new some could time these two may then do first any my now such like our over man"
).split()


def text(draw: random.Random, least: int, most: int) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(least, most))).capitalize() + "."


def make_pairs(rows: int, draw: random.Random) -> list[Pair]:
    """Texts of 60 to 160 words, each with two summaries of 15 to 40."""
    return [Pair(text(draw, 60, 160), text(draw, 15, 40), text(draw, 15, 40)) for _ in range(rows)]


def make_prompt(draw: random.Random) -> PairwisePrompt:
    """The detailed summarisation prompt with two exemplars: what every pair shares."""
    shown = [
        Exemplar(prompt=str(p.prompt), response_1=str(p.response_1), response_2=str(p.response_2), preferred="1")
        for p in make_pairs(2, draw)
    ]
    return PairwisePrompt.named("summarisation", "detailed").with_exemplars(shown)


def by_hand(model: Any, tokenizer: Any, prompt: PairwisePrompt, pairs: list[Pair]) -> Callable[[], list[float]]:
    """The obvious code: two forward passes a pair, one at a time."""
    import torch

    one, two = (tokenizer.convert_tokens_to_ids(label) for label in "12")

    def prob_first(question: str, first: str, second: str) -> float:
        asked = [{"role": "user", "content": prompt.question(question, first, second, prompt.ending)}]
        ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=False)
        with torch.inference_mode():
            logits = model(ids).logits[0, -1]
        return logits[[one, two]].float().softmax(-1)[0].item()

    def run() -> list[float]:
        return [
            (prob_first(p.prompt, p.response_1, p.response_2) + 1 - prob_first(p.prompt, p.response_2, p.response_1))
            / 2
            for p in pairs
        ]

    return run


def by_pipeline(model: Any, tokenizer: Any, prompt: PairwisePrompt, pairs: list[Pair]) -> Callable[[], list[Any]]:
    """transformers' pipeline for decisions, asked about the same texts in both orders."""
    from transformers import pipeline

    decide = pipeline("decision", model=model, tokenizer=tokenizer)
    question = {"type": "choice", "instructions": "Which is better?", "criteria": {"1": "number 1", "2": "number 2"}}

    def requests() -> list[dict[str, Any]]:
        states = [
            prompt.question(p.prompt, first, second, "Which summary is better?")
            for p in pairs
            for first, second in ((p.response_1, p.response_2), (p.response_2, p.response_1))
        ]
        return [{"state": state, "questions": {"better": question}} for state in states]

    return lambda: decide(requests())


def speed(folder: str, dtype: str, rows: int, repeats: int) -> tuple[dict[str, Any], str]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rlaif_sdk.judges.backends.local import TransformersBackend

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    draw = random.Random(0)
    prompt = make_prompt(draw)
    pairs = make_pairs(rows, draw)

    labeler = PairwiseLabeler(TransformersBackend(model, tokenizer), prompt)

    def labelled() -> list[float | None]:
        """A loaded model's prefix is forgotten after each call, so every round computes the preamble again."""
        return [label.prob_1 for label in asyncio.run(labeler.label(pairs))]

    variants: dict[str, Callable[[], Any]] = {
        "two forward passes a pair, one at a time": by_hand(model, tokenizer, prompt, pairs),
        "transformers' DecisionPipeline": by_pipeline(model, tokenizer, prompt, pairs),
        "rlaif_sdk": labelled,
    }
    names = list(variants)
    answers: dict[str, Any] = {}

    def kept(name: str) -> Callable[[], None]:
        return lambda: answers.update({name: variants[name]()})

    seconds = interleaved({name: kept(name) for name in names}, repeats=repeats, clock=time.process_time)
    difference = max(abs(a - b) for a, b in zip(answers[names[0]], answers["rlaif_sdk"], strict=True))
    shared = len(tokenizer(prompt.question("", "", "", ""))["input_ids"])
    asked = [
        len(tokenizer(prompt.question(p.prompt, p.response_1, p.response_2, prompt.ending))["input_ids"]) for p in pairs
    ]
    results: dict[str, Any] = {"pairs": rows, "largest difference of a probability": difference}
    lines = []
    for name, own in seconds.items():
        pace, ratio = rows / statistics.median(own), 1 / median_ratio(own, seconds[names[0]])
        results[name] = {"pairs per CPU second": pace, "times": ratio}
        lines.append(f"| {name} | {pace:.3f} | {ratio:.2f} |")
    table = "\n".join(
        [
            (
                f"{rows} pairs in both orders by {Path(folder).name} in {dtype}, one thread; prompts of "
                f"{statistics.median(asked):.0f} tokens (median), about {shared} of them shared by all; medians of "
                f"{repeats} interleaved rounds. Probabilities of the first and the last differ by {difference:.1e} at most."
            ),
            "",
            "| | pairs a CPU second | times |",
            "|---|---|---|",
            *lines,
        ]
    )
    return results, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a folder or hub name; by default the quickstart's model")
    parser.add_argument("--dtype", default="bfloat16", help="float32 takes some four times as long on a CPU")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    from rlaif_sdk.quickstart.model import prepare_policy

    pace, table = speed(options.model or str(prepare_policy()), options.dtype, options.pairs, options.repeats)
    save("labelling", pace, table)


if __name__ == "__main__":
    main()
