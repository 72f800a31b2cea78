"""What is attacked: the judge that a config describes, of single answers or of pairs, asked with its defences and without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol

from rlaif_sdk.attacks.corpus import Case
from rlaif_sdk.composer import Composer
from rlaif_sdk.config.documents import Document, validate
from rlaif_sdk.config.overrides import overridden
from rlaif_sdk.judges.backends import JudgeBackend
from rlaif_sdk.judges.pairwise import Ordered, Pair, PairwiseLabeler, Preference
from rlaif_sdk.judges.pointwise import PointwiseJudge
from rlaif_sdk.judges.prompts import CRITERIA, JudgePrompt, PairwisePrompt
from rlaif_sdk.preferences import LabelConfig, LabelJob
from rlaif_sdk.types import Message, RewardBatch, Score


def load_attacked(
    path: str | Path, *, reward: str | None = None, overrides: Sequence[str] = ()
) -> PointwiseJudge | PairwiseLabeler:
    """The judge of a config; nothing is loaded yet.

    Args:
        path: A labelling job (its ``pairs`` may be omitted), or a composition with a reward that is a judge.
        reward: Which reward of the composition; may be omitted where only one is a judge.
        overrides: ``key=value`` each, as after ``--set``.

    Raises:
        ConfigError: The config is refused, or has no such judge; the message has file and line.
    """
    document = overridden(path, overrides)
    data = document.data if isinstance(document.data, dict) else {}
    if "rewards" in data:
        return _judge_of(document, reward)
    if "judge" not in data:
        problem = "has neither a judge, as a labelling job has, nor rewards"
        raise document.error(problem, hint="give the config of rlaif label, or a composition with a judge")
    job = replace(document, data={"pairs": {"file": "none.jsonl"}, **data})
    return LabelJob(validate(LabelConfig, job), job).labeler()


def _judge_of(document: Document, reward: str | None) -> PointwiseJudge:
    components = Composer.from_config(document).components
    judges = {name: part.reward for name, part in components.items() if isinstance(part.reward, PointwiseJudge)}
    names = ", ".join(judges)
    if not judges:
        raise document.error("none of them is a judge", ("rewards",), "add the reward judge, or attack another config")
    if reward is None and len(judges) > 1:
        raise document.error(f"{len(judges)} of them are judges: {names}", ("rewards",), "choose with --reward")
    if reward is not None and reward not in judges:
        raise document.error(f"{reward!r} is no judge", ("rewards", reward), f"judges: {names}")
    return judges[reward or next(iter(judges))]


@dataclass(frozen=True, slots=True)
class TargetScore:
    """What a judge gives an answer.

    Attributes:
        value: From 0, the worst, to 1; for a judge of pairs the probability that the answer beats the case's good one.
            None where the judge gave none.
        marks: What its defences did: ``contentless``, ``invisible`` and so on.
    """

    value: float | None
    marks: tuple[str, ...] = ()


class Target(Protocol):
    """A judge under attack."""

    paired: bool

    @property
    def backend(self) -> JudgeBackend:
        """The model behind it."""

    async def judge(self, cases: Sequence[Case], answers: Sequence[str], *, swapped: bool) -> list[TargetScore]:
        """What it gives an answer in the place of each case's poor one; ``swapped`` in the other place of a pair."""

    async def judge_naively(self, cases: Sequence[Case], answers: Sequence[str], *, swapped: bool) -> list[TargetScore]:
        """The same without the judge's defences."""


def target_of(judge: PointwiseJudge | PairwiseLabeler) -> Target:
    """The target that a judge makes."""
    return _Pairs(judge) if isinstance(judge, PairwiseLabeler) else _Answers(judge)


class _Answers:
    paired = False

    def __init__(self, judge: PointwiseJudge) -> None:
        self._judge = judge

    @property
    def backend(self) -> JudgeBackend:
        return self._judge.backend

    async def judge(self, cases: Sequence[Case], answers: Sequence[str], *, swapped: bool) -> list[TargetScore]:
        del swapped
        scores = await self._judge.score(RewardBatch([case.prompt for case in cases], list(answers)))
        return [
            TargetScore(_unit(score.value), _marks([*score.details.get("flags", ()), score.details.get("refused", "")]))
            for score in scores
        ]

    async def judge_naively(self, cases: Sequence[Case], answers: Sequence[str], *, swapped: bool) -> list[TargetScore]:
        del swapped
        asked = [(case.prompt, answer) for case, answer in zip(cases, answers, strict=True)]
        return [TargetScore(_unit(value)) for value in await naive_baseline(self._judge, asked)]


class _Pairs:
    """The answer stands second, as a naive judge that favours the first place would have it lose."""

    paired = True

    def __init__(self, labeler: PairwiseLabeler) -> None:
        self._labeler = labeler

    @property
    def backend(self) -> JudgeBackend:
        return self._labeler.backend

    async def judge(self, cases: Sequence[Case], answers: Sequence[str], *, swapped: bool) -> list[TargetScore]:
        labels = await self._labeler.label(
            [Pair(o.prompt, o.first, o.second) for o in _ordered(cases, answers, swapped)]
        )
        return [TargetScore(_of_answer(label.prob_1, swapped), _marks(label.flags)) for label in labels]

    async def judge_naively(self, cases: Sequence[Case], answers: Sequence[str], *, swapped: bool) -> list[TargetScore]:
        found = await naive_pair_baseline(self._labeler, _ordered(cases, answers, swapped))
        return [TargetScore(_of_answer(prob_first, swapped)) for prob_first in found]


def _ordered(cases: Sequence[Case], answers: Sequence[str], swapped: bool) -> list[Ordered]:  # noqa: FBT001
    return [
        Ordered(case.prompt, answer, case.good) if swapped else Ordered(case.prompt, case.good, answer)
        for case, answer in zip(cases, answers, strict=True)
    ]


def _of_answer(prob_1: float | None, swapped: bool) -> float | None:  # noqa: FBT001
    return prob_1 if swapped or prob_1 is None else 1 - prob_1


def _unit(score: float | None) -> float | None:
    return None if score is None else (score + 1) / 2


def _marks(flags: Sequence[str]) -> tuple[str, ...]:
    """The flags without the name of the text that they are about."""
    return tuple(dict.fromkeys(flag.rpartition("_")[2] for flag in flags if flag))


async def naive_baseline(judge: PointwiseJudge, asked: Sequence[tuple[str, str]]) -> list[float | None]:
    """The scores in [-1, 1] of B prompts with answers; None where one failed."""
    requests = [_rendered(judge.prompt, prompt, answer, judge.verdict.instruction) for prompt, answer in asked]
    found = await judge.verdict.ask(judge.backend, requests)
    return [verdict.value if isinstance(verdict, Score) else None for verdict in found]


async def naive_pair_baseline(labeler: PairwiseLabeler, asked: Sequence[Ordered]) -> list[float | None]:
    """The probabilities that the first of B ordered pairs is better; None where one failed."""
    naive = _NaivePrompt(**{field.name: getattr(labeler.prompt, field.name) for field in fields(labeler.prompt)})
    found = await replace(labeler.verdict, prompt=naive).ask(labeler.backend, asked)
    return [verdict.prob_first if isinstance(verdict, Preference) else None for verdict in found]


@dataclass(frozen=True, slots=True)
class _NaivePrompt(PairwisePrompt):
    def _laid_out(self, prompt: str, first: str, second: str) -> str:
        return _filled(self.sample, {"prompt": prompt, "response_1": first, "response_2": second}).strip()


def _rendered(asked: JudgePrompt, prompt: str, answer: str, verdict: str) -> list[Message]:
    values = {
        "preamble": asked.preamble,
        "criteria": CRITERIA.get(asked.criteria, asked.criteria),
        "prompt": prompt,
        "answer": answer,
        "verdict": verdict,
    }
    return [{"role": "user", "content": _filled(asked.template, values)}]


def _filled(template: str, values: Mapping[str, str]) -> str:
    """One placeholder after the other, so that a value's own placeholders are filled as well."""
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", value)
    return template
