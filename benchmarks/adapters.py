"""What an adapter adds to the composer, a sample, for each training stack and each way that it calls."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from _report import interleaved, save
from _rewards import FUNCTIONS, WEIGHTS, relevance

sys.path.insert(0, str(Path(__file__).parents[1]))

from rlaif_sdk import Composer, Composition, RewardBatch
from tests.integrations.adapters import ADAPTERS, GROUPED
from tests.integrations.cases import Case


def relevance_of_last(prompts: list[Any], completions: list[str], **columns: object) -> list[float]:
    """`relevance` for text and conversations, since some stacks hand over the one and some the other."""
    texts = [prompt if isinstance(prompt, str) else prompt[-1]["content"] for prompt in prompts]
    return relevance(texts, completions)


def batch(cases: list[Case]) -> RewardBatch:
    """What the composer is given without an adapter."""
    return RewardBatch(
        prompts=[case.prompt for case in cases],
        completions=[case.completion for case in cases],
        columns={"label": [case.label for case in cases]},
        training=False,
    )


def in_groups(groups: list[list[Case]]) -> RewardBatch:
    """The same for groups."""
    whole = batch([case for cases in groups for case in cases])
    return replace(whole, group=[label for label, cases in enumerate(groups) for _ in cases])


def own_calls(composer: Composer, cases: list[Case], *, one_at_a_time: bool) -> Callable[[], object]:
    """The composer by itself: a call for all samples, or one a sample."""
    if one_at_a_time:
        singles = [batch([case]) for case in cases]
        return lambda: [composer.compose(single) for single in singles]
    whole = batch(cases)
    return lambda: composer.compose(whole)


def alone(composer: Composer, adapter: Callable[[], object], repeats: int) -> list[float]:
    """Processor seconds of an adapter's runs while the composer's answers to its calls are played back."""
    compose = composer.compose
    answers: list[Composition] = []

    def record(scored: RewardBatch) -> Composition:
        answers.append(compose(scored))
        return answers[-1]

    def run(answer: Callable[[RewardBatch], Composition]) -> float:
        composer.compose = answer  # type: ignore[method-assign]
        try:
            since = time.process_time()
            adapter()
            return time.process_time() - since
        finally:
            del composer.compose

    run(record)
    seconds = []
    for _ in range(repeats + 1):
        played = iter(answers)
        seconds.append(run(lambda _, played=played: next(played)))
    return seconds[1:]


def awaited(calls: int) -> None:
    """As many calls that do nothing, awaited at the same time: what an event loop costs a stack whatever it calls."""

    async def nothing() -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        loop.call_soon(done.set_result, None)
        await done

    async def run() -> None:
        await asyncio.gather(*(nothing() for _ in range(calls)))

    asyncio.run(run())


SINGLE = {"verl", "openrlhf", "skyrl"}
"""Stacks whose samples are scored one call after another. What is beyond the composer is small beside the scatter of its
threads there, so it is measured while the composer's answers are played back."""
PAIRS = {"trl, online dpo"}
"""Stacks whose samples come twice, since there are two completions to each prompt."""


GROUP = 8
"""Completions to one prompt, where groups are told."""


def main() -> None:
    """Print and save microseconds a sample beyond the composer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    cases = [Case(f"Question {row}?", f"Answer {row}. " * (1 + row % 7), "x") for row in range(options.samples)]
    groups = [
        [Case(f"Question {start}?", case.completion, case.label) for case in cases[start : start + GROUP]]
        for start in range(0, len(cases) - GROUP + 1, GROUP)
    ]
    whole = in_groups(groups)
    results: dict[str, Any] = {}
    lines = ["| adapter | composer (µs a sample) | beyond it (µs a sample) |", "|---|---|---|"]
    with Composer({**FUNCTIONS, "relevance": relevance_of_last}, weights=WEIGHTS) as composer:
        expected = composer.compose(batch(cases)).to_list()
        for name, adapter in ADAPTERS.items():
            totals = [total for total, _ in adapter(composer, cases)]
            wrong = [row for row, total in enumerate(totals) if total is None or abs(total - expected[row]) > 1e-5]
            assert not wrong, f"{name} gives other numbers than the composer in rows {wrong[:5]}"
            scored = cases * 2 if name in PAIRS else cases
            calls = own_calls(composer, scored, one_at_a_time=name in SINGLE)
            variants = {"composer": calls, "adapter": lambda adapter=adapter: adapter(composer, cases)}
            seconds = interleaved(variants, repeats=options.repeats, clock=time.process_time)
            own = 1e6 * min(seconds["composer"]) / len(scored)
            if name in SINGLE:
                others = min(alone(composer, variants["adapter"], options.repeats))
            else:
                others = min(seconds["adapter"]) - min(seconds["composer"])
            beyond = 1e6 * others / len(scored)
            results[name] = {"composer (us)": own, "beyond (us)": beyond}
            lines.append(f"| {name} | {own:.1f} | {beyond:.1f} |")
        for name, grouped in GROUPED.items():
            totals = [total for total, _ in grouped(composer, groups)]
            assert totals == composer.compose(whole).to_list(), (
                f"{name} gives other numbers than the composer for groups"
            )
            variants = {
                "composer": lambda: composer.compose(whole),
                "adapter": lambda grouped=grouped: grouped(composer, groups),
            }
            seconds = interleaved(variants, repeats=options.repeats, clock=time.process_time)
            own = 1e6 * min(seconds["composer"]) / len(whole)
            beyond = 1e6 * (min(seconds["adapter"]) - min(seconds["composer"])) / len(whole)
            results[f"{name}, groups of {GROUP}"] = {"composer (us)": own, "beyond (us)": beyond}
            lines.append(f"| {name}, groups of {GROUP} | {own:.1f} | {beyond:.1f} |")
    nothing = interleaved({"": lambda: awaited(options.samples)}, repeats=options.repeats, clock=time.process_time)
    results["nothing, awaited (us)"] = 1e6 * min(nothing[""]) / options.samples
    lines.append(
        f"\nProcessor time, the least of {options.repeats} rounds, which what else the machine does disturbs least. A stack that awaits "
        f"its samples one by one spends {results['nothing, awaited (us)']:.1f} µs on a call that does nothing, which is in the figures "
        "of those. The adapter's side makes its stack's objects and reads its answer too, but for verl's manager, whose "
        "tensors are made before and whose decoding of tokens is in it. verl, openrlhf and skyrl call "
        "for one sample after another: what is beyond the composer is measured there while its answers are played back."
    )
    save("adapters", results, "\n".join(lines))


if __name__ == "__main__":
    main()
