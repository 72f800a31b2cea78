"""What a view of a chat completion costs, reading included."""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from _report import interleaved, save

from rlaif_sdk import RewardBatch

WORDS = ("the", "answer", "is", "not", "in", "Oslo", "but", "nearby", "as", "far", "I", "know", "<", "b>", "a[0]")
CALL = {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": '{"city": "Oslo"}'}}


def completions(kind: str, rows: int, draw: random.Random) -> list[Any]:
    """Completions of 60 to 180 words, by the kind of what they are written in."""

    def words(count: int) -> str:
        return " ".join(draw.choices(WORDS, k=count))

    def message() -> list[Any]:
        text = words(draw.randint(60, 180))
        if kind == "blocks":
            return [{"role": "assistant", "content": [{"type": "text", "text": text}], "tool_calls": None}]
        if kind == "thinking":
            return [{"role": "assistant", "content": f"<think>\n{words(120)}\n</think>\n\n{text}"}]
        if kind == "tools":
            return [
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "1", "content": words(200)},
                {"role": "assistant", "content": text},
            ]
        return [{"role": "assistant", "content": text}]

    return [words(120).replace("<", "") if kind == "text" else message() for _ in range(rows)]


def viewed(values: Sequence[Any]) -> Callable[[], object]:
    """A call that reads the completions anew and views them."""
    return lambda: RewardBatch(prompts=[""] * len(values), completions=values).views("assistant")


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    kinds = ("text", "chat", "blocks", "thinking", "tools")
    tables = {kind: completions(kind, options.rows, random.Random(0)) for kind in kinds}
    seconds = interleaved(
        {kind: viewed(table) for kind, table in tables.items()}, repeats=options.repeats, clock=time.process_time
    )
    micros = {kind: 1e6 * statistics.median(own) / options.rows for kind, own in seconds.items()}
    lines = [
        f"{options.rows:,} completions of 60 to 180 words, read and viewed once, processor time:",
        "",
        "| completions | microseconds a view |",
        "|---|---|",
        *(f"| {kind} | {value:.1f} |" for kind, value in micros.items()),
    ]
    save("conversations", {"microseconds a view": micros}, "\n".join(lines))


if __name__ == "__main__":
    main()
