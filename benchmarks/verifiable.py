"""What a row of each reward of rlaif-verifiable costs, and that no LaTeX keeps `math` longer than its limit."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import psutil
from _report import interleaved, save

from rlaif_sdk import Reward, RewardBatch
from rlaif_verifiable import rlaif_rewards

SPECS = {spec.name: spec for spec in rlaif_rewards()}
WORDS = (
    "the",
    "river",
    "runs",
    "slowly",
    "past",
    "an",
    "old",
    "mill",
    "and",
    "nobody",
    "knows",
    "why",
    "it",
    "stopped",
)
CALL = {"name": "look_up", "arguments": {"city": "Oslo"}}
SCHEMA = {
    "type": "object",
    "required": ["city"],
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
}
INSTRUCTIONS = (
    ("punctuation:no_comma", {}),
    ("length_constraints:number_words", {"num_words": 100, "relation": "at least"}),
    ("length_constraints:number_sentences", {"num_sentences": 5, "relation": "at least"}),
)
HOSTILE = {
    "a tower of powers": "9^{9^{9^{9^{9}}}}",
    "a factorial": "(10^{9})!",
    "fractions 300 deep": "\\frac{1}{" * 300 + "2" + "}" * 300,
    "braces 5,000 deep": "{" * 5_000 + "1" + "}" * 5_000,
    "a number of 20,000 digits": "7" * 20_000,
    "a polynomial to expand": "(x+y+z+1)^{400}",
    "a sum of 4,000 terms": "+".join(f"x^{{{power}}}" for power in range(4_000)),
    "an integral": "\\int_0^{\\infty} \\frac{\\sin(x^{x^{x}})}{x^{7}+\\sqrt{x}} dx",
}


def text(draw: random.Random) -> str:
    """An answer of ten sentences, 150 words."""
    return " ".join(" ".join(draw.choices(WORDS, k=15)).capitalize() + "." for _ in range(10))


def cases(rows: int) -> dict[str, tuple[str, Mapping[str, Any], Sequence[Any], Mapping[str, Sequence[Any]]]]:
    """For each line of the table: reward, params, completions, columns."""
    draw = random.Random(0)
    texts = [text(draw) for _ in range(rows)]
    function = {"name": "look_up", "arguments": json.dumps(CALL["arguments"])}
    call = [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": function}]}
    ]
    answers = {"answer": ["63/400"] * rows}
    instructions = {
        "instruction_id_list": [[kind for kind, _ in INSTRUCTIONS]] * rows,
        "kwargs": [[arguments for _, arguments in INSTRUCTIONS]] * rows,
    }
    languages = {
        "instruction_id_list": [["language:response_language"]] * rows,
        "kwargs": [[{"language": "en"}]] * rows,
    }
    return {
        "`math`": ("math", {}, [f"{line} It is $\\frac{{{n}}}{{400}}$." for n, line in enumerate(texts)], answers),
        "`exact_match`": ("exact_match", {"place": "last_line"}, texts, answers),
        "`token_f1`": ("token_f1", {}, texts, {"answer": texts[::-1]}),
        "`multiple_choice`": (
            "multiple_choice",
            {},
            [f"{line} The answer is (C)." for line in texts],
            {"answer": ["C"] * rows},
        ),
        "`format`": (
            "format",
            {"form": "tags"},
            [f"<think>\n{line}\n</think>\n<answer>\n1\n</answer>" for line in texts],
            {},
        ),
        "`json_schema`": ("json_schema", {"json_schema": SCHEMA}, ['{"city": "Oslo", "days": 3}'] * rows, {}),
        "`tool_calls`": ("tool_calls", {}, [call] * rows, {"tool_calls": [[CALL]] * rows}),
        "`overlap`, rougeL": ("overlap", {}, texts, {"reference": texts[::-1]}),
        "`overlap`, chrf": ("overlap", {"metric": "chrf"}, texts, {"reference": texts[::-1]}),
        "`language`": ("language", {"language": "en"}, texts, {}),
        "`overlong`": ("overlong", {"max_tokens": 1024, "buffer": 256}, texts, {}),
        "`repetition`": ("repetition", {"ngram": 3}, texts, {}),
        "`instruction`, commas, words and sentences": ("instruction", {}, texts, instructions),
        "`instruction`, the same, loose": ("instruction", {"mode": "loose"}, texts, instructions),
        "`instruction`, the language": ("instruction", {}, texts, languages),
    }


def processor_time() -> float:
    """Of this process and of the one that verifies mathematics."""
    children = (child.cpu_times() for child in psutil.Process().children())
    return time.process_time() + sum(times.user + times.system for times in children)


def microseconds(rows: int, repeats: int) -> dict[str, float]:
    """Of processor time, a row, for each line of the table; libraries are loaded before."""
    rewards: dict[str, tuple[Reward, RewardBatch]] = {}
    for line, (name, params, completions, columns) in cases(rows).items():
        ids = [list(range(600))] * rows
        rewards[line] = (
            SPECS[name].build(params),
            RewardBatch(["p"] * rows, list(completions), columns=dict(columns), completion_ids=ids),
        )
        rewards[line][0].setup()
    calls = {line: lambda reward=reward, batch=batch: reward.score(batch) for line, (reward, batch) in rewards.items()}
    seconds = interleaved(calls, repeats=repeats, clock=processor_time)
    for reward, _ in rewards.values():
        reward.close()
    return {line: 1e6 * statistics.median(own) / rows for line, own in seconds.items()}


def hostile(limit: float) -> dict[str, tuple[float, str]]:
    """Seconds until `math` has a verdict on each hostile answer, beside an ordinary one that warms it up, and the verdict."""
    reward = SPECS["math"].build({"seconds": limit})
    verdicts = {}
    for name, formula in {"": "1", **HOSTILE}.items():
        since = time.perf_counter()
        (score,) = reward.score(RewardBatch(["p"], [f"It is ${formula}$."], columns={"answer": ["63/400"]}))
        verdicts[name] = time.perf_counter() - since, str(score.error or score.reason)
        if name:  # where it was ended, start the process again, which is not part of the time
            reward.score(RewardBatch(["p"], ["It is $1$."], columns={"answer": ["1"]}))
    reward.close()
    del verdicts[""]
    return verdicts


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=float, default=2.0)
    options = parser.parse_args()
    micros = microseconds(options.rows, options.repeats)
    bombs = hostile(options.limit)
    lines = [
        f"{options.rows} answers of 150 words, processor time, the views of completions read before:",
        "",
        "| reward | microseconds a row |",
        "|---|---|",
        *(f"| {line} | {value:,.1f} |" for line, value in micros.items()),
        "",
        f"`math` with `seconds: {options.limit:g}` on hostile LaTeX, wall time:",
        "",
        "| answer | seconds | verdict |",
        "|---|---|---|",
        *(f"| {name} | {seconds:.2f} | {reason[:60].replace('|', ' ')} |" for name, (seconds, reason) in bombs.items()),
    ]
    results = {
        "microseconds a row": micros,
        "seconds on hostile LaTeX": {name: own for name, (own, _) in bombs.items()},
    }
    save("verifiable", results, "\n".join(lines))


if __name__ == "__main__":
    main()
