"""One reward's part in a composition: what it said, and what became of that on each row."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rlaif_sdk.io.text import short_repr
from rlaif_sdk.scoring.checks import CheckedScores
from rlaif_sdk.statistics.arrays import Array, Mask, json_number
from rlaif_sdk.types import Credit, Score, SubScore

NO_IMAGE = "it saw no image"
"""What is said of a score of text beside an image."""
Status = Literal["scored", "abstained", "failed", "default", "masked", "fallback", "cached", "not asked", "imputed"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RewardColumn(CheckedScores):
    """One reward's part in a composition of B rows: what it said, and what became of that.

    Attributes:
        name: Its name in the composition.
        weight: Its weight in force, among its neighbours.
        raw: (B,) what it said, in its own units; NaN where it abstained, failed, or was not asked, also where a score is
            imputed.
        normalized: (B,) the value that was weighed, higher being better; NaN where it took no part.
        weighted: (B,) its share of the total; NaN where it took no part.
        failures: Why, for each row that failed.
        masked: (B,) True where its score was left out because it failed on another row of the group.
        defaulted: (B,) True where it failed and its stated default is taken.
        seconds: How long it took.
        entries: The B entries as the reward gave them; empty when it failed altogether.
        fallback_reasons: Why it failed, for each row on which its fallback's score is taken; None without a fallback.
        cached: (B,) True where its score came from a ledger, or from an equal row; None without a ledger.
        declared_range: The least and greatest score that it says it gives, or None.
        higher_is_better: False for a cost.
        ends: What its low and its high end mean, in two words, or None.
        working: Says of a row how ``normalized`` came of ``raw``; see `rlaif_sdk.Normalizer.working`.
        credit: Where its score of a row comes from, for each row of which it says so.
        credit_scale: (B,) what a unit of that adds to the total: 0 where it takes no part or a gate is closed, NaN where the
            normalizer or the aggregator leaves it no place. None without credit.
        error: Why a call failed, the only one or the first that did; None where none did.
        not_asked: Why it was not asked, for each row that its conditions or its ``ask`` kept from it; None without either. It
            has failed there too where a reward failed that a condition looks at.
        imputed: What is taken for its score, for each row that its ``ask`` kept from it; None without one.
        flipped_share: Of the advantages of the last groups that it was asked about in full, the share whose sign its ``ask``
            would have flipped; None without one, NaN while there are none.
        unseen_images: The rows with an image, where it reads text alone.
    """

    name: str
    weight: float
    normalized: Array
    weighted: Array
    masked: Mask
    defaulted: Mask
    seconds: float
    declared_range: tuple[float, float] | None = None
    higher_is_better: bool = True
    ends: tuple[str, str] | None = None
    working: Callable[[int], str] | None = None
    credit_scale: Array | None = None
    unseen_images: Collection[int] = ()
    flipped_share: float | None = None

    def __repr__(self) -> str:
        scored = int((~np.isnan(self.raw)).sum())
        return short_repr(
            f"RewardColumn {self.name} of {len(self.raw)} rows, {scored} scored, weight {self.weight:.4g}"
        )

    def status(self, row: int) -> Status:
        """What happened on a row."""
        if row in self.failures:
            return "default" if self.defaulted[row] else "failed"
        if self.masked[row]:
            return "masked"
        if self.not_asked and row in self.not_asked:
            return "imputed" if self.imputed and row in self.imputed else "not asked"
        if self.fallback_reasons and row in self.fallback_reasons:
            return "fallback"
        if np.isnan(self.raw[row]):
            return "abstained"
        return "cached" if self.cached is not None and self.cached[row] else "scored"

    @property
    def abstained(self) -> int:
        """The number of rows on which it abstained, which are those where it was asked and neither scored nor failed."""
        return int(np.isnan(self.raw).sum()) - len(self.failures) - len(self.skipped)

    def counts(self) -> dict[str, float]:
        """On how many rows it was not asked, fell back, or was cached, and the shares that its ``ask`` makes; by name."""
        counts: dict[str, float] = {}
        if self.not_asked is not None:
            counts["not_asked"] = float(len(self.skipped))
        if self.imputed is not None and self.raw.size:
            counts |= {
                "asked_share": 1 - len(self.skipped) / self.raw.size,
                "imputed_share": len(self.imputed) / self.raw.size,
            }
        if self.flipped_share is not None:
            counts["flipped_share"] = self.flipped_share
        if self.fallback_reasons is not None:
            counts["fallback"] = float(len(self.fallback_reasons))
        if self.cached is not None:
            counts["cached"] = float(self.cached.sum())
        return counts

    def record(self, row: int) -> dict[str, Any]:
        """What is said of a row, JSON-ready: its numbers, None where there is none, its status and reason.

        Where it gives any, its credit too, as `credited` has it, and its sub-scores.
        """
        said: dict[str, Any] = {
            "raw": json_number(self.raw[row]),
            "normalized": json_number(self.normalized[row]),
            "weighted": json_number(self.weighted[row]),
            "status": self.status(row),
            "reason": self.reason(row),
        }
        if self.credit:
            said["credit"] = self.credit_record(row)
        subscores = {name: part.record() for name, part in self.subscores(row).items()}
        return {**said, "subscores": subscores} if subscores else said

    def score(self, row: int) -> Score | None:
        """The `Score` object that the reward gave for a row, if it gave one."""
        entry = self.entries[row] if self.entries else None
        return entry if isinstance(entry, Score) else None

    def subscores(self, row: int) -> Mapping[str, SubScore]:
        """What its score of a row is made of, by name; empty where it does not say."""
        score = self.score(row)
        return score.subscores if score else {}

    def subscore_values(self) -> dict[str, list[float]]:
        """The values of each sub-score on the scored rows that have it, without those that mean something in one row only."""
        values: dict[str, list[float]] = {}
        for row in np.flatnonzero(~np.isnan(self.raw)).tolist():
            for name, part in self.subscores(row).items():
                if part.value is not None and not part.per_row:
                    values.setdefault(name, []).append(part.value)
        return values

    def credited(self, row: int) -> Credit | None:
        """Where its share of a row's total falls: the parts of its credit, scaled, and the rest of ``weighted``.

        None where all of that falls on the end: without credit, where it takes no part or has no place, and where a gate is
        closed.
        """
        given = self.credit.get(row)
        if given is None or self.credit_scale is None or not given.has_parts:
            return None
        scale, weighted = float(self.credit_scale[row]), float(self.weighted[row])
        return None if scale == 0 or math.isnan(scale * weighted) else given.scaled(scale, weighted)

    def has_no_place(self, row: int) -> bool:
        """Whether its credit of a row is lost, since its normalizer or the aggregator does more than scale and shift."""
        return self.credit_scale is not None and math.isnan(self.credit_scale[row])

    def credit_record(self, row: int) -> dict[str, Any] | None:
        """What `credited` says, JSON-ready."""
        credited = self.credited(row)
        return credited.record() if credited else None

    def reason(self, row: int) -> str | None:
        """Why, in the reward's words, and that it saw no image where there is one.

        Or why it failed, also where its fallback's score is taken, or was not asked.
        """
        if row in self.failures:
            return self.failures[row]
        if self.not_asked and row in self.not_asked:
            return self.not_asked[row]
        if self.fallback_reasons and row in self.fallback_reasons:
            return self.fallback_reasons[row]
        score = self.score(row)
        reason = score.reason if score else None
        if row in self.unseen_images:
            return f"{reason} ({NO_IMAGE})" if reason else NO_IMAGE
        return reason
