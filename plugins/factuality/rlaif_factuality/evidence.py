"""Support by evidence in the words: the default, which needs no model.

A claim is compared with its source by what the two share: runs of words, content words, neighbours in their order,
names, numbers, who does what, and what is negated. Common words weigh half as much as others. A logistic regression of
these measures is the support; its weights are below, and `evaluation/news.py` fits them again. This compares words, not meanings: a paraphrase in other
words gets little support. What it measured is in the README.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise
from pathlib import Path

from rlaif_factuality.claims import Claim, ClaimSupport, missing_facts
from rlaif_factuality.source import Source, SourceSentence
from rlaif_factuality.words import Word, negated_keys

PROMPT_WEIGHT = 0.05
"""Weight of a word that the prompt uses, where another word has 1: repeating the question is no evidence."""

COMMON_WEIGHT = 0.5
"""Weight of a common word, where another has 1: that a source has ``said`` or ``year`` too says little."""

COMMON_WORDS = frozenset(Path(__file__).with_name("common_words.txt").read_text(encoding="utf-8").split())
"""The most frequent English words, in small letters: the first whole words of BERT's uncased vocabulary (Apache-2.0)."""

REFUTED = 0.3
"""Factor for a claim that the source refutes: a name or number that it lacks, exchanged roles, a negation."""

_SAME_STATEMENT = 0.7


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a claim and its source share, each in [0, 1].

    Attributes:
        trigrams: Share of the claim's runs of three words that the source has.
        content: Share of its content words that the source has anywhere.
        together: Share of its content words that stand in one sentence of the source, or two neighbouring ones.
        in_order: Share of its neighbouring content words that a sentence of the source has in the same order, near
            each other.
        new_words: Names and other words out of the ordinary that the source lacks: a half for one, then less for
            each. Names are seen among them in a text without capitals too.
        new_numbers: Numbers and dates that the source lacks, likewise.
    """

    trigrams: float
    content: float
    together: float
    in_order: float
    new_words: float
    new_numbers: float


BIAS = -3.47
WEIGHTS = Evidence(trigrams=1.07, content=1.99, together=1.77, in_order=1.27, new_words=-1.39, new_numbers=-2.45)
_WEIGHTS = astuple(WEIGHTS)


def find_evidence(claim: Claim, *, numbers: bool = True, names: bool = True) -> ClaimSupport:
    """The support of a claim by its source.

    Args:
        claim: What is claimed.
        numbers: Whether a number or date that the source lacks refutes it.
        names: Whether a name that the source lacks refutes it.
    """
    if claim.agrees is not None:
        return ClaimSupport(claim, float(claim.agrees))
    missing = missing_facts(claim, numbers=numbers, names=names)
    return max((_find_in(part, claim, missing) for part in claim.source.parts), key=lambda finding: finding.support)


def _find_in(source: Source, claim: Claim, missing: Sequence[str]) -> ClaimSupport:
    evidence = measure(claim, source, missing)
    negated = _is_negated_there(claim, source)
    exchanged, replaced = False, ""
    if source.has_run([word.key for word in claim.words]):
        support, missing = 1.0, ()  # copied
    else:
        exchanged, replaced = _is_exchanged(claim, source), _replaced(claim, source)
        support = 1.0 if evidence.trigrams == 1.0 else combine(evidence)
        if evidence.trigrams == 0.0 and _only_names(claim):
            support *= REFUTED  # "Curie is Warsaw": the source has both, and nothing says that one is the other
    if missing or exchanged or negated or replaced:
        support *= REFUTED
    if claim.denies:
        support = min(1.0, 2.0 * evidence.together) * (1.0 - support)
    return ClaimSupport(claim, support, missing, exchanged=exchanged, negated=negated, replaced=replaced)


def combine(evidence: Evidence) -> float:
    """The support that the evidence amounts to, in (0, 1)."""
    score = BIAS + sum(weight * value for weight, value in zip(_WEIGHTS, astuple(evidence), strict=True))
    return 1.0 / (1.0 + math.exp(-score))


def measure(claim: Claim, source: Source, missing: Sequence[str]) -> Evidence:
    """Measure a claim against a source.

    Args:
        claim: What is claimed.
        source: Its source, or one text of it.
        missing: What `missing_facts` gave.
    """
    words = claim.words
    if source.is_answer and not claim.from_question:
        words = [word for word in words if word.content and word.key not in source.prompt_keys]
    keys = [word.key for word in words]
    content_words = [word for word in words if word.content]
    content = [word.key for word in content_words]
    weights = [_weight(word, claim) for word in content_words]
    total = sum(weights) or 1.0
    runs = zip(keys, keys[1:], keys[2:], strict=False) if len(keys) > 2 else [keys]
    near = [source.has_near(*pair) for pair in pairwise(content)]
    near_weights = [first + second for first, second in pairwise(weights)]
    rare = sum(
        weight == 1.0 and word.key not in source.content and not word.key[0].isdigit()
        for word, weight in zip(content_words, weights, strict=True)
    )
    numbers = sum(any(character.isdigit() for character in fact) for fact in missing)
    known = sum(weight for key, weight in zip(content, weights, strict=True) if key in source.content) / total
    return Evidence(
        trigrams=_share(map(source.has_run, runs)),
        content=known,
        together=_together(content, weights, source) / total,
        in_order=sum(weight for weight, hit in zip(near_weights, near, strict=True) if hit) / sum(near_weights)
        if near
        else known,
        new_words=1.0 - 0.5 ** (rare + len(missing) - numbers),
        new_numbers=1.0 - 0.5**numbers,
    )


def _weight(word: Word, claim: Claim) -> float:
    weight = COMMON_WEIGHT if word.folded in COMMON_WORDS else 1.0
    return PROMPT_WEIGHT * weight if word.key in claim.source.prompt_keys and not claim.from_question else weight


def _share(hits: Iterable[bool]) -> float:
    found = list(hits)
    return sum(found) / len(found)


def _together(content: Sequence[str], weights: Sequence[float], source: Source) -> float:
    """The greatest weight of a claim's content that one sentence of the source or two neighbouring ones have."""
    wanted = dict(zip(content, weights, strict=True))
    counts = Counter(content)
    best = 0.0
    for text in source.read:
        previous: set[str] = set()
        for sentence in text:
            shared = sentence.content & wanted.keys()
            if shared:
                best = max(best, sum(wanted[key] * counts[key] for key in shared | previous))
            previous = set(shared)
    return best


def _only_names(claim: Claim) -> bool:
    """Whether all that a claim says is that one name is another."""
    content = [word for word in claim.words if word.content]
    return not claim.from_question and len(content) > 1 and all(word.capital for word in content)


def _is_exchanged(claim: Claim, source: Source) -> bool:
    if claim.from_question and claim.statement != source.question:
        return False  # a name before its question has no order
    names = {word.key for word in claim.words if word.capital}
    return source.roles.exchanged(claim.words, names or source.name_keys)


def _replaced(claim: Claim, source: Source) -> str:
    """The name or number of a claim in whose place, between the same words, the source has another; or nothing."""
    words = claim.words
    start = 0
    while start < len(words):
        end = start
        while end < len(words) and (words[end].capital or words[end].key.isdigit()):
            end += 1
        if 2 <= start < end <= len(words) - 2:
            before, run, after = (
                [word.key for word in part]
                for part in (words[start - 2 : start], words[start:end], words[end : end + 2])
            )
            known = source.between(before, after)
            if known and all(other.isdisjoint(run) for other in known):
                return " ".join(word.folded for word in words[start:end])
        start = end + 1
    return ""


def _is_negated_there(claim: Claim, source: Source) -> bool:
    """Whether the sentences that say most of the same things negate something that the claim does not, or reverse."""
    content = {word.key for word in claim.words if word.content}
    best: list[SourceSentence] = []
    most = _SAME_STATEMENT * len(content)
    for text in source.read:
        for sentence in text:
            shared = len(content & sentence.content)
            if shared > most:
                best, most = [sentence], shared
            elif shared == most:
                best.append(sentence)
    negated = negated_keys(claim.words)
    return bool(best) and all((negated ^ sentence.negated) & content & sentence.content for sentence in best)
