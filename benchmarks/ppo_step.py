"""What a PPO step costs beside TRL's last PPOTrainer: processor time, wall time and memory.

TRL 1.12 lives in a virtual environment of its own, made by ``--make-environment`` (nox does that). The sides are processes
of one thread that take turns, step by step, with the same model, prompts, batch, lengths and optimiser. TRL's trainer
always has a critic of its own; ours is measured with a value head on the policy and with such a critic.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

from _report import save
from _turns import ONE_THREAD, Worker

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parent / ".nox" / "trl-1.12"
REQUIREMENTS = ["trl==1.12.*", "transformers==5.23.*"]
SIDES = {"shared": "value head on the policy", "critic": "critic of its own", "trl": "TRL 1.12"}
CASES = [(48, 2), (192, 1)]


def make_environment(folder: Path) -> None:
    """An environment with TRL 1.12 and the version of torch that runs this script."""
    from importlib.metadata import version

    venv.create(folder, with_pip=True)
    torch = f"torch=={version('torch').partition('+')[0]}"
    for requirements in ([torch], [torch, *REQUIREMENTS]):
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "-q", *requirements], check=True)


def measure(tokens: int, epochs: int, *, batch: int, repeats: int, trl_python: Path) -> dict[str, dict[str, float]]:
    """Medians of each side's steps, after one that is not counted, and the peak of its memory."""
    workers = {
        side: Worker(
            [
                os.fspath(trl_python) if side == "trl" else sys.executable,
                os.fspath(HERE / "_ppo_worker.py"),
                *("--side", side, "--tokens", str(tokens), "--epochs", str(epochs), "--batch", str(batch)),
            ],
            ONE_THREAD,
        )
        for side in SIDES
    }
    turns: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for round_number in range(-1, repeats):
        for side, worker in workers.items():
            figures = worker.turn()
            if round_number >= 0:
                turns[side].append(figures)
    return {
        side: {
            "steps": len(turns[side]),
            "processor time (s)": statistics.median(turn["cpu"] for turn in turns[side]),
            "wall time (s)": statistics.median(turn["wall"] for turn in turns[side]),
            "processor time over TRL": _median_ratio(turns[side], turns["trl"], "cpu"),
            "wall time over TRL": _median_ratio(turns[side], turns["trl"], "wall"),
            **{f"{name} (MiB)": figure for name, figure in worker.stop().items()},
        }
        for side, worker in workers.items()
    }


def _median_ratio(own: list[dict[str, float]], base: list[dict[str, float]], clock: str) -> float:
    return statistics.median(one[clock] / other[clock] for one, other in zip(own, base, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--trl-environment", type=Path, default=ENVIRONMENT, help="virtual environment with TRL 1.12")
    parser.add_argument("--make-environment", action="store_true", help="make that environment if it is missing")
    options = parser.parse_args()
    trl_python = options.trl_environment / "bin" / "python"
    if not trl_python.exists():
        if not options.make_environment:
            parser.error(f"{options.trl_environment} does not exist: pass --make-environment")
        make_environment(options.trl_environment)
    results = {
        f"{tokens} new tokens, {epochs} epochs": measure(
            tokens, epochs, batch=options.batch, repeats=options.repeats, trl_python=trl_python
        )
        for tokens, epochs in CASES
    }
    report(results, batch=options.batch)


def report(results: Mapping[str, Mapping[str, Mapping[str, float]]], *, batch: int) -> None:
    """Save the figures, and a table of them with memory as a share of TRL's."""
    lines = []
    for case, sides in results.items():
        for side, figures in sides.items():
            memory = [
                f"{figures[level]:.0f} | {figures[level] / sides['trl'][level]:.2f}"
                for level in ("peak above models (MiB)", "peak above imports (MiB)")
            ]
            lines.append(
                f"| {case} | {SIDES[side]} | {figures['processor time (s)']:.2f} "
                f"| {figures['processor time over TRL']:.2f} | {figures['wall time over TRL']:.2f} | {' | '.join(memory)} |"
            )
    steps = " and ".join(f"{sides['trl']['steps']:.0f} ({case})" for case, sides in results.items())
    table = "\n".join(
        [
            (
                f"One PPO step (a rollout of {batch} completions and its epochs) of a Llama of hidden size 256, 4 layers and a "
                f"vocabulary of 32,000, prompts of 8 to 24 tokens, one thread. Medians of interleaved steps, {steps}; ratios "
                "are within rounds. Memory is the peak of what is resident during training, above what was when all models "
                "were loaded, and above what was before any was."
            ),
            "",
            "| | | processor s | over TRL | wall over TRL | peak MiB | over TRL | with models | over TRL |",
            "|---|---|---|---|---|---|---|---|---|",
            *lines,
        ]
    )
    save("ppo_step", results, table)


if __name__ == "__main__":
    main()
