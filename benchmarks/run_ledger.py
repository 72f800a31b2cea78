"""What the ledger that a run keeps by itself costs, beside none: processor time and bytes, on new rows."""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

from _report import save

from rlaif_sdk import Composer, RewardBatch
from rlaif_sdk.composer import Ledger

ROWS = 4096


def nothing(completions: list[Any]) -> list[float]:
    """Scores at once."""
    return [0.5] * len(completions)


LEDGERS: dict[str, bool | Literal["costly"]] = {"recorded": "costly", "recorded, and its score kept": True}
"""What happens to a function, and to a model or judge, by what a ledger's ``cache`` is."""


_SYLLABLES = ("ka", "lo", "mer", "tin", "sa", "vo", "ni", "rup", "del", "fi", "gan", "hos", "wi", "par", "quo", "ze")
_WORDS = [first + second for first in _SYLLABLES for second in _SYLLABLES]


def texts(start: int, rows: int) -> RewardBatch:
    """Rows of about 70 and 360 characters, all different, of 256 words drawn at random."""
    drawn = [random.Random(row).choices(_WORDS, k=78) for row in range(start, start + rows)]
    return RewardBatch(
        prompts=[" ".join(words[:13]) for words in drawn], completions=[" ".join(words[13:]) for words in drawn]
    )


def measured(*, cache: bool | Literal["costly"], rounds: int) -> dict[str, float]:
    """Processor seconds of one reward with a new ledger and with none, by turns, and the ledger's bytes a row."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds * 2):
            path = Path(folder) / f"{number}.sqlite"
            ledger = Ledger(path, cache=cache) if number % 2 else None
            with Composer({"nothing": nothing}, ledger=ledger) as composer:
                composer.compose(texts(ROWS, 8))
                batch = texts(0, ROWS)
                since = time.process_time()
                composer.compose(batch)
                seconds[ledger is not None].append(time.process_time() - since)
        size = path.stat().st_size
    kept, none = (statistics.median(seconds[with_ledger]) for with_ledger in (True, False))
    return {"with (s)": kept, "without (s)": none, "bytes a row": size / ROWS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    results = {name: measured(cache=cache, rounds=options.rounds) for name, cache in LEDGERS.items()}
    rows = [
        f"| {name} | {found['with (s)']:.3f} | {found['without (s)']:.3f} | "
        f"{found['with (s)'] / found['without (s)']:.2f} | "
        f"{1e6 * (found['with (s)'] - found['without (s)']) / ROWS:.0f} | {found['bytes a row']:.0f} |"
        for name, found in results.items()
    ]
    head = [
        "| a reward that costs nothing | with, s | without, s | ratio | more, µs a row | bytes a row |",
        "|---|---|---|---|---|---|",
    ]
    save(
        "run_ledger",
        results,
        "\n".join([f"{ROWS:,} new rows, in processor time, medians of {options.rounds} rounds:", "", *head, *rows]),
    )


if __name__ == "__main__":
    main()
