"""Checks everything that a reward returns, so that nothing but finite scores and named gaps reaches the arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from types import NoneType
from typing import Any

import numpy as np

from rlaif_sdk.composer.arrays import Array, Mask, is_finite_number
from rlaif_sdk.exceptions import RewardError, RewardOutputError
from rlaif_sdk.rewards import ScoreLike
from rlaif_sdk.types import Score

RANGE_TOLERANCE = 1e-6
"""How far a score may lie outside its declared range, relative to max(1, |bound|), for rounding in 32-bit arithmetic."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A reward's answer, checked.

    Attributes:
        raw: (B,) scores in the reward's units; NaN where it abstained or failed.
        failures: Why, for each row that failed.
        entries: The B entries as the reward gave them, for reasons and details.
        error: Why there is no answer at all, or None.
        stood_in: Why the reward failed, for each row on which its fallback's score stands; None without a fallback.
        cached: (B,) True where the score came from a ledger, or from an equal row; None without a ledger.
    """

    raw: Array
    failures: Mapping[int, str]
    entries: Sequence[ScoreLike]
    error: RewardError | None = None
    stood_in: Mapping[int, str] | None = None
    cached: Mask | None = None


def check_answer(answer: Any, rows: int, value_range: tuple[float, float] | None) -> Answer:
    """Check what a reward returned for B = ``rows`` rows.

    A row that is no finite number within the range becomes a failure of that row; an answer of the wrong shape is a
    failure altogether.

    Raises:
        RewardOutputError: It is no list of ``rows`` entries.
    """
    entries = entries_of(answer, rows)
    raw, failures = _read(entries)
    _check_range(raw, failures, value_range)
    if failures:
        raw[list(failures)] = np.nan
    return Answer(raw, failures, entries)


def entries_of(answer: Any, rows: int) -> Sequence[Any]:
    """What a reward returned as one entry a row, unchecked.

    Raises:
        RewardOutputError: It is no list of ``rows`` entries.
    """
    if isinstance(answer, np.ndarray) and answer.ndim == 1 and answer.dtype.kind in "fiu":
        answer = answer.tolist()
    if isinstance(answer, (str, bytes)) or not isinstance(answer, Sequence):
        kind = type(answer).__name__
        hint = "return a list: scores.tolist()" if hasattr(answer, "tolist") else "return one entry a row"
        raise RewardOutputError(f"returned {kind} where a list of {rows} scores is wanted", hint=hint)
    if len(answer) != rows:
        raise RewardOutputError(
            f"returned {len(answer)} scores for {rows} rows", hint="return one entry a row, None to abstain"
        )
    return answer


def _read(entries: Sequence[Any]) -> tuple[Array, dict[int, str]]:
    failures: dict[int, str] = {}
    if set(map(type, entries)) <= {float, int, NoneType}:
        try:
            raw = np.array(entries, dtype=np.float64)  # None becomes NaN
        except OverflowError:
            pass
        else:
            odd = np.flatnonzero(~np.isfinite(raw)).tolist()
            return raw, {row: f"returned {raw[row]}" for row in odd if entries[row] is not None}
    values: list[float] = []
    for row, entry in enumerate(entries):
        if type(entry) is float and math.isfinite(entry):
            values.append(entry)
            continue
        value, problem = _read_entry(entry)
        if problem:
            failures[row] = problem
        values.append(value)
    return np.array(values, dtype=np.float64), failures


def _read_entry(entry: Any) -> tuple[float, str | None]:
    if isinstance(entry, Score):
        if entry.error is not None:
            return math.nan, entry.error
        if entry.token_values is not None and not all(map(is_finite_number, entry.token_values)):
            return math.nan, "gave token values that are not all finite numbers"
        entry = entry.value
    if entry is None:
        return math.nan, None
    if isinstance(entry, (bool, np.bool_)) or not isinstance(entry, Real):
        return math.nan, f"returned {type(entry).__name__} where a number, a Score or None is wanted"
    try:
        value = float(entry)
    except OverflowError:
        value = math.inf
    return (value, None) if math.isfinite(value) else (math.nan, f"returned {value}")


def _check_range(raw: Array, failures: dict[int, str], value_range: tuple[float, float] | None) -> None:
    if value_range is None:
        return
    low, high = value_range
    with np.errstate(invalid="ignore"):
        outside = (raw < low - RANGE_TOLERANCE * max(1, abs(low))) | (raw > high + RANGE_TOLERANCE * max(1, abs(high)))
    for row in np.flatnonzero(outside):
        failures.setdefault(int(row), f"returned {raw[row]:g}, outside its declared range [{low:g}, {high:g}]")
