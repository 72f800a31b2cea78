"""What the ledger that a run keeps by itself costs, beside none: processor time and bytes, on new rows."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from _report import save

from rlaif_sdk import Composer, RewardBatch
from rlaif_sdk.composer import Ledger

ROWS = 4096


def nothing(completions: list[Any]) -> list[float]:
    """Scores at once."""
    return [0.5] * len(completions)


REWARDS = {
    "a function that costs nothing": {"length": {"use": f"{__file__}:nothing"}},
    "`toxicity`, the embedded model": {"toxicity": {}},
}


def texts(start: int, rows: int) -> RewardBatch:
    """Rows of about 70 and 350 characters, all different."""
    return RewardBatch(
        prompts=[f"Question {row // 8}: what follows from the third premise?" for row in range(start, start + rows)],
        completions=[
            f"Answer {row}. " + "It follows that the premise is not needed. " * 8 for row in range(start, start + rows)
        ],
    )


def measured(rewards: dict[str, Any], rounds: int) -> dict[str, float]:
    """Processor seconds with a new ledger and with none, by turns, and the ledger's bytes a row."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds * 2):
            path = Path(folder) / f"{number}.sqlite"
            ledger = Ledger(path, cache="costly") if number % 2 else None
            with Composer.from_config({"rewards": rewards}) as made:
                composer = Composer(made.components, ledger=ledger)
                composer.compose(texts(ROWS, 8))
                since = time.process_time()
                composer.compose(texts(0, ROWS))
                seconds[ledger is not None].append(time.process_time() - since)
                composer.close()
        size = path.stat().st_size
    kept, none = (statistics.median(seconds[with_ledger]) for with_ledger in (True, False))
    return {"with (s)": kept, "without (s)": none, "bytes a row": size / ROWS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    results = {name: measured(rewards, options.rounds) for name, rewards in REWARDS.items()}
    rows = [
        f"| {name} | {found['with (s)']:.3f} | {found['without (s)']:.3f} | "
        f"{found['with (s)'] / found['without (s)']:.2f} | "
        f"{1e6 * (found['with (s)'] - found['without (s)']) / ROWS:.0f} | {found['bytes a row']:.0f} |"
        for name, found in results.items()
    ]
    head = ["| one reward | with, s | without, s | ratio | more, µs a row | bytes a row |", "|---|---|---|---|---|---|"]
    save(
        "run_ledger",
        results,
        "\n".join([f"{ROWS:,} new rows, in processor time, medians of {options.rounds} rounds:", "", *head, *rows]),
    )


if __name__ == "__main__":
    main()
