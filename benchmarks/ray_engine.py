"""What Ray adds to scoring a table of cheap rows on one machine, and how much memory each engine takes.

Each engine scores a table and one of a tenth of its rows, as a command of its own. The difference gives the time a row,
and what is left is the start. Processor time is that of all processes of the command, and differs little when others
use the machine too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from _report import save

REWARDS = """
def brevity(prompts, completions, **columns):
    return [min(1.0, 80 / max(1, len(text))) for text in completions]


def words(prompts, completions, **columns):
    return [len(text.split()) / 100 for text in completions]
"""
CONFIG = '{"rewards": {"brevity": {"use": "rewards.py:brevity"}, "words": {"use": "rewards.py:words", "weight": 0.5}}}'
RLAIF = "from rlaif_sdk.cli import main; main()"
MIB = 1 << 20


@dataclass
class Watch:
    """The processes of a command while it runs: the most memory of each kind, and their processor time."""

    root: psutil.Process
    cpu: dict[int, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=lambda: {"command": 0, "actor": 0})

    def look(self) -> None:
        """Take a sample of every process."""
        for process in [self.root, *self.root.children(recursive=True)]:
            try:
                spent, taken = process.cpu_times(), process.memory_info().rss
                name = " ".join(process.cmdline())
            except psutil.Error:
                continue
            self.cpu[process.pid] = spent.user + spent.system
            kind = "command" if process == self.root else "actor" if "_ScoringActor" in name else ""
            if kind:
                self.memory[kind] = max(self.memory[kind], taken)


@dataclass(frozen=True)
class Run:
    """One command: seconds, processor seconds of all its processes, and the most memory of one process of a kind."""

    rows: int
    seconds: float
    processor_seconds: float
    command_mib: float
    actor_mib: float


def write_table(file: Path, rows: int) -> None:
    """Rows of a short prompt and a completion of 40 to 400 characters."""
    with file.open("w", encoding="utf-8") as table:
        for row in range(rows):
            completion = "an answer " * (4 + row % 37) + str(row)
            table.write(json.dumps({"prompt": f"Question {row}?", "completion": completion}) + "\n")


def measure(file: Path, rows: int, *arguments: str) -> Run:
    """Run ``rlaif score`` over a table in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RLAIF, "score", file.name, "--config", "config.json", *arguments]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=file.parent, env=environment, stdout=subprocess.DEVNULL)
    try:
        watch, ended = Watch(psutil.Process(process.pid)), threading.Event()

        def keep_looking() -> None:
            while not ended.wait(0.2):
                watch.look()

        looking = threading.Thread(target=keep_looking)
        looking.start()
        code = process.wait()
        seconds = time.perf_counter() - started
        ended.set()
        looking.join()
    finally:
        process.kill()
    if code:
        raise SystemExit(f"rlaif score {' '.join(arguments)} ended with {code}")
    memory = {kind: taken / MIB for kind, taken in watch.memory.items()}
    return Run(rows, seconds, sum(watch.cpu.values()), memory["command"], memory["actor"])


def main() -> None:
    """Print and save what both engines take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--actors", type=int, default=2)
    options = parser.parse_args()
    results: dict[str, list[Run]] = {"local": [], "ray": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rewards.py").write_text(REWARDS, encoding="utf-8")
        (folder / "config.json").write_text(CONFIG, encoding="utf-8")
        for rows in (options.rows // 10, options.rows):
            file = folder / f"table-{rows}.jsonl"
            write_table(file, rows)
            ray = ("--engine", "ray", "--actors", str(options.actors), "--output", f"ray-{rows}")
            results["ray"].append(measure(file, rows, *ray))
            results["local"].append(measure(file, rows, "--output", f"local-{rows}.parquet"))
            print({engine: runs[-1] for engine, runs in results.items()}, flush=True)
    lines = [
        "| engine | rows | seconds | processor s | start (s) | µs a row | processor µs a row | command MiB | actor MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for engine, (few, many) in results.items():
        between = many.rows - few.rows
        each, cpu = (many.seconds - few.seconds) / between, (many.processor_seconds - few.processor_seconds) / between
        for run in (few, many):
            figures = (run.seconds, run.processor_seconds, few.seconds - few.rows * each, 1e6 * each, 1e6 * cpu)
            numbers = " | ".join(f"{figure:.1f}" for figure in figures)
            memory = f"{run.command_mib:.0f} | {f'{run.actor_mib:.0f}' if run.actor_mib else '-'}"
            lines.append(f"| {engine} | {run.rows} | {numbers} | {memory} |")
    load = os.getloadavg()
    note = (
        f"Ray with {options.actors} actors; both engines write Parquet. Memory is the most that one process of a kind took. "
        f"Load of the machine at the end: {load[1]:.1f} over 5 minutes."
    )
    figures = {engine: [asdict(run) for run in runs] for engine, runs in results.items()}
    save("ray_engine", {**figures, "load": load[1]}, "\n".join([*lines, "", note]))


if __name__ == "__main__":
    main()
