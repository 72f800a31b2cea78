"""The source that an answer is held against, and the claims that the answer makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from rlaif_factuality.names import KnownNames, find_names
from rlaif_factuality.numbers import find_numbers
from rlaif_factuality.sentences import split_sentences
from rlaif_factuality.words import content_stems


@dataclass(frozen=True)
class Source:
    """What is known about one row.

    Attributes:
        texts: The source texts, at least one.
        prompt: A text whose numbers, names and words the answer may use without support; may be empty.
    """

    texts: tuple[str, ...]
    prompt: str = ""

    @cached_property
    def sentences(self) -> tuple[tuple[str, ...], ...]:
        """The sentences of each source text."""
        return tuple(tuple(split_sentences(text)) for text in self.texts)

    @cached_property
    def known_names(self) -> KnownNames:
        """The names in the source and the prompt."""
        return KnownNames((*self.texts, self.prompt))

    @cached_property
    def known_numbers(self) -> frozenset[object]:
        """The numbers in the source and the prompt."""
        return frozenset(number.key for text in (*self.texts, self.prompt) for number in find_numbers(text))

    @cached_property
    def prompt_stems(self) -> frozenset[str]:
        """The stems of the prompt's content words."""
        return frozenset(content_stems(self.prompt))


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of an answer, and the source that should support it."""

    sentence: str
    source: Source


class SupportScorer(Protocol):
    """Measures how well sources support claims."""

    def supports(self, claims: Sequence[Claim]) -> list[float]:
        """The support of each claim, in [0, 1]; NaN where it could not be measured."""
        ...


def find_claims(text: str, source: Source) -> list[Claim]:
    """The sentences of an answer that claim something: those with a word or number that carries content."""
    return [Claim(sentence, source) for sentence in split_sentences(text) if content_stems(sentence)]


def missing_facts(claim: Claim, *, numbers: bool = True, names: bool = True) -> list[str]:
    """The numbers and names of a claim that neither source nor prompt has, as the claim writes them, each once."""
    missing: list[str] = []
    if numbers:
        known = claim.source.known_numbers
        missing += [
            number.text for number in find_numbers(claim.sentence) if not number.vague and number.key not in known
        ]
    if names:
        missing += [name.word for name in find_names(claim.sentence) if not claim.source.known_names.supports(name)]
    return list(dict.fromkeys(missing))
