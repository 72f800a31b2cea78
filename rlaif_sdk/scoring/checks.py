"""Checks everything that a reward returns, so that nothing but finite scores and named gaps reaches the arithmetic."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from types import NoneType
from typing import Any

import numpy as np

from rlaif_sdk.exceptions import RewardError, RewardOutputError, exception_text
from rlaif_sdk.rewards import ScoreLike
from rlaif_sdk.statistics.arrays import Array, Mask, is_finite_number
from rlaif_sdk.types import STD, Score, SubScore

RANGE_TOLERANCE = 1e-6
"""How far a score may lie outside its declared range, relative to max(1, |bound|), for rounding in 32-bit arithmetic."""

MAX_SCORE = float(np.finfo(np.float32).max)
"""The greatest score, 3.4e38: trainers compute in 32-bit floats, where more is infinite."""

TOKEN_SUM_TOLERANCE = 1e-4
"""How far token values may sum to something else than their score, relative to max(1, sum of their absolute values)."""


@dataclass(frozen=True, slots=True)
class CheckedScores:
    """What a reward said of B rows, checked.

    Attributes:
        raw: (B,) scores in the reward's units; NaN where it abstained, failed, or was not asked.
        failures: Why, for each row that failed.
        entries: The B entries as the reward gave them, for reasons and details.
        error: Why a call failed, the only one or the first that did; None if none did.
        fallback_reasons: Why the reward failed, for each row on which its fallback's score is taken; None without a
            fallback.
        cached: (B,) True where the score came from a ledger, or from an equal row; None without a ledger.
        tokens: (T,) the values of a row's completion tokens, for each scored row that has them.
        not_asked: Why the reward was not asked, for each row that its conditions kept from it; None without conditions.
            Such a row is among the failures too where a reward failed that a condition looks at.
    """

    raw: Array
    failures: Mapping[int, str]
    entries: Sequence[ScoreLike]
    error: RewardError | None = None
    fallback_reasons: Mapping[int, str] | None = None
    cached: Mask | None = None
    tokens: Mapping[int, Array] = field(default_factory=dict)
    not_asked: Mapping[int, str] | None = None

    @property
    def skipped(self) -> Sequence[int]:
        """The rows that the reward was not asked about, nor failed on."""
        return [row for row in self.not_asked or () if row not in self.failures]


def check_entries(
    entries: Sequence[ScoreLike],
    value_range: tuple[float, float] | None,
    completion_ids: Sequence[Sequence[int]] | None = None,
) -> CheckedScores:
    """Check B entries of `plain_scores`.

    A row that is no finite number within the range, or whose token values are not one a token or do not sum to the
    score, becomes a failure of that row.

    Args:
        entries: What the reward returned.
        value_range: The least and the greatest score, or None.
        completion_ids: The tokens that token values are of; None if they are not known.
    """
    raw, failures, values = _read(entries)
    if completion_ids is not None:
        for row in values:
            count = len(completion_ids[row])
            if len(values[row]) != count:
                failures[row] = f"gave {len(values[row])} token values for {count} tokens"
    _check_range(raw, failures, value_range)
    if failures:
        raw[list(failures)] = np.nan
    tokens = {row: np.array(given, dtype=np.float64) for row, given in values.items() if row not in failures}
    return CheckedScores(raw, failures, entries, tokens=tokens)


def plain_scores(answer: Any, rows: int) -> list[ScoreLike]:
    """What a reward returned as one plain entry a row, unchecked: numbers of Python, None, and `Score` of those.

    To be called where the reward ran, within its limit: reading an answer may run code of the reward's, such as the
    ``__float__`` of a number. A list, a tuple, or an array of numpy with one number a row is an answer; nothing else is.

    Raises:
        RewardOutputError: It is no list of ``rows`` entries.
    """
    if isinstance(answer, np.ndarray) and answer.ndim == 1 and answer.dtype.kind in "fiu":
        answer = np.ndarray.tolist(answer)
    if not isinstance(answer, (list, tuple)):
        kind = type(answer).__name__
        hint = "return a list: scores.tolist()" if hasattr(type(answer), "tolist") else "return a list, one entry a row"
        raise RewardOutputError(f"returned {kind} where a list of {rows} scores is wanted", hint=hint)
    entries = list(list.__iter__(answer) if isinstance(answer, list) else tuple.__iter__(answer))
    if len(entries) != rows:
        raise RewardOutputError(
            f"returned {len(entries)} scores for {rows} rows", hint="return one entry a row, None to abstain"
        )
    if _PLAIN.issuperset(map(type, entries)):
        return entries
    return [entry if type(entry) in _PLAIN else _plain_entry(entry) for entry in entries]


_PLAIN = frozenset({float, int, NoneType})
_LONG_INTEGER = 10**sys.int_info.default_max_str_digits


def _plain_entry(entry: Any) -> ScoreLike:
    if not isinstance(entry, Score):
        value, problem = _plain_number(entry)
        return value if problem is None else Score.failed(problem)
    value, problem = _plain_number(entry.value)
    error = problem if entry.error is None else str(entry.error)
    tokens = entry.token_values
    if tokens is not None and error is None:
        numbers = [_plain_number(token)[0] for token in tokens]
        tokens = [math.nan if number is None else number for number in numbers]
    reason = None if entry.reason is None else str(entry.reason)
    details = _plain_details(entry.details)
    subscores = {str(name): _plain_subscore(part) for name, part in entry.subscores.items()}
    return Score(None if error else value, reason, details, None if error else tokens, error, subscores)


def _plain_subscore(part: Any) -> SubScore:
    """A sub-score of plain values; what is none becomes NaN, which fails the row when it is checked."""
    if not isinstance(part, SubScore):
        return SubScore(math.nan)
    value, weight = (
        math.nan if given is not None and number is None else number
        for given, (number, _) in ((given, _plain_number(given)) for given in (part.value, part.weight))
    )
    reason = None if part.reason is None else str(part.reason)
    return SubScore(value, weight, reason, tuple(map(str, part.evidence)), bool(part.per_row))


def _plain_number(value: Any) -> tuple[float | None, str | None]:
    """A number of Python for a number, and what is wrong with it where it is none."""
    kind = type(value)
    if kind in _PLAIN:
        return value, None
    if isinstance(value, (bool, np.bool_, np.timedelta64)) or not isinstance(value, Real):
        return None, f"returned {kind.__name__} where a number, a Score or None is wanted"
    try:
        return float(value), None
    except OverflowError:
        return math.inf, None
    except Exception as error:  # noqa: BLE001 - a number of the reward's own making
        return None, f"returned {kind.__name__}, which is no number: {exception_text(error)}"


def _plain_details(details: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(_short_integer(key)): _plain_detail(detail) for key, detail in details.items()}


def _plain_detail(value: Any) -> Any:
    """A detail as JSON can hold it, or its ``repr``."""
    kind = type(value)
    if kind in _PLAIN or kind in (str, bool):
        return _short_integer(value)
    if isinstance(value, Mapping):
        return _plain_details(value)
    if isinstance(value, (list, tuple)):
        return [_plain_detail(item) for item in value]
    if hasattr(value, "tolist") and type(listed := value.tolist()) is not kind:
        return _plain_detail(listed)
    return repr(value)


def _short_integer(value: Any) -> Any:
    """The value, or hexadecimal text for an integer of more digits than Python writes in decimal."""
    return hex(value) if type(value) is int and abs(value) >= _LONG_INTEGER else value


def _read(entries: Sequence[ScoreLike]) -> tuple[Array, dict[int, str], dict[int, Sequence[float]]]:
    """The scores, what is wrong with rows, and the token values of the rows that have some."""
    failures: dict[int, str] = {}
    with_tokens: dict[int, Sequence[float]] = {}
    if _PLAIN.issuperset(map(type, entries)):
        try:
            raw = np.array(entries, dtype=np.float64)  # None becomes NaN
        except OverflowError:
            pass
        else:
            fits = np.abs(raw) <= MAX_SCORE
            if fits.all():
                return raw, failures, with_tokens
            odd = np.flatnonzero(~fits).tolist()
            return raw, {row: _no_score(raw[row]) for row in odd if entries[row] is not None}, with_tokens
    values: list[float] = []
    for row, entry in enumerate(entries):
        if type(entry) is float and abs(entry) <= MAX_SCORE:
            values.append(entry)
            continue
        value, problem = _read_entry(entry)
        if problem:
            failures[row] = problem
        elif isinstance(entry, Score) and entry.token_values is not None and not math.isnan(value):
            with_tokens[row] = entry.token_values
        values.append(value)
    return np.array(values, dtype=np.float64), failures, with_tokens


def _read_entry(entry: ScoreLike) -> tuple[float, str | None]:
    if isinstance(entry, Score):
        if entry.error is not None:
            return math.nan, entry.error
        if entry.token_values is not None and (problem := _token_problem(entry.token_values, entry.value)):
            return math.nan, problem
        if entry.subscores and (problem := _subscore_problem(entry.subscores)):
            return math.nan, problem
        entry = entry.value
    if entry is None:
        return math.nan, None
    try:
        value = float(entry)
    except OverflowError:
        value = math.inf
    return (value, None) if abs(value) <= MAX_SCORE else (math.nan, _no_score(value))


def _no_score(value: float) -> str:
    beyond = f", beyond the {MAX_SCORE:.1e} that a trainer's 32-bit floats hold" if math.isfinite(value) else ""
    return f"returned {value}{beyond}"


def _token_problem(token_values: Sequence[Any], value: Any) -> str | None:
    if not all(map(is_finite_number, token_values)):
        return "gave token values that are not all finite numbers"
    if is_finite_number(value):
        total, size = math.fsum(token_values), math.fsum(map(abs, token_values))
        if abs(total - value) > TOKEN_SUM_TOLERANCE * max(1.0, size):
            return f"gave token values that sum to {total:g}, and the score {value:g}"
    return None


def _subscore_problem(subscores: Mapping[str, SubScore]) -> str | None:
    for name, part in subscores.items():
        if not all(given is None or is_finite_number(given) for given in (part.value, part.weight)):
            return f"gave the sub-score {name!r}, which is no SubScore of finite numbers"
        if name == STD and part.value is not None and part.value < 0:
            return f"gave the sub-score {name!r} of {part.value:g}, and a standard deviation is at least 0"
    return None


def _check_range(raw: Array, failures: dict[int, str], value_range: tuple[float, float] | None) -> None:
    if value_range is None:
        return
    low, high = value_range
    with np.errstate(invalid="ignore"):
        outside = (raw < low - RANGE_TOLERANCE * max(1, abs(low))) | (raw > high + RANGE_TOLERANCE * max(1, abs(high)))
    for row in np.flatnonzero(outside):
        failures.setdefault(int(row), f"returned {raw[row]:g}, outside its declared range [{low:g}, {high:g}]")
