"""Rows that a report shows in full: the best, the worst, a middling one, one unscored, one with a failure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlaif_sdk.composer import Composition
from rlaif_sdk.composer.explain import Explanation
from rlaif_sdk.conversations import USER, shown

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
