"""Support by evidence in the words: the default, which needs no model.

A claim is compared with its source by what the two share: runs of words, content words, neighbours in their order,
names, numbers, who does what, and what is negated. A logistic regression of these measures is the support; its weights
are below, and `evaluation/news.py fit` fits them again. This compares words, not meanings: a paraphrase in other
words gets little support. What it measured is in the README.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise

from rlaif_factuality.claims import Claim, ClaimSupport, missing_facts
from rlaif_factuality.source import Source, SourceSentence
from rlaif_factuality.words import negated_keys

PROMPT_WEIGHT = 0.05
"""Weight of a word that the prompt uses, where another word has 1: repeating the question is no evidence."""

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
        new_names: Names that the source lacks: a half for one, then less for each.
        new_numbers: Numbers and dates that the source lacks, likewise.
    """

    trigrams: float
    content: float
    together: float
    in_order: float
    new_names: float
    new_numbers: float


BIAS = -3.86
WEIGHTS = Evidence(trigrams=1.16, content=2.01, together=1.79, in_order=1.36, new_names=-2.24, new_numbers=-2.46)
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
    content = [word.key for word in words if word.content]
    weights = _weights(content, claim)
    total = sum(weights) or 1.0
    runs = zip(keys, keys[1:], keys[2:], strict=False) if len(keys) > 2 else [keys]
    near = [source.has_near(first, second) for first, second in pairwise(content)]
    numbers = sum(any(character.isdigit() for character in fact) for fact in missing)
    known = sum(weight for key, weight in zip(content, weights, strict=True) if key in source.content) / total
    return Evidence(
        trigrams=_share(map(source.has_run, runs)),
        content=known,
        together=_together(content, weights, source) / total,
        in_order=_share(near) if near else known,
        new_names=1.0 - 0.5 ** (len(missing) - numbers),
        new_numbers=1.0 - 0.5**numbers,
    )


def _weights(content: Sequence[str], claim: Claim) -> list[float]:
    if claim.from_question:
        return [1.0] * len(content)
    return [PROMPT_WEIGHT if key in claim.source.prompt_keys else 1.0 for key in content]


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
