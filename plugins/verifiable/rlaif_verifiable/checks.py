"""Rewards that compare a text with the right answers of its row."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar

from pydantic import Field

from rlaif_sdk import Reward, RewardBatch, Score, ViewParams


class AnswerParams(ViewParams):
    """What of a completion is checked, and where the right answer is."""

    view: Literal["answer", "assistant", "transcript"] = "answer"
    """What of a completion is checked: ``answer``, the policy's last words; ``assistant``, all that it said;
    ``transcript``, everything, with the calls of tools and their results."""

    column: str = Field(default="answer", min_length=1)
    """The batch column with a row's right answer: a text or number, or a list of them, of which each is right. A row
    with none abstains."""


AnswerParamsT = TypeVar("AnswerParamsT", bound=AnswerParams)


class AnswerReward(Reward, Generic[AnswerParamsT]):
    """A reward that compares each row's text with the right answers of that row: `compare` says what it gets.

    A row without a right answer abstains, and so does one where the policy called a tool and said nothing.
    """

    range: tuple[float, float] | None = (0.0, 1.0)
    version = "1"

    def __init__(self, params: AnswerParamsT) -> None:
        self.params = params
        self.columns = (params.column,)
        self.inputs: tuple[str, ...] = (params.column,)

    def score(self, batch: RewardBatch) -> list[Score]:
        """Score a batch of B rows."""
        column = self.params.column
        scores = []
        for text, value in zip(self.params.texts(batch), batch.column(column), strict=True):
            answers = right_answers(value)
            if answers is None:
                scores.append(Score.failed(f"the column {column!r} must hold a text, a number, or a list of them"))
            elif not answers:
                scores.append(nothing_to_check(column))
            elif text is None:
                scores.append(Score.no_words())
            else:
                scores.append(self.compare(text, answers))
        return scores

    @abstractmethod
    def compare(self, text: str, answers: Sequence[str]) -> Score:
        """Score one text against one or more right answers."""


def is_missing(value: Any) -> bool:
    """Whether a column holds nothing for a row: null, which pandas writes as NaN, or an empty text."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def plain(value: Any) -> Any:
    """A number or an array of numpy's as Python's, and everything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def nothing_to_check(column: str) -> Score:
    """No score, for a row whose column is empty."""
    return Score(None, reason=f"the column {column!r} is empty, so there is nothing to check")


def right_answers(value: Any) -> list[str] | None:
    """The right answers that a column holds for a row, none if it is empty; None if it holds something else."""
    value = plain(value)
    if is_missing(value):
        return []
    entries = [value] if isinstance(value, str) or not isinstance(value, Sequence) else list(value)
    if any(isinstance(entry, bool) or not isinstance(entry, (str, int, float)) for entry in entries):
        return None
    if any(isinstance(entry, float) and not math.isfinite(entry) for entry in entries):
        return None
    texts = map(_written, entries)
    return [text for text in texts if text]


def _written(entry: str | float) -> str:
    """An answer as text; 5.0 is 5, since pandas makes floats of whole numbers where one is missing."""
    if isinstance(entry, str):
        return entry.strip()
    return repr(int(entry) if isinstance(entry, float) and entry.is_integer() else entry)


def quoted(text: str, most: int = 80) -> str:
    """A text as reasons quote it, on one line."""
    line = " ".join(text.split())
    return f"\u201c{line if len(line) <= most else line[: most - 1] + chr(0x2026)}\u201d"


def without_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, as the hook of its reader; two members of one name say two things.

    Raises:
        ValueError: A name stands there twice.
    """
    names = [name for name, _ in pairs]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise ValueError(f"the name {doubled!r} stands twice in an object")
    return dict(pairs)


def passed(reason: str) -> Score:
    """1, and why."""
    return Score(1.0, reason=reason)


def missed(reason: str) -> Score:
    """0, and why."""
    return Score(0.0, reason=reason)
