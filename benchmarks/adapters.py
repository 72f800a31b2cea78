"""What an adapter adds to the composer, a sample, for each training stack and each way that it calls."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from _report import interleaved, save
from _rewards import FUNCTIONS, WEIGHTS, relevance

sys.path.insert(0, str(Path(__file__).parents[1]))

from rlaif_sdk import Composer, Composition, RewardBatch
from rlaif_sdk.integrations import nemo_gym, openrlhf, slime, verifiers, verl
from tests.integrations.adapters import ADAPTERS, GROUPED
from tests.integrations.cases import Case, Row


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


def _verl(*_: Any, **__: Any) -> Any:
    async def compute_score(**_: Any) -> dict[str, float]:
        return {"score": 0.0, **SAID}

    return SimpleNamespace(compute_score=compute_score)


def _verl_manager(base: type, *_: Any) -> Any:
    class Nothing(base):  # type: ignore[misc]  # the class is given
        async def run_single(self, data: Any) -> dict[str, Any]:
            del data
            return {"reward_score": 0.0, "reward_extra_info": {"score": 0.0, **SAID}}

    return lambda config, tokenizer: Nothing(config, tokenizer, None)


def _openrlhf(*_: Any, **__: Any) -> Any:
    none_B = torch.zeros(1)
    logs = dict.fromkeys([*SAID, *(f"{name}/missing" for name in FUNCTIONS)], none_B)
    return lambda *_: {"rewards": none_B, "scores": none_B, "extra_logs": logs}


def _slime(*_: Any, **__: Any) -> Any:
    async def rm(args: Any, sample: Any) -> float:
        del args
        sample.metadata = {slime.SCORES: SAID}
        return 0.0

    return rm


def _nemo_gym(_: Any, request: type, response: type) -> Any:
    asked, answered = (
        type(kind.__name__, (kind,), {"model_config": {"extra": "allow"}}) for kind in (request, response)
    )
    told = {"reward": 0.0, "reward_components": SAID, **{f"rlaif/{name}": value for name, value in SAID.items()}}

    async def verify(self: Any, body: Any) -> Any:
        del self
        return answered(**body.model_dump(), **told)

    verify.__annotations__ = {"body": asked, "return": answered}
    return verify


def _rubric(_: Any, base: type) -> Any:
    class Nothing(base):  # type: ignore[misc]  # the class is given
        async def score_group(self, states: list[Any]) -> None:
            for state in states:
                state |= {"reward": 0.0, "metrics": SAID}

    return Nothing()


def _task(*_: Any) -> Any:
    async def composed(task: Any, trace: Any) -> float:
        del task
        trace.record_metrics(SAID)
        return 0.0

    return composed


SAID = {**dict.fromkeys(FUNCTIONS, 0.0), "unscored": 0.0}
NOTHING: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "verl, at once": (verl, "VerlReward", _verl),
    "verl, a manager": (verl, "reward_manager", _verl_manager),
    "openrlhf": (openrlhf, "reward_function", _openrlhf),
    "slime": (slime, "reward_model", _slime),
    "nemo gym": (nemo_gym, "verifier", _nemo_gym),
    "verifiers, a rubric": (verifiers, "rubric", _rubric),
    "verifiers, a task": (verifiers, "task_reward", _task),
}
"""What makes an adapter, and a reward in its place that does nothing, where a stack calls for one sample at a time."""


def nothing(name: str, call: Callable[[], object]) -> Callable[[], None]:
    """The same calls of a reward that does nothing: what a stack's way to call costs whatever it calls."""
    module, factory, maker = NOTHING[name]

    def run() -> None:
        with patch.object(module, factory, maker):
            call()

    return run


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
    seen: list[RewardBatch] = []
    rows: dict[str, tuple[Callable[[], list[Row]], int, list[float | None]]] = {}
    with Composer(
        {**FUNCTIONS, "relevance": relevance_of_last},
        weights=WEIGHTS,
        observers=[lambda composition: seen.append(composition.batch)],
    ) as composer:
        expected = composer.compose(batch(cases)).to_list()
        for name, adapter in ADAPTERS.items():
            rows[name] = partial(adapter, composer, cases), len(cases) * (1 + (name in PAIRS)), expected
        of_groups = composer.compose(whole).to_list()
        for name, grouped in GROUPED.items():
            rows[f"{name}, groups of {GROUP}"] = partial(grouped, composer, groups), len(whole), of_groups
        results = {
            name: measured(name, composer, call, samples, truth, seen, options.repeats)
            for name, (call, samples, truth) in rows.items()
        }
    heads = ("adapter", "composer", "beyond it", "nothing, called so", "what the adapter adds")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, said in results.items():
        floor = said.get("nothing (us)")
        shown = "" if floor is None else f"{floor:.1f}"
        lines.append(
            f"| {name} | {said['composer (us)']:.1f} | {said['beyond (us)']:.1f} | {shown} | {said['adds (us)']:.1f} |"
        )
    lines.append(
        f"\nMicroseconds a sample of processor time, the least of {options.repeats} rounds, which what else the machine does "
        "disturbs least. The composer has the batches that the adapter makes of the calls. Where a stack calls for one sample "
        "at a time a reward that does nothing is called in the same way: that is the stack's cost, and that of reading the "
        "answers. verl's tensors are made before; the decoding of their tokens is the adapter's. verl, openrlhf and skyrl call "
        "for one sample after another: what is beyond the composer is measured there while its answers are played back."
    )
    save("adapters", results, "\n".join(lines))


def measured(
    name: str,
    composer: Composer,
    call: Callable[[], list[Row]],
    samples: int,
    expected: list[float | None],
    seen: list[RewardBatch],
    repeats: int,
) -> dict[str, float]:
    """Microseconds a sample of the composer alone, of the adapter beyond it, and of a reward that does nothing."""
    call()  # which may load what it needs
    seen.clear()
    totals = [total for total, _ in call()]
    wrong = [row for row, total in enumerate(totals) if total is None or abs(total - expected[row]) > 1e-5]
    assert not wrong, f"{name} gives other numbers than the composer in rows {wrong[:5]}"
    batches = [*seen]
    # made anew: what was read of a batch's conversations is kept with it
    variants = {"composer": lambda: [composer.compose(replace(one)) for one in batches], "adapter": call}
    kind = name.removesuffix(f", groups of {GROUP}")
    if kind in NOTHING and not (kind == "slime" and kind != name):  # whose groups have an adapter of their own
        variants["nothing"] = nothing(kind, call)
    least = {
        side: 1e6 * min(seconds) / samples
        for side, seconds in interleaved(variants, repeats=repeats, clock=time.process_time).items()
    }
    beyond = least["adapter"] - least["composer"]
    if name in SINGLE:
        beyond = 1e6 * min(alone(composer, call, repeats)) / samples
    said = {"composer (us)": least["composer"], "beyond (us)": beyond, "adds (us)": beyond - least.get("nothing", 0.0)}
    return said | ({"nothing (us)": least["nothing"]} if "nothing" in least else {})


if __name__ == "__main__":
    main()
