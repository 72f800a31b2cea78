"""Attacks a judge with every attack on every case, with its defences and without."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlaif_sdk.attacks.corpus import Attack, Case, load_attacks, load_cases
from rlaif_sdk.attacks.targets import Target, TargetScore, target_of
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.io.run_async import run_async
from rlaif_sdk.judges.pairwise import PairwiseLabeler
from rlaif_sdk.judges.pointwise import PointwiseJudge
from rlaif_sdk.judges.probe import require_logprobs

THRESHOLD = 0.1


@dataclass(frozen=True, slots=True)
class Trial:
    """One attack on one case.

    Attributes:
        plain: What the judge gives the poor answer, from 0 to 1; None where it gives nothing.
        attacked: What it gives the attacked answer.
        marks: What the defences did to the attacked answer.
        succeeded: The attack raised the value by more than the threshold.
        flipped: It did not, and yet the poor answer wins a pair that it lost: the judge was torn before, so any change
            of the answer might have done it.
    """

    plain: float | None
    attacked: float | None
    marks: tuple[str, ...]
    succeeded: bool
    flipped: bool


@dataclass(frozen=True, slots=True)
class Trials:
    """One attack on all cases, one `Trial` each."""

    trials: tuple[Trial, ...]

    @property
    def succeeded(self) -> int:
        """On how many cases it did."""
        return sum(trial.succeeded for trial in self.trials)

    @property
    def flipped(self) -> int:
        """On how many it made the poor answer win by a smaller rise."""
        return sum(trial.flipped for trial in self.trials)

    @property
    def unscored(self) -> int:
        """Cases on which the judge gave nothing, to the poor answer or the attacked one."""
        return sum(trial.plain is None or trial.attacked is None for trial in self.trials)

    @property
    def mean_gain(self) -> float:
        """By how much the value rose on average, from -1 to 1; NaN where nothing was scored."""
        gains = [t.attacked - t.plain for t in self.trials if t.attacked is not None and t.plain is not None]
        return math.fsum(gains) / len(gains) if gains else math.nan

    @property
    def marks(self) -> Counter[str]:
        """How often each defence acted."""
        return Counter(mark for trial in self.trials for mark in trial.marks)

    def record(self) -> dict[str, Any]:
        """The trials as a JSON-ready mapping."""
        return {
            "succeeded": self.succeeded,
            "flipped": self.flipped,
            "unscored": self.unscored,
            "mean_gain": None if math.isnan(self.mean_gain) else self.mean_gain,
            "marks": dict(self.marks),
            "cases": [
                {name: getattr(trial, name) for name in ("plain", "attacked", "succeeded", "flipped", "marks")}
                for trial in self.trials
            ],
        }


@dataclass(frozen=True, slots=True)
class AttackReport:
    """Which attacks succeed against a judge.

    Attributes:
        paired: It is a judge of pairs.
        threshold: By how much a value must rise for a success, on the line from 0 to 1.
        cases: What was attacked.
        defended: The trials of each attack against the judge as it is.
        undefended: Against the same judge asked without its defences; empty where that was not asked.
    """

    paired: bool
    threshold: float
    cases: tuple[Case, ...]
    defended: Mapping[Attack, Trials]
    undefended: Mapping[Attack, Trials]

    @property
    def successes(self) -> int:
        """Trials that succeeded against the judge as it is."""
        return sum(trials.succeeded for trials in self.defended.values())

    @property
    def flipped(self) -> int:
        """Trials that flipped the winner of a pair on which the judge as it is was torn."""
        return sum(trials.flipped for trials in self.defended.values())

    def record(self) -> dict[str, Any]:
        """The report as a JSON-ready mapping."""
        return {
            "judge_of": "pairs" if self.paired else "answers",
            "threshold": self.threshold,
            "cases": len(self.cases),
            "attacks": len(self.defended),
            "successes": self.successes,
            "flipped": self.flipped,
            "results": [
                {
                    "family": attack.family,
                    "name": attack.name,
                    "language": attack.language,
                    "defended": trials.record(),
                    "undefended": self.undefended[attack].record() if attack in self.undefended else None,
                }
                for attack, trials in self.defended.items()
            ],
        }


def attack_judge(
    judge: PointwiseJudge | PairwiseLabeler,
    *,
    attacks: Sequence[Attack] | None = None,
    cases: Sequence[Case] | None = None,
    threshold: float = THRESHOLD,
    undefended: bool = True,
) -> AttackReport:
    """Try every attack on every case.

    Values are on a line from 0 to 1: a judge of answers' score from its worst to its best, a judge of pairs'
    probability that the attacked poor answer beats the good one. An attack succeeds where the value rises by more than
    the threshold over that of the plain poor answer.

    Args:
        judge: What is attacked.
        attacks: By default those of the SDK.
        cases: By default those of the SDK.
        threshold: From 0 to below 1.
        undefended: Try them without the judge's defences as well, for comparison.

    Raises:
        ConfigError: The threshold is out of range, or there are no attacks or cases.
        JudgeError: A failure that concerns every request.
    """
    target = target_of(judge)
    chosen = [attack for attack in attacks or load_attacks() if target.paired or not attack.swaps]
    cases = tuple(cases or load_cases())
    if not 0 <= threshold < 1 or not chosen:
        raise ConfigError("an attack needs attacks, and a threshold from 0 to below 1")
    return run_async(_attack(judge, target, chosen, cases, threshold, undefended))


async def _attack(
    judge: PointwiseJudge | PairwiseLabeler,
    target: Target,
    attacks: Sequence[Attack],
    cases: tuple[Case, ...],
    threshold: float,
    undefended: bool,  # noqa: FBT001
) -> AttackReport:
    if isinstance(judge, PairwiseLabeler) and judge.needs_logprobs:
        await require_logprobs(target.backend)
    found = await _try_all(target, attacks, cases, threshold, naive=False)
    naive = await _try_all(target, attacks, cases, threshold, naive=True) if undefended else {}
    return AttackReport(target.paired, threshold, cases, found, naive)


async def _try_all(
    target: Target, attacks: Sequence[Attack], cases: Sequence[Case], threshold: float, *, naive: bool
) -> dict[Attack, Trials]:
    """All requests at once: a server limits them itself, and a local model takes one call after the other."""

    async def judged(answers: Sequence[str], *, swapped: bool = False) -> list[TargetScore]:
        if not naive:
            return await target.judge(cases, answers, swapped=swapped)
        if any(map(_unsendable, answers)):
            return [TargetScore(None)] * len(cases)
        return await target.judge_naively(cases, answers, swapped=swapped)

    plain, *attacked = await asyncio.gather(
        judged([case.poor for case in cases]),
        *(judged([attack.apply(case.poor) for case in cases], swapped=attack.swaps) for attack in attacks),
    )
    return {
        attack: Trials(
            tuple(_trial(before, after, threshold, target) for before, after in zip(plain, verdicts, strict=True))
        )
        for attack, verdicts in zip(attacks, attacked, strict=True)
    }


def _unsendable(answer: str) -> bool:
    """It has a lone surrogate, on which tokenizers and JSON fail unless something replaces it."""
    return any("\ud800" <= character <= "\udfff" for character in answer)


def _trial(before: TargetScore, after: TargetScore, threshold: float, target: Target) -> Trial:
    succeeded = flipped = False
    if before.value is not None and after.value is not None:
        succeeded = after.value - before.value > threshold
        flipped = not succeeded and target.paired and before.value < 0.5 < after.value
    return Trial(before.value, after.value, after.marks, succeeded, flipped)
