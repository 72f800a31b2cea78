"""What is attacked: judges of single answers and of pairs, asked in one way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rlaif_sdk.attacks.corpus import Case
from rlaif_sdk.attacks.undefended import prefer_carelessly, rate_carelessly
from rlaif_sdk.judges.backends import JudgeBackend
from rlaif_sdk.judges.pairwise import Ordered, Pair, PairwiseLabeler
from rlaif_sdk.judges.pointwise import PointwiseJudge
from rlaif_sdk.types import RewardBatch


@dataclass(frozen=True, slots=True)
class Verdict:
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

    async def judge(self, cases: Sequence[Case], answers: Sequence[str], *, swapped: bool) -> list[Verdict]:
        """What it gives an answer in the place of each case's poor one; ``swapped`` in the other place of a pair."""

    async def judge_carelessly(self, cases: Sequence[Case], answers: Sequence[str], *, swapped: bool) -> list[Verdict]:
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

    async def judge(self, cases: Sequence[Case], answers: Sequence[str], *, swapped: bool) -> list[Verdict]:
        del swapped
        scores = await self._judge.score(RewardBatch([case.prompt for case in cases], list(answers)))
        return [
            Verdict(_unit(score.value), _marks([*score.details.get("flags", ()), score.details.get("refused", "")]))
            for score in scores
        ]

    async def judge_carelessly(self, cases: Sequence[Case], answers: Sequence[str], *, swapped: bool) -> list[Verdict]:
        del swapped
        asked = [(case.prompt, answer) for case, answer in zip(cases, answers, strict=True)]
        return [Verdict(_unit(value)) for value in await rate_carelessly(self._judge, asked)]


class _Pairs:
    """The answer stands second, as a careless judge that favours the first place would have it lose."""

    paired = True

    def __init__(self, labeler: PairwiseLabeler) -> None:
        self._labeler = labeler

    @property
    def backend(self) -> JudgeBackend:
        return self._labeler.backend

    async def judge(self, cases: Sequence[Case], answers: Sequence[str], *, swapped: bool) -> list[Verdict]:
        labels = await self._labeler.label(
            [Pair(o.prompt, o.first, o.second) for o in _ordered(cases, answers, swapped)]
        )
        return [Verdict(_of_answer(label.prob_1, swapped), _marks(label.flags)) for label in labels]

    async def judge_carelessly(self, cases: Sequence[Case], answers: Sequence[str], *, swapped: bool) -> list[Verdict]:
        found = await prefer_carelessly(self._labeler, _ordered(cases, answers, swapped))
        return [Verdict(_of_answer(prob_first, swapped)) for prob_first in found]


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
