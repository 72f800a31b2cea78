"""What an answer claims, sentence by sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rlaif_factuality.dates import find_dates, without_dates
from rlaif_factuality.names import find_names
from rlaif_factuality.numbers import find_numbers
from rlaif_factuality.sentences import split_sentences
from rlaif_factuality.source import Source
from rlaif_factuality.words import Word, read_words

_YES_OR_NO = re.compile(r"\W*(?P<word>yes|no)\b\s*(?:[,.;:!\u2013\u2014-]+\s*|$)", re.IGNORECASE)
_POLAR = re.compile(
    r"\W*(?:is|are|was|were|am|do|does|did|has|have|had|can|could|will|would|shall|should|may|might|must)(?:n't)?\b",
    re.IGNORECASE,
)
_NOT_SMALL = re.compile(r"\b[^\W_a-z][^\W_]*")
_VERBS = frozenset(
    [
        "is",
        "are",
        "was",
        "were",
        "am",
        "be",
        "been",
        "being",
        "do",
        "does",
        "did",
        "has",
        "have",
        "had",
        "can",
        "could",
        "will",
        "would",
        "shall",
        "should",
        "may",
        "might",
        "must",
    ]
)


@dataclass(frozen=True)
class Claim:
    """One claim of an answer, and the source that should support it.

    Attributes:
        sentence: The sentence as the answer writes it.
        source: What it is held against.
        statement: What it says where the sentence leaves that to the question: the question of a "yes" or of a bare
            name; otherwise the sentence.
        denies: Whether it denies the statement, as "no" does.
        from_question: Whether the statement has words of the question. The prompt then excuses nothing.
        agrees: For a "yes" or "no" to no question, whether a source that is such an answer says the same.
        number: Which sentence of the answer it is of, from 0.
    """

    sentence: str
    source: Source
    statement: str
    denies: bool = False
    from_question: bool = False
    agrees: bool | None = None
    number: int = 0

    @cached_property
    def words(self) -> list[Word]:
        """The words of the statement."""
        return read_words(self.statement)


@dataclass(frozen=True, slots=True)
class ClaimSupport:
    """What was found of a claim.

    Attributes:
        claim: The claim.
        support: Its support by the source, in [0, 1]; NaN where it could not be measured.
        missing: The numbers, dates and names that the source lacks.
        exchanged: Whether two things have exchanged their roles.
        negated: Whether the claim is negated where the source is not, or the other way round.
        replaced: A name or number in whose place, between the same words, the source has another.
    """

    claim: Claim
    support: float
    missing: Sequence[str] = ()
    exchanged: bool = False
    negated: bool = False
    replaced: str = ""

    @property
    def reason(self) -> str:
        """Why the support is what it is, in a few words."""
        if self.missing:
            return f"not in the source: {', '.join(self.missing)}"
        if self.exchanged:
            return "the source has it the other way round"
        if self.replaced:
            return f"the source has another word for {self.replaced}"
        if self.negated:
            return "one of the two is negated"
        return f"support {self.support:.2f}"

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain data: ``sentence``, ``support``, ``missing``, ``exchanged``, ``negated`` and ``replaced``."""
        return {
            "sentence": self.claim.sentence,
            "support": self.support,
            "missing": list(self.missing),
            "exchanged": self.exchanged,
            "negated": self.negated,
            "replaced": self.replaced,
        }


def find_claims(text: str, source: Source) -> list[Claim]:
    """The claims of an answer, in order; sentences that claim nothing are left out.

    A "yes" or "no" claims or denies what the prompt asks, or agrees with a source that is such an answer itself. A bare
    name, number or date claims nothing, unless the prompt asks a question that it answers or a source is no more either.
    """
    claims = []
    answers = {match["word"].casefold() for match in map(_YES_OR_NO.match, source.texts) if match is not None}
    for number, sentence in enumerate(split_sentences(text)):
        answer = _YES_OR_NO.match(sentence)
        word = None if answer is None else answer["word"].casefold()
        rest = sentence if answer is None else sentence[answer.end() :]
        words = read_words(rest)
        says_more = any(word.content for word in words)
        if word is not None and _POLAR.match(source.question):
            claims.append(
                Claim(sentence, source, source.question, denies=word == "no", from_question=True, number=number)
            )
        elif word is not None and answers and not says_more:
            claims.append(Claim(sentence, source, word, agrees=word in answers, number=number))
        if not says_more:
            continue
        if not _is_bare(rest, words, source) or _is_whole_source(words, source):
            claims.append(Claim(sentence, source, rest, number=number))
        elif source.question and word is None:
            claims.append(Claim(sentence, source, f"{source.question} {rest}", from_question=True, number=number))
    return claims


def _is_bare(text: str, words: list[Word], source: Source) -> bool:
    """Whether a sentence is nothing but names, numbers and dates; a verb with nothing after it makes it no more."""
    verb = max((index for index, word in enumerate(words) if word.folded in _VERBS), default=-1)
    if any(word.content for word in words[verb + 1 :]) and verb >= 0:
        return False
    written = {word.key for part in _NOT_SMALL.findall(text) for word in read_words(part)}
    written.update(word.key for number in find_numbers(text) for word in read_words(number.text))
    if text.islower():
        written |= source.name_keys
    return all(word.key in written for word in words if word.content)


def _is_whole_source(words: list[Word], source: Source) -> bool:
    """Whether a sentence of the source has the same words and no more."""
    content = [word.key for word in words if word.content]
    return any(
        [word.key for word in sentence.words if word.content] == content for text in source.read for sentence in text
    )


def missing_facts(claim: Claim, *, numbers: bool = True, names: bool = True) -> list[str]:
    """The numbers, dates and names of a claim that the source lacks, as the claim writes them, each once.

    Those of the prompt count as known unless the claim is made of the question itself.
    """
    source, text = claim.source.alone if claim.from_question else claim.source, claim.statement
    missing: list[str] = []
    dates = find_dates(text)
    if numbers:
        missing += [
            text[date.start : date.end] for date in dates if not date.supported_by(source.dates, source.known_numbers)
        ]
    text = without_dates(text, dates)
    if numbers:
        known = source.known_numbers
        missing += [number.text for number in find_numbers(text) if not number.vague and not known.supports(number)]
    if names:
        missing += [name.word for name in find_names(text) if not source.known_names.supports(name)]
    return list(dict.fromkeys(missing))
