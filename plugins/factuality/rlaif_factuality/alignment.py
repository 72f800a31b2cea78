"""Support by aligned words: the default, which needs no model.

A claim is supported as far as its content words stand together in the source. This compares words, not meanings: a
paraphrase in other words gets little support, and a false statement made of the source's own words gets much. What it
measured on TruthfulQA is in the README, and `evaluation/truthfulqa.py` measures it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rlaif_factuality.source import Claim, Source
from rlaif_factuality.words import content_stems, is_negated

PROMPT_WEIGHT = 0.05
"""Weight of a word that the prompt uses, where another word has 1: repeating the question is no evidence."""

RELATED_MATCH = 0.7
"""How far a word is supported by another that begins alike."""

NEGATION_MISMATCH = 0.5
"""Factor for a claim that is negated where its source is not, or the other way round."""

_RELATED_LENGTH = 4
_RELATED_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class _Window:
    stems: frozenset[str]
    polarities: frozenset[bool]

    def joined(self, other: _Window) -> _Window:
        return _Window(self.stems | other.stems, self.polarities | other.polarities)


class AlignmentScorer:
    """Aligns the content words of a claim with each sentence, and each two neighbouring ones, of its source."""

    def supports(self, claims: Sequence[Claim]) -> list[float]:
        """The support of each claim, in [0, 1]."""
        windows = {source: _windows(source) for source in dict.fromkeys(claim.source for claim in claims)}
        return [_support(claim, windows[claim.source]) for claim in claims]


def _windows(source: Source) -> list[_Window]:
    windows: list[_Window] = []
    for sentences in source.sentences:
        single = [_Window(frozenset(content_stems(text)), frozenset({is_negated(text)})) for text in sentences]
        windows += single
        windows += [first.joined(second) for first, second in pairwise(single)]
    return windows


def _support(claim: Claim, windows: Sequence[_Window]) -> float:
    stems = content_stems(claim.sentence)
    weights = [PROMPT_WEIGHT if stem in claim.source.prompt_stems else 1.0 for stem in stems]
    negated = is_negated(claim.sentence)
    best = 0.0
    for window in windows:
        matched = sum(weight * _match(stem, window.stems) for stem, weight in zip(stems, weights, strict=True)) / sum(
            weights
        )
        best = max(best, matched if negated in window.polarities else matched * NEGATION_MISMATCH)
    return min(best, 1.0)


def _match(stem: str, stems: frozenset[str]) -> float:
    if stem in stems:
        return 1.0
    if len(stem) < _RELATED_LENGTH:
        return 0.0
    beginning = stem[: max(_RELATED_LENGTH, int(_RELATED_SHARE * len(stem)))]
    return RELATED_MATCH if any(other.startswith(beginning) for other in stems) else 0.0
