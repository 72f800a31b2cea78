"""The reward ``multiple_choice``: which of the lettered choices an answer picks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import regex
from pydantic import Field

from rlaif_sdk import RewardBatch, Score
from rlaif_verifiable.answers import normalised
from rlaif_verifiable.checks import AnswerParams, AnswerReward, missed, right_answers
from rlaif_verifiable.extraction import extract, last_boxed

_LETTER = r"[(\[*\s]*([A-Z])[)\]*.:\s]*"
_STATED = regex.compile(
    r"(?i:\b(?:answer|choice|option)\b(?:\s+(?:is|would\s+be))?\s*[:=]?\s*(?:(?:option|choice)\s+)?)"
    r"(?:\$?\\boxed\{)?[(\[*\"'`]*([A-Z])(?![\p{L}\p{N}'’])"
)
_MARKED = regex.compile(r"(?<![\p{L}\p{N}])\(([A-Z])\)")


class MultipleChoiceParams(AnswerParams):
    """Where the right letter is, and where the choices are."""

    choices_column: str | None = Field(default=None, min_length=1)
    """A column with the list of a row's choices. The right answer may then be the place of a choice, counted from 0, or
    its text, and an answer that is the text of a choice picks it."""


class MultipleChoiceReward(AnswerReward[MultipleChoiceParams]):
    r"""1 where the answer picks the right letter, else 0; one that picks several, or none, gets 0.

    The pick is, in this order: what stands in the last ``<answer>`` or ``\boxed{}``; all of the answer, a letter alone;
    what "the answer is", "answer:" or "option" is followed by, the last of them; the letters in parentheses; the text of
    a choice, alone. Letters are A to Z in capitals; a lower-case letter counts only where it is all that is said.
    """

    name = "multiple_choice"
    ends = ("another choice", "the right choice")

    def __init__(self, params: MultipleChoiceParams) -> None:
        super().__init__(params)
        if params.choices_column is not None:
            self.columns = (*self.columns, params.choices_column)
            self.inputs = self.columns

    def score(self, batch: RewardBatch) -> list[Score]:
        """Score a batch of B rows."""
        name = self.params.choices_column
        choices_B = [None] * len(batch) if name is None else batch.column(name)
        scores = []
        rows = zip(self.params.texts(batch), batch.column(self.params.column), choices_B, strict=True)
        for text, value, listed in rows:
            choices = None if listed is None else right_answers(listed)
            if name is not None and not choices:
                scores.append(Score.failed(f"the column {name!r} must hold a list of texts"))
            elif value is None or value == "":
                scores.append(Score(None, reason=f"the column {self.params.column!r} is empty"))
            elif (right := _right_letter(value, choices or [])) is None:
                scores.append(
                    Score.failed(f"the column {self.params.column!r} holds no letter and no choice: {value!r}")
                )
            elif text is None:
                scores.append(Score.no_words())
            else:
                scores.append(self._judge(text, right, choices or []))
        return scores

    def compare(self, text: str, answers: Sequence[str]) -> Score:
        return self._judge(text, answers[0].upper(), [])

    def _judge(self, text: str, right: str, choices: Sequence[str]) -> Score:
        picked = picked_letters(text, choices)
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
    alone = text.strip().strip("()[]*.:`\"' ")
    if len(alone) == 1 and alone.isascii() and alone.isalpha():
        return {alone.upper()}
    if stated := _STATED.findall(text):
        return {stated[-1].upper()}
    if letters := set(_MARKED.findall(text)):
        return letters
    line = regex.match(_LETTER + r"(?=$|\n)|^\W*([A-Z])[.):]\s", text.strip())
    if line:
        return {next(group for group in line.groups() if group)}
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
