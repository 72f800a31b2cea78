"""One reward's part in a composition: what it said, and what became of that on each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from rlaif_sdk.composer.arrays import Array, Mask
from rlaif_sdk.exceptions import RewardError
from rlaif_sdk.rewards import ScoreLike
from rlaif_sdk.types import Score

Status = Literal["scored", "abstained", "failed", "default", "masked", "fallback", "cached"]


@dataclass(frozen=True, slots=True, eq=False)
class RewardColumn:
    """One reward's part in a composition of B rows.

    Attributes:
        name: Its name in the composition.
        weight: Its weight in force, among its neighbours.
        raw: (B,) what it said, in its own units; NaN where it abstained or failed.
        normalized: (B,) the value that was weighed, higher being better; NaN where it took no part.
        weighted: (B,) its share of the total; NaN where it took no part.
        failures: Why, for each row that failed.
        masked: (B,) True where its score was left out because it failed on another row of the group.
        defaulted: (B,) True where it failed and its stated default stands in.
        seconds: How long it took.
        entries: The B entries as the reward gave them; empty when it failed altogether.
        stood_in: Why it failed, for each row on which its fallback's score stands in; None without a fallback.
        cached: (B,) True where its score came from a ledger, or from an equal row; None without a ledger.
        declared_range: The least and greatest score that it says it gives, or None.
        higher_is_better: False for a cost.
        tokens: (T,) what it said of each token of a row, for each row that it gave token values for.
        token_scale: (B,) what a unit of those adds to the total; None without them.
        error: Why it failed altogether, on all rows for the same reason; None where it did not.
    """

    name: str
    weight: float
    raw: Array
    normalized: Array
    weighted: Array
    failures: Mapping[int, str]
    masked: Mask
    defaulted: Mask
    seconds: float
    entries: Sequence[ScoreLike] = ()
    stood_in: Mapping[int, str] | None = None
    cached: Mask | None = None
    declared_range: tuple[float, float] | None = None
    higher_is_better: bool = True
    tokens: Mapping[int, Array] = field(default_factory=dict)
    token_scale: Array | None = None
    error: RewardError | None = None

    def status(self, row: int) -> Status:
        """What happened on a row."""
        if row in self.failures:
            return "default" if self.defaulted[row] else "failed"
        if self.masked[row]:
            return "masked"
        if self.stood_in and row in self.stood_in:
            return "fallback"
        if np.isnan(self.raw[row]):
            return "abstained"
        return "cached" if self.cached is not None and self.cached[row] else "scored"

    def score(self, row: int) -> Score | None:
        """The `Score` object that the reward gave for a row, if it gave one."""
        entry = self.entries[row] if self.entries else None
        return entry if isinstance(entry, Score) else None

    def on_tokens(self, row: int) -> Array | None:
        """(T,) the part of its share in the total that falls on each token, None where it gave no token values.

        What these leave over of ``weighted`` falls on the last token, as the whole of it does without them: the shift
        of a normalizer, say.
        """
        if row not in self.tokens or self.token_scale is None:
            return None
        on_tokens_T: Array = self.tokens[row] * self.token_scale[row]
        return on_tokens_T

    def reason(self, row: int) -> str | None:
        """Why, in the reward's words; the failure, where it failed, also where its fallback stands in."""
        if row in self.failures:
            return self.failures[row]
        if self.stood_in and row in self.stood_in:
            return self.stood_in[row]
        score = self.score(row)
        return score.reason if score else None
