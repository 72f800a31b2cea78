"""The rewards ``exact_match`` and ``token_f1``: answers in words, compared as SQuAD's evaluation compares them.

Source: Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", section 6.1; its
evaluation lower-cases, takes out punctuation and the articles a, an and the, and joins white space. Here the sign and the
point of a number stay, since -5 is not 5, nor 3.5 35, and the punctuation and wide letters of other scripts are those of ASCII.
"""

from __future__ import annotations

import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import regex

from rlaif_sdk import Score
from rlaif_verifiable.checks import AnswerParams, AnswerReward, missed, quoted
from rlaif_verifiable.extraction import Place, extract

_PUNCTUATION = regex.compile(rf"(?!(?<!\w)-(?=\.?\d)|(?<!\p{{L}})\.(?=\d))[{regex.escape(string.punctuation)}\p{{P}}]")
"""Punctuation but the sign and the point of a number."""
_WIDE = {0xFF01 + place: chr(0x21 + place) for place in range(94)}


class PlacedAnswerParams(AnswerParams):
    """Where the answer stands."""

    place: Place = "whole"
    """Where the answer of a completion stands: ``whole``, all of it; ``last_line``; ``boxed``, the last ``\\boxed{}``;
    ``tag``, the last ``<answer>...</answer>``; ``hashes``, after the last ``####``."""


class ExactMatchParams(PlacedAnswerParams):
    """Where the answer stands, and what counts as the same."""

    normalise: Literal["squad", "case", "none"] = "squad"
    """What is made equal first: ``squad``, case, punctuation but the sign and point of a number, the articles a, an, the,
    and white space; ``case``, case and white space, so that C++ is not C; ``none``, nothing but the white space around."""


class TokenF1Params(PlacedAnswerParams):
    """Where the answer stands."""


class ExactMatchReward(AnswerReward[ExactMatchParams]):
    """1 where the answer is one of the right ones, else 0."""

    name = "exact_match"
    ends = ("another answer", "the answer")

    def compare(self, text: str, answers: Sequence[str]) -> Score:
        answer = extract(text, self.params.place)
        if answer is None:
            return missed(f"no answer stands there ({self.params.place})")
        said = normalised(answer, self.params.normalise)
        if not said:
            return missed("the answer is empty")
        matches = any(said == normalised(right, self.params.normalise) for right in answers)
        return Score(float(matches), reason=f"{quoted(answer)} {'is' if matches else 'is not'} {quoted(answers[0])}")


class TokenF1Reward(AnswerReward[TokenF1Params]):
    """The harmonic mean of the shares of words that answer and right answer have in common; the best right answer counts.

    Source: SQuAD's evaluation.
    """

    name = "token_f1"
    ends = ("other words", "the same words")

    def compare(self, text: str, answers: Sequence[str]) -> Score:
        answer = extract(text, self.params.place)
        if answer is None:
            return missed(f"no answer stands there ({self.params.place})")
        best = max(answers, key=lambda right: token_f1(answer, right))
        value = token_f1(answer, best)
        return Score(value, reason=f"{value:.2f} of the words of {quoted(best)} and {quoted(answer)} agree")


def token_f1(answer: str, right: str) -> float:
    """F1 over normalised words, in [0, 1]; 0 where either has none."""
    said, wanted = normalised(answer, "squad").split(), normalised(right, "squad").split()
    shared = (Counter(said) & Counter(wanted)).total()
    return 2 * shared / (len(said) + len(wanted)) if shared else 0.0


def normalised(text: str, how: Literal["squad", "case", "none"]) -> str:
    """A text as it is compared."""
    if how == "none":
        return text.strip()
    text = unicodedata.normalize("NFC", text).translate(_WIDE).casefold()
    if how == "squad":
        text = regex.sub(r"\b(a|an|the)\b", " ", _PUNCTUATION.sub("", text))
    return " ".join(text.split())
