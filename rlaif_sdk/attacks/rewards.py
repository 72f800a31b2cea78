"""Edits real answers, and finds which edits a composition pays for though a witness does not see them as better.

A answers, of which each trial edits those that the edit changes.
"""

from __future__ import annotations

import json
import math
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from rlaif_sdk.attacks.edits import Edit, Level, load_edits
from rlaif_sdk.attacks.remedies import Proposal, Remedies, Remedy
from rlaif_sdk.composer import Composer
from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.composer.explain import Explanation
from rlaif_sdk.conversations import USER, read, shown, view, with_answer
from rlaif_sdk.evaluation.best_of import BestOfCurve, check_witness, curve_of
from rlaif_sdk.evaluation.reward import check_column
from rlaif_sdk.evaluation.scored import Candidate, ScoredPool
from rlaif_sdk.exceptions import ConfigError, DataError, RlaifError
from rlaif_sdk.io.jsonl import Row, plain
from rlaif_sdk.io.tables import Source, read_rows, table_name
from rlaif_sdk.statistics.arrays import Array, Labels, encode_groups, json_number
from rlaif_sdk.statistics.correlation import rank_correlation
from rlaif_sdk.statistics.estimates import Estimate, at_least_wilson, effective_size, mean_estimate
from rlaif_sdk.statistics.groups import group_means, rows_of_groups

FEWEST_PROMPTS = 8
"""With fewer, nothing is a finding: an interval over them says too little."""
_PARTNERS = 4
"""How many edits a chain is tried to be made longer with."""
_OVERRATED = 3
"""How many answers are shown that the total overrates."""
_SILENT = 10
"""A witness that so many edits leave unmoved, on every answer, does not read the answers."""
_FEWEST_DEGREES = 10
"""Of the spread within prompts; with fewer it is that over all answers."""
Chain = tuple[tuple[str, Level], ...]
"""Edits by name, each with its level, in the order in which they are made."""


@dataclass(frozen=True, slots=True)
class EditResult:
    """What one edit, or a chain of several, did to the total and to the witness, over prompts.

    Gains are in standard deviations of real answers. Intervals are those of a mean by Student's t, at a confidence that
    holds for all trials at once (Bonferroni).

    Attributes:
        chain: The edits, with their levels.
        total: The mean gain of the composition's total.
        witness: The mean gain of the witness; None without one.
        gap: The mean of the difference; that of the total without a witness.
        wins: The share of answers whose total rises, and by more than the witness.
        paid_by: The mean that each reward, constraint and gate adds to the gain, in the same unit.
        unscored: Edited answers without a total, or without a score of the witness; they count nowhere else.
        unchanged: Answers that the edit leaves as they are, likewise.
    """

    chain: Chain
    total: Estimate
    witness: Estimate | None
    gap: Estimate
    wins: Estimate
    paid_by: Mapping[str, float]
    unscored: int
    unchanged: int

    @property
    def name(self) -> str:
        """``padding 2 + flattery 1``."""
        return " + ".join(
            f"{name} {level:g}" if isinstance(level, float) else f"{name} {level}" for name, level in self.chain
        )

    @property
    def payer(self) -> str:
        """What adds most to the gain."""
        return max(self.paid_by, key=lambda name: self.paid_by[name])

    def record(self) -> dict[str, Any]:
        """As a JSON-ready mapping."""
        return {
            "edits": [{"name": name, "level": level} for name, level in self.chain],
            "total": self.total.record(),
            "witness": self.witness.record() if self.witness else None,
            "gap": self.gap.record(),
            "wins": self.wins.record(),
            "paid_by": {name: json_number(value) for name, value in self.paid_by.items()},
            "unscored": self.unscored,
            "unchanged": self.unchanged,
        }


@dataclass(frozen=True, slots=True)
class EditExample:
    """The answer on which the composition is furthest ahead of the witness.

    Attributes:
        row: The row of the table, from 1.
        prompt: The prompt, as text.
        before: The answer.
        after: The edited answer.
        witness: What the witness said before and after, higher being better; None without one.
        explanations: How the totals came about, before and after.
    """

    row: int
    prompt: str
    before: str
    after: str
    witness: tuple[float, float] | None
    explanations: tuple[Explanation, Explanation]

    def record(self) -> dict[str, Any]:
        """As a JSON-ready mapping, the explanations as lines of text."""
        return {
            "row": self.row,
            "prompt": self.prompt,
            "before": self.before,
            "after": self.after,
            "totals": [json_number(each.total) for each in self.explanations],
            "witness": None if self.witness is None else [*map(json_number, self.witness)],
            "explanations": [str(each).splitlines() for each in self.explanations],
        }


@dataclass(frozen=True, slots=True)
class Overpayment:
    """What a composition overpays: the total rises by an edit, and by more than the witness, both beyond chance.

    Attributes:
        result: The edit, at the level at which the gap is widest.
        example: An answer.
        remedies: What was tried against it, what closes it first.
    """

    result: EditResult
    example: EditExample
    remedies: tuple[Remedy, ...]

    def record(self) -> dict[str, Any]:
        """As a JSON-ready mapping."""
        remedies = [remedy.record() for remedy in self.remedies]
        return {**self.result.record(), "example": self.example.record(), "remedies": remedies}


@dataclass(frozen=True, slots=True)
class ClosingChange:
    """A change of the composition that closes one finding or several, each measured by itself.

    Attributes:
        remedy: The change, and what it does to the one that it was made for.
        closes: The names of the findings that it closes.
    """

    remedy: Remedy
    closes: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """As a JSON-ready mapping."""
        return {**self.remedy.record(), "closes": [*self.closes]}


@dataclass(frozen=True, slots=True)
class Overrated:
    """A real answer that is best of its prompt by the total, and further above the others by it than by the witness.

    Attributes:
        row: The row of the table, from 1.
        prompt: The prompt, as text.
        completion: The answer.
        total: How far its total is above the mean of its prompt, in the unit of gains.
        witness: Likewise what the witness says.
    """

    row: int
    prompt: str
    completion: str
    total: float
    witness: float

    def record(self) -> dict[str, Any]:
        """As a JSON-ready mapping."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RewardAttackReport:
    """What a composition overpays.

    Attributes:
        witness: The name of the witness, or None.
        answers: How many real answers were edited.
        prompts: To how many prompts.
        of_prompts: Of how many of the table they were drawn.
        unscored: Real answers without a total, or without a score of the witness; they are not edited.
        reason: Why the first of them has none; None where all have one.
        spread: The total's standard deviation, the unit of gains, and the witness's (None without one).
        unit: Of which answers they are.
        results: Each edit at each level, and chains, the widest gap first.
        findings: Those that are beyond chance, likewise: of each edit one level, and of chains the best, if it is better than
            every edit by itself.
        changes: Of the changes that close something, the fewest that were found to close all that any closes.
        best_of: The best of several answers to a prompt by the total; None where no prompt has several.
        overrated: Of the best by the total, those that the total is furthest ahead of the witness on; empty without one.
    """

    witness: str | None
    answers: int
    prompts: int
    of_prompts: int
    unscored: int
    reason: str | None
    spread: tuple[float, float | None]
    unit: str
    results: tuple[EditResult, ...]
    findings: tuple[Overpayment, ...]
    changes: tuple[ClosingChange, ...]
    best_of: BestOfCurve | None
    overrated: tuple[Overrated, ...]

    @property
    def overpays(self) -> bool:
        """Something was found: an edit, or that choosing by the total costs what the witness says."""
        loss = self.best_of.loss if self.best_of else None
        return bool(self.findings) or (loss is not None and loss.low > 0)

    def record(self) -> dict[str, Any]:
        """The report as a JSON-ready mapping."""
        return {
            "witness": self.witness,
            "answers": self.answers,
            "prompts": self.prompts,
            "of_prompts": self.of_prompts,
            "unscored": self.unscored,
            "reason": self.reason,
            "spread": {"total": json_number(self.spread[0]), "witness": self.spread[1], "of": self.unit},
            "findings": [finding.record() for finding in self.findings],
            "changes": [change.record() for change in self.changes],
            "results": [result.record() for result in self.results],
            "best_of": self.best_of.record() if self.best_of else None,
            "overrated": [each.record() for each in self.overrated],
        }


@dataclass(frozen=True, slots=True)
class AttackedAnswer:
    """A real answer.

    Attributes:
        row: Its row of the table, from 1.
        candidate: What is scored.
        prompt: The words of its prompt.
        text: Its own.
    """

    row: int
    candidate: Candidate
    prompt: str
    text: str


@dataclass(frozen=True, slots=True)
class EditTrial:
    """One chain of edits, scored.

    Attributes:
        chain: The edits.
        places_A: (A,) where each edited answer is in the pool; -1 where it is unchanged or its answer unscored.
        total_A: (A,) the gain of each answer's total; NaN where it is unchanged or unscored.
        witness_A: (A,) that of the witness; zeros without one.
        paid_A: (A,) what each reward, constraint and gate adds, by name.
        unchanged: How many answers the edits leave as they are.
    """

    chain: Chain
    places_A: Labels
    total_A: Array
    witness_A: Array
    paid_A: Mapping[str, Array]
    unchanged: int


def attack_rewards(composer: Composer, table: Source, **options: Any) -> RewardAttackReport:
    """Find what a composition overpays, before a policy does.

    Real answers are edited in ways that make none better. The composition and a witness score each edited answer; an edit
    is a finding where the total rises by it, and by more than the witness. See `RewardAttack` for the options.

    Example:
        >>> from rlaif_sdk import Composer
        >>> from rlaif_sdk.attacks import attack_rewards
        >>> from rlaif_sdk.composer import Component
        >>> def long(completion_texts):
        ...     return [float(len(text.split())) for text in completion_texts]
        >>> def right(completion_texts):
        ...     return [float("4" in text) for text in completion_texts]
        >>> rows = [{"prompt": f"{n} + {4 - n}?", "completion": f"It is {n % 2 + 3}." + " Yes." * n} for n in range(12)]
        >>> with Composer({"long": long, "right": Component(right, weight=0)}) as composer:
        ...     report = attack_rewards(composer, rows, witness="right", depth=1)
        >>> report.findings[0].result.name, report.findings[0].result.payer
        ('padding 4', 'long')
    """
    return RewardAttack(composer, table, **options).run()


class RewardAttack:
    """A search for what a composition overpays: what it would score, and the search itself.

    Args:
        composer: What is attacked; nothing of it learns.
        table: A prompt and a real answer a row. Several answers to a prompt are compared with each other.
        witness: The name of a reward that the total does not depend on, and whose word is taken for what an answer is worth.
        edits: What is tried; `load_edits` has those of the SDK, the default.
        depth: How many edits a chain may have; 1 tries each by itself.
        limit: Edit the answers to so many prompts, drawn with the seed; all if None.
        seed: Of all draws.
        prompt: The column of prompts.
        completion: The column of answers.
        group: The column that is equal for answers to one prompt; without it those with the same prompt are.
        learn: Whether normalizers with running statistics learn from the real answers before anything is combined.
        confidence: With which there is no false finding among all trials.
        progress: Called with the completions scored so far and all, for each part of the search.

    Raises:
        ConfigError: The witness is none, an edit fails, or a reward compares the completions to one prompt.
        DataError: There are no rows, or one lacks a column.
        ConversationError: A prompt or an answer cannot be read.
    """

    def __init__(
        self,
        composer: Composer,
        table: Source,
        *,
        witness: str | None = None,
        edits: Sequence[Edit] | None = None,
        depth: int = 2,
        limit: int | None = None,
        seed: int = 0,
        prompt: str = "prompt",
        completion: str = "completion",
        group: str = "group",
        learn: bool = True,
        confidence: float = 0.95,
        progress: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        check_witness(composer, witness)
        self._composer = composer
        self._witness = witness
        self._learn = learn
        self._confidence = confidence
        self._depth = depth
        self._seed = seed
        self._edits = {edit.name: edit for edit in (load_edits() if edits is None else edits)}
        self._pool = ScoredPool(composer, progress=progress)
        name = table_name(table)
        answers = [
            _answer(row, number, name, prompt, completion, group)
            for number, row in enumerate(read_rows(table), start=1)
        ]
        if not answers:
            raise DataError("has no rows", file=name)
        self.of_prompts, self._answers = _drawn(answers, limit, seed)
        self._chains: list[Chain] = [((edit.name, level),) for edit in self._edits.values() for level in edit.levels]
        self._edited = [self._edit(chain) for chain in self._chains]

    def cost(self) -> tuple[int, int, dict[str, int | None]]:
        """What the search scores, before it does.

        Returns:
            How many real answers, how many edited ones at most, and how often each reward calls a model for them at most;
            None for one that does not say so.
        """
        real = [answer.candidate for answer in self._answers]
        edited = [each for candidates in self._edited for each in candidates if each]
        new = len(self._pool.new([*real, *edited]))
        chains = (self._depth - 1) * _PARTNERS * len(real)
        every = new + chains
        calls = {name: part.reward.model_calls(1) for name, part in self._composer.components.items()}
        told = {name: None if count is None else count * every for name, count in calls.items()}
        return len(self._pool.new(real)), every - len(self._pool.new(real)), told

    def run(self) -> RewardAttackReport:
        """Search.

        Raises:
            BatchError: A reward misses a column.
            DataError: No answer has a total and a score of the witness.
            RewardError: A reward failed whose policy is ``raise``.
        """
        self._score_real()
        trials = self._trials(self._chains, self._edited)
        self._set_spread(trials)
        trials += self._longer(trials)
        results = {trial.chain: self._result(trial, len(trials)) for trial in trials}
        ranked = sorted(results.values(), key=lambda result: _descending(result.gap.value))
        self._warn(ranked)
        found = self._best_levels(ranked)
        found = [result for result in found if len(result.chain) == 1 or result is found[0]]
        by_chain = {trial.chain: trial for trial in trials}
        lengths = np.array([len(answer.text) for answer in self._answers], dtype=np.float64)
        with closing(Remedies(self._pool, self._witness, lengths)) as remedies:
            tried = {result.chain: self._remedies(remedies, by_chain[result.chain], len(trials)) for result in found}
            changes = self._changes(found, by_chain, tried, len(trials))
        findings = tuple(
            Overpayment(
                result,
                self._example(by_chain[result.chain]),
                tuple(remedy for remedy, _ in tried[result.chain]),
            )
            for result in found
        )
        known_A = self._known_A
        why = self._real.explain(int(np.flatnonzero(~known_A)[0])) if not known_A.all() else None
        return RewardAttackReport(
            self._witness,
            int(known_A.sum()),
            len(np.unique(self._group_A[known_A])),
            self.of_prompts,
            int((~known_A).sum()),
            None if why is None else why.note or f"{self._witness} has no score",
            (self._spread, self._witness_spread if self._witness else None),
            self._unit,
            tuple(ranked),
            findings,
            changes,
            self._best_of(),
            self._overrated(),
        )

    # --- what is scored

    def _score_real(self) -> None:
        candidates = [answer.candidate for answer in self._answers]
        self._places_A = self._pool.add(candidates)
        self._group_A = encode_groups([each.group for each in candidates])
        self._members = rows_of_groups(self._group_A)
        several = any(len(rows) > 1 for rows in self._members)
        for name, part in self._pool.parts.items():
            if part.normalizer.within_groups and not several:
                raise DataError(
                    f"rewards.{name}.normalize compares answers to the same prompt, and no prompt has several",
                    hint="give several answers to each prompt, such as rlaif make candidates writes",
                )
        if self._learn:
            self._pool.learn(self._places_A, self._group_A)
        self._real = self._pool.combine(self._places_A, self._group_A)
        self._known_A = ~np.isnan(self._real.totals + self._said(self._places_A))
        if not self._known_A.any():
            explained = self._real.explain(0)
            why = explained.note or f"the witness {self._witness!r} scored none"
            failed = "; ".join(f"{s.reward}: {s.reason or s.status}" for s in explained.steps if np.isnan(s.raw))
            raise DataError(f"no answer has a total and a score of the witness: {why}", hint=failed or None)

    def _said(self, places: Labels) -> Array:
        """What the witness says, higher being better; zeros without one."""
        if self._witness is None:
            return np.zeros(len(places))
        return self._pool.parts[self._witness].sign * self._pool.raw(self._witness)[places]

    def _edit(self, chain: Chain) -> list[Candidate | None]:
        """Each answer after the edits; None where they leave it as it is."""
        found: list[Candidate | None] = []
        for answer in self._answers:
            text = answer.text
            for name, level in chain:
                try:
                    text = self._edits[name](answer.prompt, text, level, f"{self._seed} {name} {level} {answer.row}")
                except RlaifError as error:
                    error.add_note(f"at {level!r}, on row {answer.row}")
                    raise
            changed = with_answer(answer.candidate.completion, text)
            found.append(None if text == answer.text else replace(answer.candidate, completion=changed))
        return found

    def _trials(self, chains: Sequence[Chain], edited: Sequence[Sequence[Candidate | None]]) -> list[EditTrial]:
        """Score the edited answers of all chains, all at once, and compare each with the answer that it was."""
        self._pool.add([each for candidates in edited for each in candidates if each])
        return [self._trial(chain, candidates) for chain, candidates in zip(chains, edited, strict=True)]

    def _trial(self, chain: Chain, candidates: Sequence[Candidate | None]) -> EditTrial:
        targets = [place for place, each in enumerate(candidates) if each and self._known_A[place]]
        places = self._pool.add([each for place in targets if (each := candidates[place])])
        after, rows = self._composed(targets, places)
        total_A, witness_A = (np.full(len(candidates), np.nan) for _ in range(2))
        total_A[targets] = after.totals[rows] - self._real.totals[targets]
        witness_A[targets] = self._said(places) - self._said(self._places_A[targets])
        missing_A = np.isnan(total_A + witness_A)
        total_A[missing_A] = witness_A[missing_A] = np.nan
        paid_A = {}
        for name, (before_B, after_B) in _parts_of(self._real, after).items():
            paid_A[name] = np.full(len(candidates), np.nan)
            paid_A[name][targets] = np.nan_to_num(after_B[rows]) - np.nan_to_num(before_B[targets])
        places_A = np.full(len(candidates), -1, dtype=np.intp)
        places_A[targets] = places
        return EditTrial(chain, places_A, total_A, witness_A, paid_A, int(self._known_A.sum()) - len(targets))

    def _composed(self, targets: Sequence[int], places: Labels, **changed: Any) -> tuple[Composition, Labels]:
        """Compose edited answers, each in its answer's place among the answers to the prompt.

        Args:
            targets: Which answers.
            places: Their edited forms' places in the pool.
            changed: What else `ScoredPool.combine` takes.

        Returns:
            The composition, and the row of each target in it.
        """
        members = {row: rows for rows in self._members for row in rows}
        arranged: list[int] = []
        labels: list[int] = []
        rows: list[int] = []
        for label, (target, place) in enumerate(zip(targets, places.tolist(), strict=True)):
            for other in members[target]:
                if other == target:
                    rows.append(len(arranged))
                arranged.append(place if other == target else int(self._places_A[other]))
                labels.append(label)
        composition = self._pool.combine(np.array(arranged, dtype=np.intp), np.array(labels, dtype=np.intp), **changed)
        return composition, np.array(rows, dtype=np.intp)

    # --- what is found

    def _set_spread(self, trials: Sequence[EditTrial]) -> None:
        """The unit of gains: the spread of answers to one prompt, or of all, or where none varies of edited ones too."""
        totals_A, witness_A = self._real.totals, self._said(self._places_A)
        self._spread, unit = spread_of(totals_A, self._group_A)
        self._witness_spread, _ = spread_of(witness_A, self._group_A)
        self._unit = unit
        if not self._spread:
            self._unit = "real and edited answers"
            self._spread = _std(np.concatenate([np.zeros(1), *(trial.total_A for trial in trials)]))
        if not self._witness_spread:
            self._witness_spread = _std(np.concatenate([np.zeros(1), *(trial.witness_A for trial in trials)]))

    def _gap_A(self, trial: EditTrial) -> Array:
        return _over(trial.total_A, self._spread) - _over(trial.witness_A, self._witness_spread)

    def _result(self, trial: EditTrial, trials: int) -> EditResult:
        estimate = partial(self._estimate, trials=trials)
        gap_A = self._gap_A(trial)
        there_A = ~np.isnan(gap_A)
        won_A = ((gap_A > 0) & (trial.total_A > 0))[there_A].astype(np.float64)
        groups = np.unique(self._group_A[there_A], return_inverse=True)[1]
        share = Estimate(float(won_A.mean()) if won_A.size else math.nan, math.nan, math.nan, len(won_A))
        return EditResult(
            trial.chain,
            estimate(_over(trial.total_A, self._spread)),
            None if self._witness is None else estimate(_over(trial.witness_A, self._witness_spread)),
            estimate(gap_A),
            at_least_wilson(share, effective_size(np.bincount(groups).astype(np.float64)), self._confidence),
            {
                name: float(_over(paid_A, self._spread)[there_A].mean()) if there_A.any() else 0.0
                for name, paid_A in trial.paid_A.items()
            },
            int(self._known_A.sum() - there_A.sum()) - trial.unchanged,
            trial.unchanged,
        )

    def _estimate(self, values_A: Array, *, trials: int) -> Estimate:
        """The mean over prompts of their answers' values, NaN left out, at a confidence that holds for all trials at once."""
        there_A = ~np.isnan(values_A)
        _, group = np.unique(self._group_A[there_A], return_inverse=True)
        confidence = 1 - (1 - self._confidence) / max(trials, 1)
        return mean_estimate(group_means(values_A[there_A], group).tolist(), confidence)

    @staticmethod
    def _is_beyond_chance(total: Estimate, gap: Estimate) -> bool:
        """The total rises, and by more than the witness."""
        return total.n >= FEWEST_PROMPTS and total.low > 0 and gap.low > 0

    def _best_levels(self, ranked: Sequence[EditResult]) -> list[EditResult]:
        """Of each edit, and of each chain's edits, the finding with the widest gap."""
        found: dict[tuple[str, ...], EditResult] = {}
        for result in ranked:
            if self._is_beyond_chance(result.total, result.gap):
                found.setdefault(tuple(name for name, _ in result.chain), result)
        return [*found.values()]

    def _longer(self, trials: Sequence[EditTrial]) -> list[EditTrial]:
        """Greedy: the best chain so far with each of the other findings after it, as long as the gap widens."""
        made: list[EditTrial] = []
        if self._depth == 1:
            return made
        results = {trial.chain: self._result(trial, len(trials)) for trial in trials}
        found = self._best_levels(sorted(results.values(), key=lambda result: _descending(result.gap.value)))
        if not found:
            return made
        best = found[0]
        for _ in range(self._depth - 1):
            used = {name for name, _ in best.chain}
            partners = [each.chain for each in found if each.chain[0][0] not in used][:_PARTNERS]
            chains = [(*best.chain, *chain) for chain in partners]
            longer = self._trials(chains, [self._edit(chain) for chain in chains])
            made += longer
            tried = [self._result(trial, len(trials)) for trial in longer]
            best_now = max(tried, key=lambda result: result.gap.value, default=best)
            if not best_now.gap.value > best.gap.value:
                break
            best = best_now
        return made

    def _example(self, trial: EditTrial) -> EditExample:
        place = int(np.nanargmax(np.where(trial.total_A > 0, self._gap_A(trial), -np.inf)))
        answer = self._answers[place]
        places = trial.places_A[[place]]
        [edited] = self._pool.candidates(places)
        after, rows = self._composed([place], places)
        said = np.concatenate([self._said(self._places_A[[place]]), self._said(places)])
        return EditExample(
            answer.row,
            shown(answer.candidate.prompt, role=USER),
            shown(answer.candidate.completion),
            shown(edited.completion),
            None if self._witness is None else (float(said[0]), float(said[1])),
            (self._real.explain(place), after.explain(int(rows[0]))),
        )

    def _remedies(self, remedies: Remedies, trial: EditTrial, trials: int) -> list[tuple[Remedy, Proposal]]:
        """What was tried against an edit: first what closes it, and among that what changes the real answers' order least."""
        targets = np.flatnonzero(~np.isnan(trial.total_A))
        mean = {name: float(np.nanmean(paid_A)) for name, paid_A in trial.paid_A.items()}
        proposals = remedies.proposals(
            self._places_A[targets],
            trial.places_A[targets],
            self._real.totals[targets],
            self._group_A[targets],
            gain=float(np.nanmean(trial.total_A)),
            payer=max(mean, key=lambda name: mean[name]),
        )
        found = []
        for proposal in proposals:
            with suppress(
                ConfigError
            ):  # this composition cannot have it: its aggregator, its gates' order, a like constraint
                found.append((self._measured([trial], proposal, trials)[0], proposal))
        return sorted(found, key=lambda each: each[0].order)

    def _measured(self, tried: Sequence[EditTrial], proposal: Proposal, trials: int) -> list[Remedy]:
        """What a change does to each of some edits."""
        before = self._pool.combine(self._places_A, self._group_A, **proposal.changed)
        was, spread = (spread_of(totals_A, self._group_A)[0] for totals_A in (self._real.totals, before.totals))
        flattens = was > 0 and not spread
        kept = rank_correlation(self._real.totals, before.totals)
        found = []
        for trial in tried:
            targets = np.flatnonzero(~np.isnan(trial.total_A))
            after, rows = self._composed(targets.tolist(), trial.places_A[targets], **proposal.changed)
            total_A = np.full(len(self._answers), np.nan)
            total_A[targets] = after.totals[rows] - before.totals[targets]
            gain_A = _over(total_A, spread or self._spread)
            gap_A = gain_A - _over(trial.witness_A, self._witness_spread)
            total, gap = (self._estimate(values_A, trials=trials) for values_A in (gain_A, gap_A))
            paid = self._is_beyond_chance(total, gap) or min(total.value, gap.value) > 0
            closes = not paid and not flattens and total.n > 0
            found.append(Remedy(proposal.kind, proposal.config, total, gap, closes, kept, proposal.stopped))
        return found

    def _changes(
        self,
        found: Sequence[EditResult],
        by_chain: Mapping[Chain, EditTrial],
        tried: Mapping[Chain, Sequence[tuple[Remedy, Proposal]]],
        trials: int,
    ) -> tuple[ClosingChange, ...]:
        """Of what closes each finding best, greedily that which closes most of those that are left."""
        best = [next((each for each in tried[result.chain] if each[0].closes), None) for result in found]
        edits = [by_chain[result.chain] for result in found]
        closed: list[tuple[Remedy, set[str]]] = []
        for remedy, proposal in filter(None, best):
            measured = self._measured(edits, proposal, trials)
            closed.append((remedy, {each.name for each, under in zip(found, measured, strict=True) if under.closes}))
        changes = []
        left = {result.name for result in found}
        while closed and (most := max(closed, key=lambda each: len(each[1] & left)))[1] & left:
            changes.append(
                ClosingChange(most[0], tuple(result.name for result in found if result.name in most[1] & left))
            )
            left -= most[1]
        return tuple(changes)

    def _best_of(self) -> BestOfCurve | None:
        if all(len(rows) < 2 for rows in self._members):
            return None
        witness_A = self._said(self._places_A) if self._witness else None
        try:
            return curve_of(self._real.totals, witness_A, self._group_A.tolist())
        except DataError:  # no prompt has two answers with a score
            return None

    def _overrated(self) -> tuple[Overrated, ...]:
        found = []
        if self._witness is not None:
            ahead_KA = [
                _over(values_A - group_means(values_A, self._group_A)[self._group_A], spread)
                for values_A, spread in (
                    (np.where(self._known_A, self._real.totals, np.nan), self._spread),
                    (np.where(self._known_A, self._said(self._places_A), np.nan), self._witness_spread),
                )
            ]
            for rows in self._members:
                known = [row for row in rows if self._known_A[row]]
                if len(known) > 1:
                    best = max(known, key=lambda row: float(self._real.totals[row]))
                    total, witness = (float(ahead_A[best]) for ahead_A in ahead_KA)
                    candidate = self._answers[best].candidate
                    texts = shown(candidate.prompt, role=USER), shown(candidate.completion)
                    found.append(Overrated(self._answers[best].row, *texts, total, witness))
        widest = sorted(found, key=lambda each: each.witness - each.total)[:_OVERRATED]
        return tuple(each for each in widest if each.total > each.witness)

    def _warn(self, ranked: Sequence[EditResult]) -> None:
        prompts = len(np.unique(self._group_A[self._known_A]))
        if prompts < FEWEST_PROMPTS:
            warnings.warn(f"{prompts} prompts are too few for findings: {FEWEST_PROMPTS} are the least", stacklevel=4)
        if not self._spread:
            warnings.warn(
                "the total is the same for all answers, real and edited: there is nothing to find", stacklevel=4
            )
        if not any(result.total.n for result in ranked):
            warnings.warn("no edited answer has a total and a score of the witness: nothing was tried", stacklevel=4)
        if self._witness is None:
            return
        if not self._witness_spread:
            warnings.warn(
                f"the witness {self._witness!r} says the same of all answers, real and edited: it witnesses nothing",
                stacklevel=4,
            )
        moved = [result.witness.value for result in ranked if result.witness and result.total.n]
        if self._witness_spread and len(moved) >= _SILENT and not any(moved):
            warnings.warn(
                f"the witness {self._witness!r} says of each edited answer what it says of the real one, as if it read a column "
                "of the table and not the answer: it opposes nothing",
                stacklevel=4,
            )
        places = np.arange(len(self._pool.raw(self._witness)))
        said = self._said(places)
        totals = self._pool.combine(places, places).totals
        if rank_correlation(totals, said) > 1 - 1e-9:
            warnings.warn(
                f"the witness {self._witness!r} ranks all {len(said)} answers, real and edited, as the total does: it witnesses "
                "nothing that the total does not say itself",
                stacklevel=4,
            )


def spread_of(values_A: Array, group_A: Labels) -> tuple[float, str]:
    """The standard deviation of the answers to one prompt, over all prompts with several, or of all answers.

    Args:
        values_A: NaN where an answer has none.
        group_A: Integers from 0, equal for answers to one prompt.

    Returns:
        The deviation, 0 where nothing varies, and of what it is.
    """
    there_A = ~np.isnan(values_A)
    values, group = values_A[there_A], np.unique(group_A[there_A], return_inverse=True)[1]
    degrees = len(values) - len(np.unique(group))
    if degrees >= _FEWEST_DEGREES:
        centred = values - group_means(values, group)[group]
        if (within := float(np.sqrt((centred**2).sum() / degrees))) > 1e-9 * np.abs(values).max():
            return within, "the answers to one prompt"
    return _std(values), "all answers"


def _std(values: Array) -> float:
    present = values[~np.isnan(values)]
    spread = float(present.std(ddof=1)) if present.size > 1 else 0.0
    return spread if spread > 1e-9 * float(np.abs(present).max(initial=0.0)) else 0.0


def _over(values: Array, spread: float) -> Array:
    """Values in units of a spread; nothing varies where that is 0."""
    return values / spread if spread else np.where(np.isnan(values), np.nan, 0.0)


def _descending(value: float) -> float:
    return np.inf if np.isnan(value) else -value


def _parts_of(before: Composition, after: Composition) -> dict[str, tuple[Array, Array]]:
    """What each reward, constraint and all gates together add to the totals of two compositions."""
    found = {name: (column.weighted, after.rewards[name].weighted) for name, column in before.rewards.items()}
    for old, new in zip(before.constraints, after.constraints, strict=True):
        found[f"constraint {old.constraint}"] = (-old.penalty, -new.penalty)
    if before.gates:
        found["gates"] = (before.totals - before.before_gates, after.totals - after.before_gates)
    return found


def _answer(row: Row, number: int, file: str, prompt: str, completion: str, group: str) -> AttackedAnswer:
    for column in (prompt, completion):
        check_column(row, column, file, number)
    label = row.get(group)
    key = json.dumps([row[prompt] if label is None else label], sort_keys=True, default=plain)
    columns = {other: value for other, value in row.items() if other not in (prompt, completion, group)}
    try:
        asked = [turn.text for turn in read(row[prompt], role=USER) if turn.role == USER]
        text = view(row[completion], "answer")
    except RlaifError as error:
        error.add_note(f"row {number} of {file}")
        raise
    candidate = Candidate(row[prompt], row[completion], columns, key)
    return AttackedAnswer(number, candidate, asked[-1] if asked else "", text or "")


def _drawn(answers: list[AttackedAnswer], limit: int | None, seed: int) -> tuple[int, list[AttackedAnswer]]:
    """How many prompts there are, and the answers to those that are drawn."""
    prompts = [*dict.fromkeys(answer.candidate.group for answer in answers)]
    if limit is None or limit >= len(prompts):
        return len(prompts), answers
    kept = set(random.Random(seed).sample(prompts, limit))  # noqa: S311 - a reproducible draw
    return len(prompts), [answer for answer in answers if answer.candidate.group in kept]
