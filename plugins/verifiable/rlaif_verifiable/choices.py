"""The reward ``multiple_choice``: which of the lettered choices an answer picks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import regex
from pydantic import Field

from rlaif_sdk import Reward, RewardBatch, Score
from rlaif_verifiable.answers import normalised
from rlaif_verifiable.checks import AnswerParams, is_missing, missed, nothing_to_check, right_answers
from rlaif_verifiable.extraction import extract, last_boxed

_DECORATION = regex.compile(r"[*_`$]|\\(?:boxed|text\w*|math\w+)(?=\{)")
"""Emphasis and LaTeX around a letter."""

_WIDE = {0xFF21 + place: chr(ord("A") + place) for place in range(26)} | {0xFF08: "(", 0xFF09: ")", 0x3002: ". "}

_LETTER = r"[(\[{\"'\s]*(?!I\s+\p{Ll})([A-Z])(?![\p{L}\p{N}'’])[)\]}\"']*"
"""A letter, in brackets or not; the pronoun is none."""

_STATED = regex.compile(
    r"(?i:\b(?:answer|choice|option)\b(?:\s+(?:is|would\s+be))?\s*[:=]?\s*(?:(?:option|choice)\s+)?"
    r"|(?:答案|选项|選項|正解|答え|정답)\s*(?:应该)?(?:是|为|為|は|은)?\s*[:：]?\s*(?:选项|選項)?)"
    rf"{_LETTER}(?:(?:\s*[,;/&+]\s*|\s+)(?:(?:and|or)\s+)?{_LETTER})*+"
)
_MARKED = regex.compile(r"(?<![\p{L}\p{N}])\(([A-Z])\)")
_OF_A_LINE = regex.compile(rf"^(?:{_LETTER}[.:]?\s*$|\W*([A-Z])[.):]\s)", regex.MULTILINE)


class MultipleChoiceParams(AnswerParams):
    """Where the right letter is, and where the choices are."""

    column: str = Field(default="answer", min_length=1)
    """The batch column with a row's right letter; see `choices_column` for what else it may hold. A row with none
    abstains."""

    choices_column: str | None = Field(default=None, min_length=1)
    """A column with the list of a row's choices. The right answer may then be the place of a choice, counted from 0, or
    its text, and an answer that is the text of a choice picks it."""


class MultipleChoiceReward(Reward):
    r"""1 where the answer picks the right letter, else 0; one that picks several, or none, gets 0.

    The pick is, in this order: what stands in the last ``<answer>`` or ``\boxed{}``; all of the answer, a letter alone;
    what "the answer is", "answer:" or "option" is followed by (in Chinese, Japanese and Korean too), the last of them, with
    the letters that "or", "and" or a comma join to it; the letters in parentheses; the letters that are a line or begin one, as ``B)`` does; the text of a
    choice, alone. Letters are A to Z in capitals; a lower-case letter counts only where it is all that is said.
    """

    name = "multiple_choice"
    version = "1"
    range = (0.0, 1.0)
    ends = ("another choice", "the right choice")

    def __init__(self, params: MultipleChoiceParams) -> None:
        self.params = params
        self.columns = (params.column, *filter(None, [params.choices_column]))
        self.inputs = self.columns

    def score(self, batch: RewardBatch) -> list[Score]:
        """Score a batch of B rows."""
        name = self.params.choices_column
        choices_B = [None] * len(batch) if name is None else batch.column(name)
        rows = zip(self.params.texts(batch), batch.column(self.params.column), choices_B, strict=True)
        return [self._row(text, value, listed) for text, value, listed in rows]

    def _row(self, text: str | None, value: Any, listed: Any) -> Score:
        column, choices = self.params.column, right_answers(listed)
        if self.params.choices_column is not None and not choices:
            return Score.failed(f"the column {self.params.choices_column!r} must hold a list of texts")
        if is_missing(value):
            return nothing_to_check(column)
        right = _right_letter(value, choices or [])
        if right is None:
            return Score.failed(f"the column {column!r} holds no letter and no choice: {value!r}")
        if text is None:
            return Score.no_words()
        return self._judge(picked_letters(text, choices or []), right)

    def _judge(self, picked: set[str], right: str) -> Score:
        if not picked:
            return missed("no choice is picked")
        if len(picked) > 1:
            return missed(f"several choices are picked: {', '.join(sorted(picked))}")
        (letter,) = picked
        return Score(float(letter == right), reason=f"picks {letter}, right is {right}", details={"picked": letter})


def picked_letters(text: str, choices: Sequence[str] = ()) -> set[str]:
    """The letters that a text picks; see `MultipleChoiceReward`."""
    for marked in (extract(text, "tag"), last_boxed(text)):
        if marked is not None:
            text = marked
            break
    plain = _DECORATION.sub("", text.translate(_WIDE)).strip()
    alone = plain.strip("()[]{}.:\"' ")
    if len(alone) == 1 and alone.isascii() and alone.isalpha():
        return {alone.upper()}
    if stated := list(_STATED.finditer(plain)):
        return {letter for letters in stated[-1].captures(1, 2) for letter in letters}
    if letters := set(_MARKED.findall(plain)):
        return letters
    if letters := {letter for line in _OF_A_LINE.findall(plain) for letter in line if letter}:
        return letters
    said = normalised(text, "squad")
    return {letter_of(place) for place, choice in enumerate(choices) if said and normalised(choice, "squad") == said}


def letter_of(place: int) -> str:
    """The letter of a choice by its place from 0."""
    return chr(ord("A") + place)


def _right_letter(value: Any, choices: Sequence[str]) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return letter_of(value) if 0 <= value < max(len(choices), 26 if not choices else 0) else None
    if not isinstance(value, str):
        return None
    same = [place for place, choice in enumerate(choices) if normalised(choice, "squad") == normalised(value, "squad")]
    if len(same) == 1:
        return letter_of(same[0])
    alone = value.strip().strip("().: ")
    return alone.upper() if len(alone) == 1 and alone.isascii() and alone.isalpha() else None
