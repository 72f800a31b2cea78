"""What a report is made of: the arrays of a whole run. N rows, R rewards, T optimiser steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rlaif_sdk.composer import Composition
from rlaif_sdk.composer.explain import Explanation
from rlaif_sdk.composer.metrics import completion_characters, completion_lengths
from rlaif_sdk.conversations import USER, shown
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.statistics.arrays import Array, encode_groups

BATCHES = 12
"""Rows of at most so many batches are shown, spread evenly over the run."""


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One row to show.

    Attributes:
        step: Its optimiser step.
        why: What it is an example of.
        prompt: Its prompt, as text.
        completion: Its completion, as text.
        explanation: How its total came about.
    """

    step: int
    why: str
    prompt: str
    completion: str
    explanation: Explanation


class Sampler:
    """Keeps rows of every k-th batch; when too many are kept, every second goes, and k doubles."""

    def __init__(self) -> None:
        self._every = 1
        self._seen = 0
        self._kept: list[list[SampleRow]] = []

    def add(self, composition: Composition) -> None:
        """See one more batch of at least one row."""
        if self._seen % self._every == 0:
            self._kept.append(_examples(composition))
        self._seen += 1
        if len(self._kept) > BATCHES:
            self._kept = self._kept[::2]
            self._every *= 2

    def rows(self) -> list[SampleRow]:
        """What is kept, in the order of the run."""
        return [row for rows in self._kept for row in rows]


def _examples(composition: Composition) -> list[SampleRow]:
    order = np.argsort(composition.totals, kind="stable")  # NaN comes last
    scored = int(np.count_nonzero(~np.isnan(composition.totals)))
    chosen: dict[int, str] = {}
    if scored:
        chosen[int(order[scored - 1])] = "highest of its batch"
        chosen.setdefault(int(order[0]), "lowest of its batch")
        chosen.setdefault(int(order[scored // 2]), "middle of its batch")
    if scored < len(composition):
        chosen[int(order[-1])] = "unscored"
    for name, column in composition.rewards.items():
        if column.failures:
            chosen.setdefault(min(column.failures), f"{name} failed")
            break
    batch = composition.batch
    return [
        SampleRow(
            step=batch.progress.step,
            why=why,
            prompt=shown(batch.prompts[row], role=USER),
            completion=shown(batch.completions[row]),
            explanation=composition.explain(row),
        )
        for row, why in chosen.items()
    ]


Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RewardFacts:
    """What is known of a reward beside its scores.

    Attributes:
        declared_range: The range that it declares, or None.
        higher_is_better: False for a cost.
        ends: What its low and its high end mean, or None.
        weights: Its weight in force by optimiser step.
        failures: How often it failed, by why.
        subscores: The values of each sub-score by optimiser step.
    """

    declared_range: tuple[float, float] | None
    higher_is_better: bool
    ends: tuple[str, str] | None = None
    weights: dict[int, float] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    subscores: dict[str, dict[int, list[float]]] = field(default_factory=dict)

    @property
    def weight(self) -> float:
        """The last weight in force."""
        return [*self.weights.values()][-1]

    @property
    def is_held_out(self) -> bool:
        """Whether it never had a weight: it is then only recorded."""
        return not any(self.weights.values())


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """The rows of a run, in the order in which they were composed.

    Attributes:
        rewards: The rewards by name, in the order of the axes named R.
        training: Whether these are training rows; evaluation rows are looked at where there are no others.
        step_N: The optimiser step of each row, ascending or not.
        group_N: Equal for rows of one batch that answer the same prompt; -1 without groups.
        length_N: Each completion's length in ``length_unit``.
        totals_N: The totals, NaN where a row is unscored.
        raw_RN: What each reward said, NaN where it abstained, failed, or was not asked.
        parts_RN: What each adds to the total; NaN where it took no part, or where that is not known.
        failed_RN: Where it failed.
        skipped_RN: Where its conditions kept it from a row.
        length_unit: ``tokens`` or ``characters``.
        samples: Rows to show.
    """

    rewards: dict[str, RewardFacts]
    training: bool
    step_N: Integers
    group_N: Integers
    length_N: Array
    totals_N: Array
    raw_RN: Array
    parts_RN: Array
    failed_RN: npt.NDArray[np.bool_]
    skipped_RN: npt.NDArray[np.bool_]
    length_unit: str
    samples: Sequence[SampleRow]

    def __len__(self) -> int:
        return len(self.totals_N)

    @property
    def steps_T(self) -> Integers:
        """The steps that there are, ascending."""
        return np.unique(self.step_N)

    @property
    def has_parts(self) -> bool:
        """Whether it is known what the rewards add to every total."""
        unknown_N = np.isnan(self.parts_RN).all(axis=0)
        return not bool((unknown_N & ~np.isnan(self.totals_N)).any())

    def by_step(self, values_N: Array) -> tuple[Array, Array]:
        """(T,) the mean of each step's values, and its standard error; NaN where there are too few."""
        _, code_N = np.unique(self.step_N, return_inverse=True)
        present_N = ~np.isnan(values_N)
        code, values, steps = code_N[present_N], values_N[present_N], len(self.steps_T)
        count_T = np.bincount(code, minlength=steps)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean_T = np.bincount(code, weights=values, minlength=steps) / count_T
            squares_T = np.bincount(code, weights=(values - mean_T[code]) ** 2, minlength=steps)
            error_T = np.sqrt(squares_T / (count_T - 1) / count_T)
        return mean_T, np.where(count_T > 1, error_T, np.nan)

    def oriented(self, name: str) -> Array:
        """(N,) a reward's scores, inverted where need be so that higher is better, or what its last weight rewards."""
        facts = self.rewards[name]
        raw_N: Array = self.raw_RN[list(self.rewards).index(name)]
        return raw_N if facts.higher_is_better == (facts.weight >= 0) else -raw_N


def observe(compositions: Iterable[Composition]) -> Observations:
    """Take in a run's compositions, one at a time; texts are kept of only a few rows.

    Training rows are looked at; where there are none, those of evaluation.

    Raises:
        DataError: There are no rows.
    """
    parts = {True: _Gathered(), False: _Gathered()}
    for composition in compositions:
        parts[composition.batch.training].add(composition)
    chosen = parts[True] if parts[True].batches else parts[False]
    if not chosen.batches:
        raise DataError("the run has no composed rows to report", hint="record it with a ledger, or give another run")
    return chosen.observations(training=chosen is parts[True])


class _Gathered:
    def __init__(self) -> None:
        self.batches: list[dict[str, Any]] = []
        self._rewards: dict[str, RewardFacts] = {}
        self._groups = 0
        self._in_tokens = True
        self._sampler = Sampler()

    def add(self, composition: Composition) -> None:
        if not len(composition):
            return
        batch, columns = composition.batch, composition.rewards
        step = batch.progress.step
        for name, column in columns.items():
            facts = self._rewards.setdefault(
                name, RewardFacts(column.declared_range, column.higher_is_better, column.ends)
            )
            facts.weights[step] = column.weight
            facts.failures.update(column.failures.values())
            for part, values in column.subscore_values().items():
                facts.subscores.setdefault(part, {}).setdefault(step, []).extend(values)
        group_B = encode_groups(batch.group)
        self._in_tokens &= batch.completion_ids is not None
        self.batches.append(
            {
                "step": np.full(len(composition), step),
                "group": np.full(len(composition), -1) if group_B is None else group_B + self._groups,
                "lengths": (completion_lengths(batch), completion_characters(batch)),
                "totals": composition.totals,
                "raw": {name: column.raw for name, column in columns.items()},
                "parts": {name: column.weighted for name, column in columns.items()},
                "failed": {name: _rows(column.failures, len(composition)) for name, column in columns.items()},
                "skipped": {name: _rows(column.skipped, len(composition)) for name, column in columns.items()},
            }
        )
        self._groups += 0 if group_B is None else int(group_B.max()) + 1
        self._sampler.add(composition)

    def observations(self, *, training: bool) -> Observations:
        def joined(key: str) -> Any:
            return np.concatenate([batch[key] for batch in self.batches])

        def table(key: str, missing: float) -> Any:
            return np.stack(
                [
                    np.concatenate(
                        [batch[key].get(name, np.full(len(batch["totals"]), missing)) for batch in self.batches]
                    )
                    for name in self._rewards
                ]
            )

        return Observations(
            rewards=self._rewards,
            training=training,
            step_N=joined("step"),
            group_N=joined("group"),
            length_N=np.concatenate([batch["lengths"][0 if self._in_tokens else 1] for batch in self.batches]),
            totals_N=joined("totals"),
            raw_RN=table("raw", np.nan),
            parts_RN=table("parts", np.nan),
            failed_RN=table("failed", 0.0).astype(bool),
            skipped_RN=table("skipped", 0.0).astype(bool),
            length_unit="tokens" if self._in_tokens else "characters",
            samples=self._sampler.rows(),
        )


def _rows(chosen: Iterable[int], rows: int) -> Array:
    chosen_B = np.zeros(rows)
    chosen_B[list(chosen)] = 1.0
    return chosen_B
