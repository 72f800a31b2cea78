"""What the ledger costs: look-ups that all hit, hashing included; writing; a composition from the cache alone."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from _report import save

from rlaif_sdk import Composer, RewardBatch
from rlaif_sdk.composer import Component, Ledger
from rlaif_sdk.rewards import Reward
from rlaif_sdk.scoring import CallResult, Recipe


class Known(Reward):
    """Scores at once, so that nothing is measured but the ledger."""

    version = "1"
    inputs = ()

    def score(self, batch: RewardBatch) -> list[float]:
        return [0.5] * len(batch)


def texts(start: int, rows: int) -> RewardBatch:
    """Rows of about 70 and 350 characters, all different."""
    return RewardBatch(
        prompts=[
            f"Question {row // 8}: what follows from the third premise, and what does not?"
            for row in range(start, start + rows)
        ],
        completions=[
            f"Answer {row}. " + "It follows that the premise is not needed. " * 8 for row in range(start, start + rows)
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=8192)
    options = parser.parse_args()
    component = Component(Known(), recipe=Recipe("known"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        ledger = Ledger(path, record=False)
        cache = ledger.reward_cache("known", component)
        assert cache is not None
        cache.identify(None)
        written = looked_up = hits = 0.0
        starts = range(0, options.rows, options.batch)
        for start in starts:
            batch = texts(start, min(options.batch, options.rows - start))
            since = time.perf_counter()
            known = cache.get(batch)
            cache.put(known, CallResult(0.0, answer=[0.5] * len(known.missing)))
            written += time.perf_counter() - since
        size = sum(file.stat().st_size for file in path.parent.iterdir())
        ledger.close()
        for start in starts:
            batch = texts(start, min(options.batch, options.rows - start))
            since = time.perf_counter()
            known = cache.get(batch)
            looked_up += time.perf_counter() - since
            hits += len(batch) - len(known.missing)
        assert hits == options.rows
        batch = texts(0, options.batch)
        seconds = {}
        for name, used in (("with the cache", ledger), ("without a ledger", None)):
            with Composer({"known": component}, ledger=used) as composer:
                composer.compose(batch)
                rounds = []
                for _ in range(9):
                    since = time.perf_counter()
                    composer.compose(batch)
                    rounds.append(time.perf_counter() - since)
            seconds[name] = 1e3 * statistics.median(rounds)
        recorder = Composer({"known": component}, ledger=Ledger(Path(folder) / "record.sqlite", cache=False))
        recorded = []
        for _ in range(9):
            since = time.perf_counter()
            recorder.compose(batch)
            recorded.append(time.perf_counter() - since)
        recorder.close()
        seconds["recorded, not cached"] = 1e3 * statistics.median(recorded)
    rate = options.rows / looked_up
    table = "\n".join(
        [
            f"{options.rows:,} rows of about 70 and 360 characters, batches of {options.batch:,}:",
            "",
            "| | rows a second |",
            "|---|---|",
            f"| look-ups, all hits, keys hashed | {rate:,.0f} |",
            f"| new rows, looked up and written | {options.rows / written:,.0f} |",
            "",
            f"The file has {size / options.rows:.0f} bytes a score.",
            "",
            f"One composition of {options.batch:,} rows with a reward that costs nothing:",
            "",
            "| | ms |",
            "|---|---|",
            *(f"| {name} | {value:.1f} |" for name, value in seconds.items()),
        ]
    )
    results = {
        "look-ups a second": rate,
        "writes a second": options.rows / written,
        "bytes a score": size / options.rows,
    }
    save("ledger", {"ledger": results, "composition (ms)": seconds}, table)


if __name__ == "__main__":
    main()
