"""Words in a form that can be compared: folded, stemmed, and without those that carry no claim."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import snowballstemmer  # type: ignore[import-untyped]

_STEMMER = snowballstemmer.stemmer("english")
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_ANSWERS_NO = re.compile(r"^\W*no\b\s*(?:[,.;:!\u2014]|$)", re.IGNORECASE)
_GROUPED = re.compile(r"(?<=\d)[,\u00a0\u2009\u202f](?=\d{3}(?!\d))")

STOP_WORDS = frozenset(
    [
        "a",
        "about",
        "above",
        "across",
        "after",
        "again",
        "against",
        "all",
        "along",
        "already",
        "also",
        "although",
        "always",
        "am",
        "among",
        "an",
        "and",
        "another",
        "any",
        "are",
        "around",
        "as",
        "at",
        "away",
        "be",
        "because",
        "been",
        "before",
        "behind",
        "being",
        "below",
        "besides",
        "between",
        "both",
        "but",
        "by",
        "can",
        "cannot",
        "could",
        "did",
        "do",
        "does",
        "doing",
        "done",
        "down",
        "during",
        "each",
        "either",
        "else",
        "etc",
        "even",
        "ever",
        "every",
        "few",
        "for",
        "from",
        "further",
        "get",
        "gets",
        "getting",
        "got",
        "had",
        "has",
        "have",
        "having",
        "he",
        "hence",
        "her",
        "here",
        "hers",
        "herself",
        "him",
        "himself",
        "his",
        "how",
        "however",
        "i",
        "if",
        "in",
        "indeed",
        "instead",
        "into",
        "is",
        "it",
        "its",
        "itself",
        "just",
        "like",
        "many",
        "may",
        "maybe",
        "me",
        "might",
        "mine",
        "more",
        "most",
        "much",
        "must",
        "my",
        "myself",
        "neither",
        "nor",
        "of",
        "off",
        "often",
        "on",
        "once",
        "one",
        "ones",
        "only",
        "onto",
        "or",
        "other",
        "others",
        "our",
        "ours",
        "ourselves",
        "out",
        "over",
        "own",
        "per",
        "perhaps",
        "quite",
        "rather",
        "really",
        "same",
        "shall",
        "she",
        "should",
        "since",
        "so",
        "some",
        "sometimes",
        "soon",
        "still",
        "such",
        "than",
        "that",
        "the",
        "their",
        "theirs",
        "them",
        "themselves",
        "then",
        "there",
        "thereby",
        "therefore",
        "these",
        "they",
        "this",
        "those",
        "though",
        "through",
        "thus",
        "to",
        "together",
        "too",
        "toward",
        "towards",
        "under",
        "until",
        "unto",
        "up",
        "upon",
        "us",
        "very",
        "was",
        "we",
        "well",
        "were",
        "what",
        "whatever",
        "when",
        "whenever",
        "where",
        "whereas",
        "wherever",
        "whether",
        "which",
        "while",
        "who",
        "whoever",
        "whom",
        "whose",
        "why",
        "will",
        "with",
        "within",
        "would",
        "yet",
        "you",
        "your",
        "yours",
        "yourself",
        "yourselves",
        "i'm",
        "i've",
        "i'd",
        "i'll",
        "you're",
        "you've",
        "you'd",
        "you'll",
        "he'd",
        "he'll",
        "she'd",
        "she'll",
        "we're",
        "we've",
        "we'd",
        "we'll",
        "they're",
        "they've",
        "they'd",
        "they'll",
        "it'd",
        "it'll",
    ]
)
NEGATIONS = frozenset(
    ["no", "not", "never", "none", "nobody", "nothing", "nowhere", "neither", "nor", "without", "cannot"]
)
"""Words that turn a statement round; a contraction with ``n't`` is one as well."""


def fold(word: str) -> str:
    """A word without case, accents and possessive ending."""
    plain = unicodedata.normalize("NFKD", word.replace("\u2019", "'")).casefold()
    plain = "".join(character for character in plain if not unicodedata.combining(character))
    return plain.removesuffix("'s").rstrip("'")


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The stem of a folded word (Snowball English)."""
    return str(_STEMMER.stemWord(word))


@lru_cache(maxsize=65536)
def _content_stem(word: str) -> str | None:
    folded = fold(word)
    if folded in STOP_WORDS or folded in NEGATIONS or folded.endswith("n't") or not folded:
        return None
    return stem(folded)


def content_stems(text: str) -> list[str]:
    """The stems of the words of a text that carry content, in order; stop words and negations are left out.

    Digits are left without grouping, so that ``1,000`` and ``1000`` are one word. A "no" that answers (``No, ...``)
    carries content, as "yes" does.
    """
    stems = [stem for word in _WORD.findall(_GROUPED.sub("", text)) if (stem := _content_stem(word)) is not None]
    return ["no", *stems] if _ANSWERS_NO.match(text) else stems


def is_negated(text: str) -> bool:
    """Whether an odd number of negations turns the statement round; a "no" that answers (``No, ...``) is none."""
    folded = (fold(word) for word in _WORD.findall(_ANSWERS_NO.sub("", text, count=1)))
    return sum(word in NEGATIONS or word.endswith("n't") for word in folded) % 2 == 1
