"""The reward ``rubric``: verdicts on criteria become one score, which says what it is made of."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlaif_rubric.checks import Checks
from rlaif_rubric.criteria import TAG, CriterionParams, check_names, numbered, read_file, read_rubric
from rlaif_rubric.params import RubricParams
from rlaif_sdk import (
    ConfigError,
    Credit,
    CreditSpan,
    Criterion,
    CriterionVerdict,
    Reward,
    RewardBatch,
    RubricJudge,
    RubricVerdicts,
    Score,
    SubScore,
    Usage,
    load_rubric_judge,
)


@dataclass(frozen=True, slots=True)
class _Item:
    """A criterion of a row, and what is said of it; None where there is nothing to check."""

    criterion: Criterion
    verdict: CriterionVerdict | None
    per_row: bool

    @property
    def value(self) -> float | None:
        return self.verdict.value if self.verdict else None

    @property
    def is_as_wanted(self) -> bool:
        return self.value is not None and abs(self.value - self.criterion.worst) >= 0.5

    @property
    def text(self) -> str:
        """What it asks for, where its name is only a number."""
        return f"\u201c{_shortened(self.criterion.text)}\u201d" if self.criterion.name.startswith("#") else ""

    def subscore(self) -> SubScore:
        verdict = self.verdict
        said = (
            "nothing to check" if verdict is None else f"failed: {verdict.error}" if verdict.error else verdict.reason
        )
        evidence = verdict.evidence if verdict else ()
        reason = " ".join(filter(None, (self.text, said))) or None
        return SubScore(self.value, self.criterion.weight, reason, evidence, self.per_row)


_NO_POINTS = "there is no criterion with positive points"


class RubricReward(Reward):
    """The share of a rubric's points that an answer gets.

    With ``aggregate: explicit`` a row's score is the sum of weight times value over its criteria, divided by the sum of the
    positive weights, so that it is 1 where every merit is there and no fault is, and below 0 where faults outweigh merits
    (HealthBench; with weights of at least 0 the weighted share of Rubrics as Rewards and of verifiers). A row whose
    criteria have no positive weight abstains.

    A criterion that could not be judged leaves its row unscored, and named, unless ``on_failed_criterion: skipped``. One
    whose check abstains is left out. A score's ``subscores`` have each criterion's value, weight, reason and evidence, and
    ``tag/TAG`` the score of each tag's criteria. Its credit has what a criterion adds on the words that the judge quotes.
    """

    name = "rubric"
    ends = ("no criterion met", "every criterion met")

    def __init__(self, params: RubricParams) -> None:
        self.params = params
        self._fixed = numbered([*params.criteria, *(read_file(params.file) if params.file else ())])
        checked = [criterion for criterion in self._fixed if criterion.check is not None]
        if params.aggregate == "implicit" and checked:
            raise ConfigError(
                f"with aggregate: implicit the judge reads the whole rubric, and the criterion {checked[0].name!r} has a check",
                hint="set aggregate: explicit, or make the check a reward of its own",
            )
        if params.column is None and params.aggregate == "explicit" and not _has_points(self._fixed):
            raise ConfigError(f"{_NO_POINTS}, so no row has a score", hint="add what a good answer does")
        self._checks = Checks(checked)
        self.judge = self._make_judge(needed=len(checked) < len(self._fixed) or params.column is not None)
        self.reads_images = self.judge is not None and self.judge.reads_images
        rewards = self._checks.rewards.values()
        own = tuple(name for name in (params.column, params.reference_column) if name is not None)
        self.columns = tuple(dict.fromkeys([*own, *(name for reward in rewards for name in reward.columns)]))
        read = [reward.inputs for reward in rewards]
        self.inputs = None if None in read else (*own, *(name for names in read for name in names or ()))
        self.cacheable = all(reward.cacheable for reward in rewards)
        self.range = self._declared_range(can_leave_out=bool(checked) or params.on_failed_criterion == "skipped")
        self.version = self._fingerprint()

    def setup(self) -> None:
        """Load the judge, or check its server's settings, and set up what the checks need."""
        if self.judge:
            self.judge.setup()
        self._checks.setup()
        self.version = self._fingerprint()  # some checks know their version only now

    def close(self) -> None:
        """Release them."""
        if self.judge:
            self.judge.close()
        self._checks.close()

    async def score(self, batch: RewardBatch) -> list[Score]:
        """Score a batch of B rows."""
        rubrics = [self._rubric(value) for value in self._column(batch, self.params.column)]
        rows = [row for row, rubric in enumerate(rubrics) if not isinstance(rubric, Score)]
        scores: list[Score | None] = [rubric if isinstance(rubric, Score) else None for rubric in rubrics]
        asked = [
            [c.criterion() for c in rubric if c.check is None] for rubric in rubrics if not isinstance(rubric, Score)
        ]
        chosen = batch.select(rows)
        references = chosen.references(self.params.reference_column)
        if self.params.aggregate == "implicit":
            assert self.judge is not None
            found: Sequence[Score] = await self.judge.rate(chosen, asked, references)
        else:
            judged, checked = await asyncio.gather(
                self._judged(chosen, asked, references), self._checks.verdicts(chosen)
            )
            texts = self.params.texts(batch)
            found = [
                said if isinstance(said, Score) else self._scored(rubrics[row], said, checks, texts[row] or "")
                for row, said, checks in zip(rows, judged, checked, strict=True)
            ]
        for row, score in zip(rows, found, strict=True):
            scores[row] = score
        return [score for score in scores if score is not None]

    async def _judged(
        self, batch: RewardBatch, asked: Sequence[Sequence[Criterion]], references: Sequence[str | Score | None]
    ) -> Sequence[RubricVerdicts | Score]:
        if self.judge is None:
            return [RubricVerdicts(())] * len(batch)
        return await self.judge.judge(batch, asked, references)

    def _column(self, batch: RewardBatch, name: str | None) -> Sequence[Any]:
        return [None] * len(batch) if name is None else batch.column(name)

    def _rubric(self, value: Any) -> list[CriterionParams] | Score:
        """The criteria of a row, or why it has no score."""
        column = self.params.column
        try:
            own = numbered(read_rubric(value), first=len(self._fixed) + 1)
            check_names([*self._fixed, *own])
        except ConfigError as error:
            return Score.failed(f"the column {column!r} holds no rubric: {error.message}")
        if checked := next((criterion for criterion in own if criterion.check is not None), None):
            return Score.failed(f"the column {column!r} has a check, {checked.check!r}: checks stand in the config")
        if not (rubric := [*self._fixed, *own]):
            return Score(None, reason=f"the column {column!r} is empty, so there is no criterion")
        if self.params.aggregate == "explicit" and not _has_points(rubric):
            return Score(None, reason=_NO_POINTS)
        return rubric

    def _scored(
        self,
        rubric: Sequence[CriterionParams] | Score,
        said: RubricVerdicts,
        checks: Mapping[str, CriterionVerdict | None],
        text: str,
    ) -> Score:
        assert not isinstance(rubric, Score)
        verdicts = iter(said.verdicts)
        items = [
            _Item(
                criterion.criterion(),
                next(verdicts) if criterion.check is None else checks[criterion.name or ""],
                per_row=place >= len(self._fixed),
            )
            for place, criterion in enumerate(rubric)
        ]
        subscores = {item.criterion.name: item.subscore() for item in items}
        for tag in dict.fromkeys(tag for item in items for tag in item.criterion.tags):
            share = weighted_share(item for item in items if tag in item.criterion.tags)
            if share is not None:
                subscores[TAG + tag] = SubScore(share)
        details: dict[str, Any] = {"flags": list(said.flags)}
        if said.refused:
            details["refused"] = "contentless"
        if said.usage != Usage():
            details["usage"] = said.usage.record()
        failed = [item for item in items if item.verdict and item.verdict.error]
        if failed and self.params.on_failed_criterion == "unscored":
            first = failed[0]
            assert first.verdict is not None
            problem = f"{len(failed)} of {len(items)} criteria have no verdict: {_names(failed)}; {first.verdict.error}"
            return Score(None, details=details, error=problem, subscores=subscores)
        value = weighted_share(items)
        if value is None:
            return Score(None, f"{_NO_POINTS} and a verdict", details, subscores=subscores)
        return Score(
            value, _reason(items, failed, said), details, self._credit(items, value, text), subscores=subscores
        )

    def _credit(self, items: Sequence[_Item], value: float, text: str) -> Credit | None:
        """What each criterion adds to the score, on the words that the judge quotes for it, evenly."""
        possible = points(items)
        spans: list[CreditSpan] = []
        for item in items:
            places = item.verdict.evidence_spans(text) if item.verdict and item.value else []
            for start, end in places:
                assert item.value is not None
                added = item.criterion.weight * item.value / possible / len(places)
                spans.append(CreditSpan(start, end, added, item.criterion.name))
        if not spans:
            return None
        rest = value - math.fsum(span.value for span in spans)
        return Credit(spans=tuple(spans), rest=rest, view=self.params.view, thinking=self.params.thinking)

    def _make_judge(self, *, needed: bool) -> RubricJudge | None:
        if not needed:
            return None
        if self.params.model is None:
            raise ConfigError("a rubric with criteria for a judge needs its model", key="model")
        return load_rubric_judge(
            backend=self.params.backend, judging=self.params.judging(), **self.params.backend_settings()
        )

    def _declared_range(self, *, can_leave_out: bool) -> tuple[float, float] | None:
        """The least and the greatest score; None where a row's own criteria, or those left out, may change it."""
        if self.params.aggregate == "implicit":
            return (0.0, 1.0)
        if self.params.column is not None:
            return None
        lost = math.fsum(min(criterion.weight, 0.0) for criterion in self._fixed)
        gained = math.fsum(max(criterion.weight, 0.0) for criterion in self._fixed)
        if not lost:
            return (0.0, 1.0)
        return None if can_leave_out else (lost / gained, 1.0)

    def _fingerprint(self) -> str:
        parts = [
            "2",
            [criterion.model_dump(mode="json") for criterion in self._fixed],
            [self.params.column, self.params.reference_column, self.params.aggregate, self.params.on_failed_criterion],
            self.judge.fingerprint if self.judge else None,
            {name: reward.version for name, reward in self._checks.rewards.items()},
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _has_points(criteria: Iterable[CriterionParams]) -> bool:
    return any(criterion.weight > 0 for criterion in criteria)


def weighted_share(items: Iterable[_Item]) -> float | None:
    """The sum of weight times value, divided by the sum of the positive weights; None without any.

    Criteria without a value are left out of both.
    """
    items = list(items)
    met = math.fsum(item.criterion.weight * item.value for item in items if item.value is not None)
    return met / possible if (possible := points(items)) else None


def points(items: Iterable[_Item]) -> float:
    """The sum of the positive weights of the criteria that have a value."""
    return math.fsum(max(item.criterion.weight, 0.0) for item in items if item.value is not None)


def _reason(items: Sequence[_Item], failed: Sequence[_Item], said: RubricVerdicts) -> str:
    if said.refused:
        return said.refused
    known = [item for item in items if item.value is not None]
    wrong = [item for item in known if not item.is_as_wanted]
    told = f"{len(known) - len(wrong)} of {len(known)} criteria as wanted"
    parts = [told + (f", not {_names(wrong)}" if wrong else "")]
    if failed:
        parts.append(f"left out, without a verdict: {_names(failed)}")
    if said.flags:
        parts.append(f"flagged: {', '.join(said.flags)}")
    return "; ".join(parts)


def _names(items: Sequence[_Item], most: int = 5) -> str:
    names = [" ".join(filter(None, (item.criterion.name, item.text))) for item in items]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _shortened(text: str, most: int = 100) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}\u2026"
