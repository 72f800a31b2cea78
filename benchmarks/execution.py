"""What keeping rewards on time costs: conducting the calls, chunks of an async judge, and rewards that hang."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from _report import save

from rlaif_sdk import Composer, RewardBatch
from rlaif_sdk.composer import Component
from rlaif_sdk.config import ExecutionConfig
from rlaif_sdk.scoring import Recipe, start, together, wait

REPEATS = 5
HANGS = """
import re, time

def sleeps(completions):
    time.sleep(3600)

def holds_the_interpreter_lock(completions):
    return [float(bool(re.match("(a+)+$", "a" * 40 + "b"))) for _ in completions]
"""


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    since = time.perf_counter()
    call()
    return time.perf_counter() - since


def conducting(rows: int) -> float:
    """Seconds that four calls of rewards that do nothing take, without the arithmetic of the composer."""
    scores = [1.0] * rows
    batch = RewardBatch(["p"] * rows, ["c"] * rows)
    with Composer({name: lambda completions: scores for name in ("a", "b", "c", "d")}) as composer:
        composer.compose(batch)
        runners = composer._calls.runners  # noqa: SLF001 - what compose does first

        def call() -> None:
            wait(start(together({name: runner.score(batch) for name, runner in runners.items()})))

        return statistics.median(seconds(call) for _ in range(50 * REPEATS))


def judged(rows: int, at_once: int, latency: float) -> float:
    """Seconds that an async judge takes which scores row by row."""

    async def judge(completions: Sequence[str]) -> list[float]:
        await asyncio.sleep(latency)
        return [0.5] * len(completions)

    execution = ExecutionConfig(chunk=1, concurrency=at_once)
    batch = RewardBatch(["p"] * rows, ["c"] * rows)
    with Composer({"judge": Component(judge, execution=execution)}) as composer:
        composer.compose(batch.select([0]))
        return statistics.median(seconds(lambda: composer.compose(batch)) for _ in range(REPEATS))


def hung(folder: str, name: str, *, isolated: bool, limit: float) -> float:
    """Seconds that a batch takes of which one reward hangs; the worst of several."""
    execution = ExecutionConfig(isolation="process" if isolated else "none")
    recipe = Recipe(f"hangs.py:{name}", folder=folder)

    def sleeps(completions: Sequence[str]) -> list[float]:
        time.sleep(3600)
        return [0.0] * len(completions)

    taken = []
    for _ in range(REPEATS):
        component = Component(sleeps, timeout=limit, execution=execution, recipe=recipe)
        with Composer({"hangs": component, "other": lambda completions: [1.0] * len(completions)}) as composer:
            taken.append(seconds(lambda: composer.compose(RewardBatch(["p"], ["c"]))))
    return max(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=512, help="rows for the judge")
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.1)
    parser.add_argument("--limit", type=float, default=1.0, help="seconds that a hung reward may take")
    options = parser.parse_args()
    ideal = options.latency * -(-options.rows // options.at_once)
    judge = judged(options.rows, options.at_once, options.latency)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "hangs.py").write_text(HANGS, encoding="utf-8")
        hangs = {
            "sleeps, in a thread": hung(folder, "sleeps", isolated=False, limit=options.limit),
            "sleeps, in a process": hung(folder, "sleeps", isolated=True, limit=options.limit),
            "holds the interpreter lock, in a process": hung(
                folder, "holds_the_interpreter_lock", isolated=True, limit=options.limit
            ),
        }
    conducted = conducting(4096)
    share = f"{judge:.3f} s, {judge / ideal:.3f} of the ideal {ideal:.3f} s"
    judge_line = f"An async judge of {options.latency:g} s, {options.rows} rows, {options.at_once} at once: {share}."
    table = "\n".join(
        [
            f"Conducting four calls: {1e3 * conducted:.2f} ms.",
            "",
            judge_line,
            "",
            f"A reward that hangs, with a limit of {options.limit:g} s (worst of {REPEATS}, the worker's start included):",
            "",
            "| the reward | s | s over the limit |",
            "|---|---|---|",
            *(f"| {name} | {taken:.2f} | {taken - options.limit:+.2f} |" for name, taken in hangs.items()),
        ]
    )
    results = {
        "conducting (ms)": 1e3 * conducted,
        "judge (s)": judge,
        "judge over ideal": judge / ideal,
        "hung (s)": hangs,
    }
    save("execution", results, table)


if __name__ == "__main__":
    main()
