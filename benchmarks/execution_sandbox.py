"""What the reward ``execution`` costs and whom it believes, beside running the tests in a process that exits with 0."""

from __future__ import annotations

import argparse
import asyncio
import gzip
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _report import interleaved, save

from rlaif_execution import rlaif_rewards
from rlaif_execution.confinement import Confined
from rlaif_execution.policy import Policy
from rlaif_sdk import RewardBatch, Score

ROOT = Path(__file__).parents[1]
ONE = '[{"args": [1], "expected": 1}]'
CHECK = """
def check(candidate):
    assert candidate(1, "x") == ["x"]
    assert candidate(2, "x") == ["x", "x"]
    assert abs(candidate(0, 2.5) - 2.5) < 1e-6
"""


def hacks() -> dict[str, str]:
    """The answers that pretend, as the plugin's tests have them."""
    spec = importlib.util.spec_from_file_location("hacks", ROOT / "plugins" / "execution" / "tests" / "hacks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, str] = module.HACKS
    return found


def rival(code: str) -> bool:
    """Whether a process that runs the answer and then the asserts exits with 0: what a user would write first."""
    script = f"{code}\n{CHECK}\ncheck(f)\n"
    command = [sys.executable, "-c", script]
    try:
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def scored(answers: Sequence[str], columns: dict[str, list[Any]], **params: Any) -> tuple[list[Score], float]:
    """The scores of answers, and the seconds that they took."""
    reward = rlaif_rewards()[0].build({"code": "whole", **params})
    reward.setup()
    prompts = columns.pop("prompt", [""] * len(answers))
    since = time.perf_counter()
    found = asyncio.run(reward.score(RewardBatch(prompts, list(answers), columns=columns)))
    seconds = time.perf_counter() - since
    reward.close()
    return found, seconds


def processor_seconds() -> float:
    """Processor time of this process and of the children that it has waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def starts(repeats: int) -> dict[str, tuple[float, float]]:
    """What a bare interpreter, a sandbox up to its readiness, and a row with one case take.

    Returns:
        Median milliseconds that pass, and milliseconds of processor time, which other processes change less.
    """
    policy = Policy(test_seconds=5, row_seconds=30, memory=512 << 20, output=1 << 20)
    never = threading.Event()

    def sandbox() -> None:
        Confined(policy, "solution", never).close()

    def bare() -> None:
        subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True)

    reward = rlaif_rewards()[0].build({"code": "whole"})
    reward.setup()
    batch = RewardBatch([""], ["def f(n): return n"], columns={"tests": [ONE], "entry_point": ["f"]})

    def row() -> None:
        asyncio.run(reward.score(batch))

    variants: dict[str, Callable[[], object]] = {
        "`python -I -S -c ''`, not confined": bare,
        "a sandbox, until it is ready": sandbox,
        "a row with one case": row,
    }
    passed = interleaved(variants, repeats=repeats)
    used = interleaved(variants, repeats=repeats, clock=processor_seconds)
    reward.close()
    return {name: (1e3 * statistics.median(passed[name]), 1e3 * statistics.median(used[name])) for name in variants}


def humaneval(folder: Path, at_once: Sequence[int]) -> tuple[int, int, dict[int, float]]:
    """Published solutions that score 1, of how many, and rows a second by how many run at once."""
    with gzip.open(folder / "data_HumanEval.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    speeds, right = {}, 0
    for concurrency in at_once:
        columns = {name: [row[name] for row in rows] for name in ("prompt", "entry_point")}
        columns["tests"] = [row["test"] for row in rows]
        found, seconds = scored([row["canonical_solution"] for row in rows], columns, concurrency=concurrency)
        right = sum(score.value == 1.0 for score in found)
        speeds[concurrency] = len(rows) / seconds
    return right, len(rows), speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("RLAIF_DATA", ROOT.parent / "shared" / "data"))
    )
    options = parser.parse_args()
    started = starts(options.repeats)
    answers = list(hacks().values())
    found, _ = scored(answers, {"tests": [CHECK] * len(answers), "entry_point": ["f"] * len(answers)})
    believed = {
        "the reward": sum(score.value != 0.0 for score in found),
        "asserts in a process, by its exit code": sum(map(rival, answers)),
    }
    folder = options.data / "humaneval"
    at_once = (1, len(os.sched_getaffinity(0)))
    right, total, speeds = humaneval(folder, at_once) if folder.exists() else (0, 0, {})  # 0 of 0: not measured
    table = "\n".join(
        [
            "| what | ms, median | ms of processor time, median |",
            "|---|---|---|",
            *(f"| {name} | {passed:.0f} | {used:.0f} |" for name, (passed, used) in started.items()),
            "",
            f"HumanEval's published solutions that score 1: {right} of {total}.",
            "",
            "| rows at once | HumanEval rows a second, two sandboxes each |",
            "|---|---|",
            *(f"| {concurrency} | {speed:.1f} |" for concurrency, speed in speeds.items()),
            "",
            f"| judge | of {len(answers)} answers that pretend, it believes |",
            "|---|---|",
            *(f"| {name} | {count} |" for name, count in believed.items()),
        ]
    )
    results = {
        "start (ms, ms of processor time)": started,
        "HumanEval solutions that score 1": [right, total],
        "rows a second": speeds,
        "hacks": len(answers),
        "hacks believed": believed,
    }
    save("execution_sandbox", results, table)


if __name__ == "__main__":
    main()
