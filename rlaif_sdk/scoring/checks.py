"""Checks everything that a reward returns, so that nothing but finite scores and named gaps reaches the arithmetic."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import NoneType
from typing import Any, NamedTuple, TypeVar, get_args

import numpy as np

from rlaif_sdk.conversations import Thinking, View
from rlaif_sdk.exceptions import RewardError, RewardOutputError, exception_text
from rlaif_sdk.rewards import ScoreLike
from rlaif_sdk.statistics.arrays import MAX_SCORE, Array, Mask, is_finite_number
from rlaif_sdk.types import STD, Credit, CreditSpan, RewardBatch, Score, SubScore

RANGE_TOLERANCE = 1e-6
"""How far a score may lie outside its declared range, relative to max(1, |bound|), for rounding in 32-bit arithmetic."""

CREDIT_TOLERANCE = 1e-4
"""How far credit may sum to something else than its score, relative to max(1, sum of its parts' absolute values): rounding
in 32-bit arithmetic, which goes to the rest."""


class Imputed(NamedTuple):
    """What is taken for a reward's score of a row that it was not asked about, because its answer would change little.

    Attributes:
        value: In the reward's units.
        half_width: How far off that may be, with the confidence of its `rlaif_sdk.composer.asking.Ask`.
        reason: Why it was not asked.
    """

    value: float
    half_width: float
    reason: str


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
        credit: Where its score of a row comes from, for each scored row of which it says so.
        not_asked: Why the reward was not asked, for each row that its conditions or its ``ask`` kept from it; None without
            either. Such a row is among the failures too where a reward failed that a condition looks at.
        imputed: What is taken for its score, for each row that its ``ask`` kept from it; None without one.
    """

    raw: Array
    failures: Mapping[int, str]
    entries: Sequence[ScoreLike]
    error: RewardError | None = None
    fallback_reasons: Mapping[int, str] | None = None
    cached: Mask | None = None
    credit: Mapping[int, Credit] = field(default_factory=dict)
    not_asked: Mapping[int, str] | None = None
    imputed: Mapping[int, Imputed] | None = None

    @property
    def skipped(self) -> Sequence[int]:
        """The rows that the reward was not asked about, nor failed on."""
        return [row for row in self.not_asked or () if row not in self.failures]

    def select(self, rows: Sequence[int]) -> CheckedScores:
        """What it said of the given rows, in the given order; a row may come several times."""
        return CheckedScores(
            self.raw[list(rows)],
            _of_rows(self.failures, rows),
            [self.entries[row] for row in rows] if self.entries else (),
            self.error,
            None if self.fallback_reasons is None else _of_rows(self.fallback_reasons, rows),
            None if self.cached is None else self.cached[list(rows)],
            _of_rows(self.credit, rows),
            None if self.not_asked is None else _of_rows(self.not_asked, rows),
        )

    @classmethod
    def joined(cls, parts: Sequence[CheckedScores]) -> CheckedScores:
        """What a reward said of several batches, one after the other."""
        starts = np.cumsum([0, *(len(part.raw) for part in parts)]).tolist()[:-1]

        def shifted(name: str) -> Any:
            found: dict[int, Any] = {}
            for start, part in zip(starts, parts, strict=True):
                found |= {start + row: value for row, value in (getattr(part, name) or {}).items()}
            return found if found or any(getattr(part, name) is not None for part in parts) else None

        entries: list[ScoreLike] = []
        for part in parts:
            entries += part.entries or [None] * len(part.raw)  # none where the call failed
        cached = [np.zeros(len(part.raw), dtype=bool) if part.cached is None else part.cached for part in parts]
        return cls(
            np.concatenate([part.raw for part in parts]),
            shifted("failures"),
            entries,
            next((part.error for part in parts if part.error), None),
            shifted("fallback_reasons"),
            np.concatenate(cached) if any(part.cached is not None for part in parts) else None,
            shifted("credit"),
            shifted("not_asked"),
        )


_Of = TypeVar("_Of")


def _of_rows(values: Mapping[int, _Of], rows: Sequence[int]) -> dict[int, _Of]:
    return {place: values[row] for place, row in enumerate(rows) if row in values} if values else {}


def check_entries(
    entries: Sequence[ScoreLike],
    value_range: tuple[float, float] | None,
    batch: RewardBatch | None = None,
) -> CheckedScores:
    """Check B entries of `plain_scores`.

    A row that is no finite number within the range, or whose credit does not sum to the score or lies outside the
    completion, becomes a failure of that row.

    Args:
        entries: What the reward returned.
        value_range: The least and the greatest score, or None.
        batch: The rows that it was asked about; None if they are not known.
    """
    raw, failures, credit = _read(entries)
    if batch is not None:
        for row, given in credit.items():
            if problem := _misplaced(given, batch, row):
                failures[row] = problem
    _check_range(raw, failures, value_range)
    if failures:
        raw[list(failures)] = np.nan
        credit = {row: given for row, given in credit.items() if row not in failures}
    return CheckedScores(raw, failures, entries, credit=credit)


def plain_scores(answer: Any, rows: int) -> list[ScoreLike]:
    """What a reward returned as one plain entry a row, unchecked: numbers of Python, None, and `Score` of those.

    To be called where the reward ran, within its limit: reading an answer may run code of the reward's, such as the
    ``__float__`` of a number. A list, a tuple, or an array of numpy with one number a row is an answer; nothing else is.

    Raises:
        RewardOutputError: It is no list of ``rows`` entries.
    """
    if type(answer) is np.ndarray and answer.ndim == 1 and answer.dtype.kind in "fiu":
        answer = answer.tolist()
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
    credit = None
    if entry.credit is not None and error is None:
        credit, error = plain_credit(entry.credit)
    reason = None if entry.reason is None else str(entry.reason)
    details = _plain_details(entry.details)
    subscores = {str(name): _plain_subscore(part) for name, part in entry.subscores.items()}
    return Score(None if error else value, reason, details, None if error else credit, error, subscores)


def plain_credit(credit: Any) -> tuple[Credit | None, str | None]:
    """Credit of plain values, or what is wrong with it; numbers that are none become NaN, which fails the row when checked."""
    if not isinstance(credit, Credit):
        return None, f"gave {type(credit).__name__} for credit, where a Credit is wanted"
    try:
        tokens, turns = (
            None if values is None else [_plain_float(value) for value in values]
            for values in (credit.tokens, credit.turns)
        )
        given = tuple(credit.spans)
    except TypeError:
        return None, "gave credit whose tokens, turns or spans are no sequence"
    spans = []
    for span in given:
        if not isinstance(span, CreditSpan) or not all(isinstance(place, Integral) for place in (span.start, span.end)):
            return None, "gave credit for a span that is no CreditSpan with whole numbers for its start and end"
        reason = None if span.reason is None else str(span.reason)
        spans.append(CreditSpan(int(span.start), int(span.end), _plain_float(span.value), reason))
    if credit.view not in get_args(View) or credit.thinking not in get_args(Thinking):
        return None, f"gave credit in the view {credit.view!r} with thinking {credit.thinking!r}, which is none"
    return Credit(tokens, turns, tuple(spans), _plain_float(credit.rest), credit.view, credit.thinking), None


def _plain_float(value: Any) -> float:
    number, _ = _plain_number(value)
    try:
        return math.nan if number is None else float(number)
    except OverflowError:
        return math.inf


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


def _read(entries: Sequence[ScoreLike]) -> tuple[Array, dict[int, str], dict[int, Credit]]:
    """The scores, what is wrong with rows, and the credit of the rows that have some."""
    failures: dict[int, str] = {}
    credit: dict[int, Credit] = {}
    if _PLAIN.issuperset(map(type, entries)):
        try:
            raw = np.array(entries, dtype=np.float64)  # None becomes NaN
        except OverflowError:
            pass
        else:
            fits = np.abs(raw) <= MAX_SCORE
            if fits.all():
                return raw, failures, credit
            odd = np.flatnonzero(~fits).tolist()
            return raw, {row: _no_score(raw[row]) for row in odd if entries[row] is not None}, credit
    values: list[float] = []
    for row, entry in enumerate(entries):
        if type(entry) is float and abs(entry) <= MAX_SCORE:
            values.append(entry)
            continue
        value, problem = _read_entry(entry)
        if problem:
            failures[row] = problem
        elif isinstance(entry, Score) and entry.credit is not None and not math.isnan(value):
            credit[row] = entry.credit
        values.append(value)
    return np.array(values, dtype=np.float64), failures, credit


def _read_entry(entry: ScoreLike) -> tuple[float, str | None]:
    if isinstance(entry, Score):
        if entry.error is not None:
            return math.nan, entry.error
        if entry.credit is not None and (problem := _credit_problem(entry.credit, entry.value)):
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


def _credit_problem(credit: Credit, value: Any) -> str | None:
    given = [*credit.parts, credit.rest]
    if not all(map(is_finite_number, given)):
        return "gave credit that is not all finite numbers"
    if is_finite_number(value):
        total, size = math.fsum(given), math.fsum(map(abs, given))
        if abs(total - value) > CREDIT_TOLERANCE * max(1.0, size):
            return f"gave credit that sums to {total:g}, and the score {value:g}; say as 'rest' what is left over"
    return None


def _misplaced(credit: Credit, batch: RewardBatch, row: int) -> str | None:
    """What of a row's credit lies outside its completion."""
    if credit.tokens is not None and batch.completion_ids is not None:
        count = len(batch.completion_ids[row])
        if len(credit.tokens) != count:
            return f"gave {len(credit.tokens)} token values for {count} tokens"
    if credit.turns is not None and len(credit.turns) != len(batch.policy_turns[row]):
        return f"gave {len(credit.turns)} turn values for {len(batch.policy_turns[row])} turns of the policy"
    if credit.spans:
        size = len(batch.views(credit.view, thinking=credit.thinking)[row] or "")
        for span in credit.spans:
            if not 0 <= span.start < span.end <= size:
                return f"gave credit for the characters {span.start} to {span.end} of a text of {size} ({credit.view})"
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
