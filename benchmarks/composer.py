"""What the composer costs beside calling the same functions by hand, and beside TRL's own reward loop."""

from __future__ import annotations

import argparse
import operator
import os
import statistics
import time
import tracemalloc
from collections.abc import Sequence
from functools import partial

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from _report import interleaved, median_ratio, save
from _rewards import FUNCTIONS, WEIGHTS, text_batch
from _trl_loop import trl_rewards

from rlaif_sdk import Composer, RewardBatch
from rlaif_sdk.composer import Component, Gate
from rlaif_sdk.composer.normalizers import GroupZScore, MinMax, Normalizer, Passthrough, Rank, ZScore
from rlaif_sdk.rewards import Reward


class Known(Reward):
    """Scores that are there already."""

    range = (-1.0, 1.0)

    def __init__(self, scores: list[float | None]) -> None:
        self.scores = scores

    def score(self, batch: RewardBatch) -> list[float | None]:
        return self.scores


def by_hand(batch: RewardBatch, names: Sequence[str] = tuple(FUNCTIONS)) -> list[float]:
    """What one writes without a composer."""
    scores = {name: FUNCTIONS[name](batch.prompts, batch.completions) for name in names}
    weights = [WEIGHTS[name] for name in names]
    return [sum(map(operator.mul, weights, row)) for row in zip(*scores.values(), strict=True)]


def cheap_functions(rows: int, repeats: int) -> tuple[dict[str, float], list[str]]:
    """Four cheap functions: by hand, in a composer, in TRL's loop."""
    batch = text_batch(rows)
    trl = trl_rewards(FUNCTIONS, WEIGHTS)
    with Composer(FUNCTIONS, weights=WEIGHTS) as composer:
        np.testing.assert_allclose(composer.compose(batch).totals, by_hand(batch), rtol=1e-9)
        np.testing.assert_allclose(composer.compose(batch).totals, trl(batch), rtol=1e-4, atol=1e-5)
        variants = {
            "by hand": lambda: by_hand(batch),
            "composer": lambda: composer.compose(batch),
            "TRL's loop": lambda: trl(batch),
        }
        seconds = interleaved(variants, repeats=repeats)
        processor = interleaved(variants, repeats=repeats, clock=time.process_time)
    results, lines = {}, []
    for name, own in seconds.items():
        ratio = median_ratio(own, seconds["by hand"])
        processor_ratio = median_ratio(processor[name], processor["by hand"])
        pairs = zip(processor[name], processor["by hand"], strict=True)
        more = 1e3 * statistics.median(a - b for a, b in pairs)
        results |= {
            f"{name} (ms)": 1e3 * statistics.median(own),
            f"{name} over by hand": ratio,
            f"{name} over by hand, processor time": processor_ratio,
            f"{name} more processor time (ms)": more,
        }
        lines.append(
            f"| {name} | {1e3 * statistics.median(own):.1f} | {ratio:.3f} | {processor_ratio:.3f} | {more:+.2f} |"
        )
    return results, lines


def one_row(repeats: int, calls: int = 200) -> tuple[dict[str, float], list[str]]:
    """Plain functions on a single row, as a server or an environment calls them: processor time of a call."""
    batch = text_batch(1)
    results, lines = {}, []
    for count in (1, len(FUNCTIONS)):
        names = list(FUNCTIONS)[:count]
        functions, weights = ({name: table[name] for name in names} for table in (FUNCTIONS, WEIGHTS))
        in_a_thread = {name: Component(one, weight=weights[name], timeout=60.0) for name, one in functions.items()}
        with Composer(functions, weights=weights) as plain, Composer(in_a_thread) as limited:
            np.testing.assert_allclose(plain.compose(batch).totals, by_hand(batch, names), rtol=1e-9)
            once = {
                "by hand": partial(by_hand, batch, names),
                "composer": partial(plain.compose, batch),
                "with a time limit": partial(limited.compose, batch),
            }
            many = {name: lambda call=call: [call() for _ in range(calls)] for name, call in once.items()}
            seconds = interleaved(many, repeats=repeats, clock=time.process_time)
        hand = statistics.median(seconds["by hand"])
        for name, own in seconds.items():
            micros, more = (1e6 * value / calls for value in (statistics.median(own), statistics.median(own) - hand))
            results |= {f"{count} of 1 row, {name} (us)": micros, f"{count} of 1 row, {name}, more (us)": more}
            lines.append(f"| {count} | {name} | {micros:.1f} | {more:+.1f} |")
    return results, lines


def arithmetic(rows: int, rewards: int, repeats: int) -> tuple[dict[str, float], list[str]]:
    """Many rewards whose scores are there already: nothing is left but the composer."""
    draw = np.random.default_rng(0)
    batch = RewardBatch(prompts=["p"] * rows, completions=["c"] * rows, group=[row // 8 for row in range(rows)])

    def scores(missing: float) -> list[float | None]:
        values = draw.uniform(-1, 1, rows).tolist()
        return [None if draw.random() < missing else value for value in values] if missing else values

    def composer(normalizers: list[type[Normalizer]], missing: float = 0.0) -> Composer:
        parts = {
            f"r{index}": Component(Known(scores(missing)), normalizer=normalizers[index % len(normalizers)]())
            for index in range(rewards)
        }
        return Composer(parts, gates=[Gate("r0", floor=-2.0, min=-0.9, on_missing="pass")])

    composers = {
        "no normalisation": composer([Passthrough]),
        "min-max": composer([MinMax]),
        "running z-score": composer([ZScore]),
        "group z-score": composer([GroupZScore]),
        "rank": composer([Rank]),
        "a mixture, 5% of scores missing": composer([Passthrough, MinMax, ZScore, GroupZScore], missing=0.05),
    }
    variants = {name: lambda one=one: one.compose(batch) for name, one in composers.items()}
    seconds = interleaved(variants, repeats=repeats)
    processor = interleaved(variants, repeats=repeats, clock=time.process_time)
    results, lines = {}, []
    for name, own in seconds.items():
        tracemalloc.start()
        composers[name].compose(batch)
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        composers[name].close()
        median, best, busy = 1e3 * statistics.median(own), 1e3 * min(own), 1e3 * statistics.median(processor[name])
        results |= {
            f"{name} (ms)": median,
            f"{name}, fastest round (ms)": best,
            f"{name}, processor time (ms)": busy,
            f"{name}, peak (MiB)": peak,
        }
        lines.append(f"| {name} | {median:.1f} | {best:.1f} | {busy:.1f} | {peak:.0f} |")
    return results, lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4096, help="completions for the four cheap functions")
    parser.add_argument("--arithmetic-rows", type=int, default=65_536)
    parser.add_argument("--rewards", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    cheap, cheap_lines = cheap_functions(options.rows, options.repeats)
    single, single_lines = one_row(options.repeats)
    bare, bare_lines = arithmetic(options.arithmetic_rows, options.rewards, options.repeats)
    table = "\n".join(
        [
            f"Four cheap functions, {options.rows:,} completions, median of {options.repeats} interleaved rounds:",
            "",
            "| | ms | over by hand | over by hand, processor time | ms of it more |",
            "|---|---|---|---|---|",
            *cheap_lines,
            "",
            f"Plain functions on one row, microseconds of processor time a call, median of {options.repeats} rounds:",
            "",
            "| functions | | µs | µs more than by hand |",
            "|---|---|---|---|",
            *single_lines,
            "",
            f"The composer alone, {options.rewards} rewards x {options.arithmetic_rows:,} rows, a gate, groups of 8:",
            "",
            "| normalisation | ms | fastest round | processor time | peak MiB |",
            "|---|---|---|---|---|",
            *bare_lines,
        ]
    )
    save("composer", {"cheap functions": cheap, "one row": single, "composer alone": bare}, table)


if __name__ == "__main__":
    main()
