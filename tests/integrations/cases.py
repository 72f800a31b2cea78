"""One composition and one set of samples, what the composer says of them, and how an adapter's answer is told."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlaif_sdk import Composer, Composition, RewardBatch, Score, reward
from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.failures import FailurePolicy
from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.composer.normalizers import GroupZScore, Rank

Row = tuple[float | None, Mapping[str, float | None]]
"""The total and each reward's own score, None where there is none."""


@dataclass(frozen=True)
class Case:
    """A sample of the suite."""

    prompt: str
    completion: str
    label: str


CASES = [
    Case("What is the capital of France?", "Paris.", "Paris"),
    Case("What is the capital of France?", "It is Lyon, I think, or perhaps Marseille.", "Paris"),
    Case("Say nothing.", "", "nothing"),
    Case("Name a colour.", "abstain: blue", "blue"),
    Case("Name a colour.", "fail: blue", "blue"),
    Case("Name a colour.", "abstain fail", "red"),
    Case("Grüß mich — 你好?", "Hallo 世界 🙂 ", "世界"),
    Case("Shout.", "DAMN DAMN DAMN", "quiet"),
]


def mentions(completions: Sequence[str], label: Sequence[str]) -> list[float | None]:
    """1 where the label is in the completion; abstains where asked to."""
    return [None if "abstain" in text else float(word in text) for text, word in zip(completions, label, strict=True)]


async def brevity(prompts: Sequence[Any], completions: Sequence[str]) -> list[Any]:
    """The shorter the better, beside the prompt; fails where asked to."""
    await asyncio.sleep(0)
    asked = [prompt if isinstance(prompt, str) else prompt[-1]["content"] for prompt in prompts]
    return [
        Score.failed("asked to fail") if "fail" in text else len(prompt) / (1 + len(text))
        for prompt, text in zip(asked, completions, strict=True)
    ]


def calm(completions: Sequence[str]) -> list[float | None]:
    """The share of characters that are no capitals; abstains where the others say nothing either."""
    return [
        None if text == "abstain fail" else 1 - sum(map(str.isupper, text)) / max(1, len(text)) for text in completions
    ]


def build_composer() -> Composer:
    """Weights, a gate, an abstention and a failure, and nothing that compares rows.

    No group is masked for a failure: only stacks that score a group together can.
    """
    return Composer(
        {
            "mentions": Component(mentions, weight=2.0),
            "brevity": Component(brevity, weight=0.3, failure=FailurePolicy(mask_group="never")),
            "calm": Component(calm, weight=0.1),
        },
        gates=[Gate("calm", floor=-1.0, min=0.5)],
    )


def batch_of(cases: Sequence[Case], group: Sequence[int] | None = None) -> RewardBatch:
    """The cases as a composer takes them."""
    return RewardBatch(
        prompts=[case.prompt for case in cases],
        completions=[case.completion for case in cases],
        columns={"label": [case.label for case in cases]},
        group=group,
        training=False,
    )


def rows_of(composition: Composition) -> list[Row]:
    """What a composition says of each row."""
    return [
        (total, {name: reward["raw"] for name, reward in record["rewards"].items()})
        for total, record in zip(composition.to_list(), composition.to_records(), strict=True)
    ]


def by_composer(cases: Sequence[Case]) -> list[Row]:
    """What the composer itself says of all at once, the suite's truth."""
    with build_composer() as composer:
        return rows_of(composer.compose(batch_of(cases)))


GROUPS = [
    [Case("Name a colour.", text, "blue") for text in ("blue", "red", "abstain blue", "Blue, as the sky at noon is.")],
    [Case("Shout.", text, "quiet") for text in ("DAMN DAMN DAMN", "quiet", "abstain fail", "be quiet please")],
    [Case("Say nothing.", text, "nothing") for text in ("", "nothing", "nothing at all", "nothing")],
]
"""Four completions to each of three prompts, with an abstention and an unscored one among them."""


@reward(scope="group")
def shortest(completion_texts: Sequence[str]) -> list[float | None]:
    """The share of the others that a completion is no longer than; it sees whole groups."""
    said = [None if text == "abstain fail" else len(text) for text in completion_texts]
    known = [length for length in said if length is not None]
    return [None if own is None else sum(own <= other for other in known) / len(known) for own in said]


def build_group_composer() -> Composer:
    """A normaliser and a reward that compare the completions to one prompt."""
    return Composer(
        {
            "mentions": Component(mentions, normalizer=GroupZScore()),
            "calm": Component(calm, weight=0.5, normalizer=Rank()),
            "shortest": Component(shortest, weight=2.0),
        }
    )


def by_composer_in_groups(groups: Sequence[Sequence[Case]]) -> list[Row]:
    """What the composer itself says of all groups at once."""
    labels = [label for label, cases in enumerate(groups) for _ in cases]
    with build_group_composer() as composer:
        return rows_of(composer.compose(batch_of([case for cases in groups for case in cases], labels)))


UNSCORED = -999.0
"""What stacks that have no word for an unscored completion are told to write, for this suite to read."""


def row_of(total: float, figures: Mapping[str, float | None]) -> Row:
    """What a stack got that has no word for an unscored completion: the number that it was told to get, and the figures."""
    assert bool(figures["unscored"]) == (total == UNSCORED)
    return (None if figures["unscored"] else total), present(figures)


def present(figures: Mapping[str, float | None]) -> dict[str, float]:
    """Each reward's own score, of those that have one."""
    missing = {name.removesuffix("/missing") for name, value in figures.items() if name.endswith("/missing") and value}
    scores = {name: value for name, value in figures.items() if name not in {"score", "unscored", *missing}}
    return {
        name: value
        for name, value in scores.items()
        if not (name.endswith("/missing") or value is None or value == UNSCORED or math.isnan(value))
    }
