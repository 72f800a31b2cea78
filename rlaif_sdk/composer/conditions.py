"""Conditions: on what other rewards said of a row, or on its columns, it depends whether a reward is asked about it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.io.text import listed
from rlaif_sdk.rewards import ScoreLike
from rlaif_sdk.scoring.checks import CheckedScores, Imputed
from rlaif_sdk.statistics.arrays import Array, Mask, is_finite_number
from rlaif_sdk.types import RewardBatch

Scalar: TypeAlias = str | int | float | bool | None
"""What a value of a column is compared with."""
_SCALARS = (str, int, float, type(None))


def outside(raw_B: Array, low: float | None, high: float | None) -> Mask:
    """(B,) True where a score is outside [low, high]; a missing score is not."""
    with np.errstate(invalid="ignore"):
        outside_B: Mask = (raw_B < (-np.inf if low is None else low)) | (raw_B > (np.inf if high is None else high))
    return outside_B


def check_bounds(what: str, low: float | None, high: float | None, key: str) -> None:
    """Check that bounds are finite, and that something lies within them.

    Raises:
        ConfigError: Neither is given, one is not finite, or nothing does.
    """
    for name, bound in (("min", low), ("max", high)):
        if bound is not None and not is_finite_number(bound):
            raise ConfigError(f"{what}'s {name} must be a finite number, not {bound!r}", key=key)
    if low is None and high is None:
        raise ConfigError(f"{what} needs min, max or both", key=key)
    if low is not None and high is not None and low > high:
        raise ConfigError(f"{what}'s min is greater than its max: nothing would pass", key=key)


def bounds_in_words(reward: str, low: float | None, high: float | None) -> str:
    """``math >= 0.5 and <= 1``."""
    bounds = ((">=", low), ("<=", high))
    return f"{reward} {' and '.join(f'{sign} {bound:g}' for sign, bound in bounds if bound is not None)}"


@dataclass(frozen=True, slots=True)
class RewardCondition:
    """What another reward said of the row lies in [min, max].

    Only a score that the reward (or its fallback) gave meets it. A row on which it abstained, or was not asked, does not,
    whatever its ``otherwise`` says. Where it failed, nobody knows: the reward with the condition is not asked there and
    fails too.

    Attributes:
        reward: The other reward's name; it may have weight 0.
        min: The least raw score that meets it, or None.
        max: The greatest, or None.

    Raises:
        ConfigError: It has no bound, one that is no finite number, or bounds that nothing meets.
    """

    reward: str
    min: float | None = None
    max: float | None = None

    def __post_init__(self) -> None:
        check_bounds("a condition", self.min, self.max, "when")

    def met(self, _: RewardBatch, scores: Mapping[str, CheckedScores]) -> Mask:
        """(B,) True where it is met."""
        raw_B = scores[self.reward].raw
        return ~(np.isnan(raw_B) | outside(raw_B, self.min, self.max))

    def why_not(self, row: int, _: RewardBatch, scores: Mapping[str, CheckedScores]) -> tuple[str, bool]:
        """Why a row does not meet it, and whether that is known: not where the other reward failed."""
        said = scores[self.reward]
        if row in said.failures:
            return f"needs {self}, and {self.reward} failed: {said.failures[row]}", False
        if said.not_asked and row in said.not_asked:
            found = "was not asked"
        else:
            found = "abstained" if np.isnan(said.raw[row]) else f"scored {said.raw[row]:.6g}"
        return f"needs {self}, and {self.reward} {found}", True

    def __str__(self) -> str:
        return bounds_in_words(self.reward, self.min, self.max)


@dataclass(frozen=True, slots=True)
class ColumnCondition:
    """A column of the row has one of some values, or none of some.

    Values are equal as they are in JSON: ``1`` is ``1.0``, and neither is ``true`` or ``"1"``; a list equals nothing. None
    is a missing value, which pandas writes as NaN.

    Attributes:
        column: The column, as the data names it.
        in_: The values that meet it.
        not_in: The values that do not; any other does.

    Raises:
        ConfigError: It has no values, both kinds, or one that is no scalar.
    """

    column: str
    in_: tuple[Scalar, ...] = ()
    not_in: tuple[Scalar, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.in_) == bool(self.not_in):
            raise ConfigError("a condition on a column needs values in 'in' or in 'not_in', and not both", key="when")
        values: Any = self.in_ or self.not_in
        if isinstance(values, str) or not all(isinstance(value, _SCALARS) for value in values):
            raise ConfigError(
                f"a condition on a column compares it with texts, numbers, true, false or null, not with {values!r}",
                key="when",
                hint=f"write {[values]!r}" if isinstance(values, str) else None,
            )

    def met(self, batch: RewardBatch, _: Mapping[str, CheckedScores]) -> Mask:
        """(B,) True where it is met."""
        values = {_comparable(value) for value in self.in_ or self.not_in}
        found = (_comparable(value) in values for value in batch.column(self.column))
        found_B = np.fromiter(found, dtype=bool, count=len(batch))
        return found_B if self.in_ else ~found_B

    def why_not(self, row: int, batch: RewardBatch, _: Mapping[str, CheckedScores]) -> tuple[str, bool]:
        """Why a row does not meet it, which is always known."""
        return f"needs {self}, and it is {_shown(batch.column(self.column)[row])}", True

    def __str__(self) -> str:
        values = listed([_shown(value) for value in self.in_ or self.not_in])
        return f"{self.column} {'in' if self.in_ else 'not in'} {values}"


Condition: TypeAlias = RewardCondition | ColumnCondition
"""What must hold of a row for a reward to be asked about it."""


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=repr)[:80]


def _comparable(value: Any) -> Any:
    """A value that equals what JSON takes for equal; a new object, which equals nothing, for what is no scalar."""
    value = value.item() if isinstance(value, np.generic) else value
    value = None if isinstance(value, float) and math.isnan(value) else value
    return (isinstance(value, bool), value) if isinstance(value, _SCALARS) else object()


@dataclass(frozen=True, slots=True)
class AskedRows:
    """Which of B rows a reward is asked about.

    Attributes:
        rows: Those rows, ascending.
        not_asked: Why not, for each other row.
        failures: Why it fails, for each of those on which a reward failed that its conditions look at.
    """

    rows: Sequence[int]
    not_asked: Mapping[int, str]
    failures: Mapping[int, str]


def ask(conditions: Sequence[Condition], batch: RewardBatch, scores: Mapping[str, CheckedScores]) -> AskedRows:
    """Find the rows that meet all conditions.

    Args:
        conditions: What must hold.
        batch: B rows.
        scores: What the rewards said of them that the conditions look at, by name.
    """
    met_CB = [condition.met(batch, scores) for condition in conditions]
    met_B = np.logical_and.reduce(met_CB)
    not_asked: dict[int, str] = {}
    failures: dict[int, str] = {}
    for row in np.flatnonzero(~met_B).tolist():
        unmet = [condition for condition, own_B in zip(conditions, met_CB, strict=True) if not own_B[row]]
        reasons = [condition.why_not(row, batch, scores) for condition in unmet]
        not_asked[row] = next((why for why, is_known in reasons if is_known), reasons[0][0])
        if not any(is_known for _, is_known in reasons):
            failures[row] = f"not asked: {not_asked[row]}"
    return AskedRows(np.flatnonzero(met_B).tolist(), not_asked, failures)


def scattered(
    scores: CheckedScores,
    place: Sequence[int],
    rows: int,
    *,
    failures: Mapping[int, str],
    not_asked: Mapping[int, str] | None = None,
    imputed: Mapping[int, Imputed] | None = None,
) -> CheckedScores:
    """What a reward said of B rows, given that of some of them.

    Args:
        scores: What it said of those.
        place: Which rows they are.
        rows: B.
        failures: Why it fails, for rows among the others.
        not_asked: Why it was not asked, for rows among the others; None where it has no condition.
        imputed: What is taken for its score, for rows of those; None where it has no ``ask``.
    """
    raw_B = np.full(rows, np.nan)
    raw_B[place] = scores.raw
    entries: list[ScoreLike] = [None] * rows
    for row, entry in zip(place, scores.entries, strict=False):  # none where the call failed
        entries[row] = entry
    cached_B = None
    if scores.cached is not None:
        cached_B = np.zeros(rows, dtype=bool)
        cached_B[place] = scores.cached
    reasons, skipped = scores.fallback_reasons, scores.not_asked
    if scores.imputed is not None:
        imputed = {place[row]: value for row, value in scores.imputed.items()}
    if skipped is not None:
        not_asked = {place[row]: why for row, why in skipped.items()} | dict(not_asked or {})
    return CheckedScores(
        raw_B,
        dict(sorted(({place[row]: why for row, why in scores.failures.items()} | dict(failures)).items())),
        entries,
        scores.error,
        None if reasons is None else {place[row]: why for row, why in reasons.items()},
        cached_B,
        {place[row]: given for row, given in scores.credit.items()},
        not_asked,
        imputed,
    )


def joined(parts: Sequence[CheckedScores]) -> CheckedScores:
    """What a reward said in several calls, one after another, of rows that it was asked about."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part.raw) for part in parts)]).tolist()
    placed = [*zip(starts, parts, strict=False)]
    return CheckedScores(
        np.concatenate([part.raw for part in parts]) if parts else np.empty(0),
        {start + row: why for start, part in placed for row, why in part.failures.items()},
        [entry for part in parts for entry in (part.entries or [None] * len(part.raw))],
        next((part.error for part in parts if part.error is not None), None),
        {start + row: why for start, part in placed for row, why in (part.fallback_reasons or {}).items()}
        if any(part.fallback_reasons is not None for part in parts)
        else None,
        np.concatenate([np.zeros(len(part.raw), dtype=bool) if part.cached is None else part.cached for part in parts])
        if any(part.cached is not None for part in parts)
        else None,
        {start + row: given for start, part in placed for row, given in part.credit.items()},
    )
