"""Hashed features of a text for the embedded model, in numpy, the same on every machine and Python version.

A text is lower-cased and freed of addresses, mentions and punctuation. Its features are its words, and the runs of 3 to
5 bytes within a word and its borders, each hashed to one of `BUCKET_COUNT` buckets; and its words again, looked up in a
lexicon by a 64-bit hash. All texts of a batch are hashed at once.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BUCKET_BITS = 18
BUCKET_COUNT = 1 << BUCKET_BITS
MAX_CHARACTERS = 20_000
"""Longer texts are cut here."""

_NGRAM_SIZES = (3, 4, 5)
_PRIME = 0x100000001B3
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SPACE = ord(" ")

_ADDRESS = re.compile(r"https?://\S+|@\w+|\brt\b")
_REPEATED = re.compile(r"(.)\1{2,}")
_BETWEEN_WORDS = re.compile(r"[^\w'*$!?]+")
_MARKS = re.compile(r"[!?]+")


@dataclass(frozen=True, slots=True)
class Features:
    """Features of N texts as flat arrays; ``rows[i]`` is the text that feature ``i`` belongs to, ascending.

    Attributes:
        count: N.
        buckets: Hash buckets, each once a text, int64.
        rows: As long as ``buckets``, int64.
        words: 64-bit hashes of the words, uint64.
        word_rows: As long as ``words``, int64.
    """

    count: int
    buckets: NDArray[np.int64]
    rows: NDArray[np.int64]
    words: NDArray[np.uint64]
    word_rows: NDArray[np.int64]


def normalize(text: str) -> str:
    """The words of a text, lower-cased, with single spaces between them."""
    plain = unicodedata.normalize("NFKC", html.unescape(text[:MAX_CHARACTERS])).lower()
    squeezed = _REPEATED.sub(r"\1\1", _ADDRESS.sub(" ", plain))
    return _BETWEEN_WORDS.sub(" ", squeezed).strip()


def featurize(texts: Sequence[str]) -> Features:
    """The features of N texts."""
    normalized = [normalize(text) for text in texts]
    bytes_, byte_rows = _buffer(normalized)
    hashes, rows = [], []
    for size in _NGRAM_SIZES:
        starts = _ngram_starts(bytes_, size)
        hashes.append(_mixed(_ngram_hashes(bytes_, starts, size), size))
        rows.append(byte_rows[starts])
    word_hashes, word_rows = _word_hashes(bytes_, byte_rows)
    hashes.append(_mixed(word_hashes, 0))
    rows.append(word_rows)
    buckets = (np.concatenate(hashes) >> np.uint64(64 - BUCKET_BITS)).astype(np.int64)
    keys = np.unique(np.concatenate(rows) << BUCKET_BITS | buckets)

    bare, bare_rows = _buffer([_MARKS.sub(" ", text) for text in normalized])
    words, lexicon_rows = _word_hashes(bare, bare_rows)
    return Features(len(texts), keys & (BUCKET_COUNT - 1), keys >> BUCKET_BITS, words, lexicon_rows)


def hash_words(words: Sequence[str]) -> NDArray[np.uint64]:
    """The hashes under which single words appear in `Features.words`."""
    return _word_hashes(*_buffer(words))[0]


def _buffer(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """All texts as one run of bytes, each between spaces, and the text that each byte belongs to."""
    encoded = [f" {text} ".encode("utf-8", "replace") for text in texts]
    lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    bytes_ = np.frombuffer(b"".join(encoded), dtype=np.uint8).astype(np.uint64)
    return bytes_, np.repeat(np.arange(len(encoded), dtype=np.int64), lengths)


def _ngram_starts(bytes_: NDArray[np.uint64], size: int) -> NDArray[np.int64]:
    """Where a run of ``size`` bytes begins that has no space but at its ends."""
    spaces = np.concatenate(([0], np.cumsum(bytes_ == _SPACE)))
    starts = np.arange(max(0, len(bytes_) - size + 1), dtype=np.int64)
    inner: NDArray[np.int64] = starts[spaces[starts + size - 1] == spaces[starts + 1]]
    return inner


def _ngram_hashes(bytes_: NDArray[np.uint64], starts: NDArray[np.int64], size: int) -> NDArray[np.uint64]:
    hashes = np.zeros(len(starts), dtype=np.uint64)
    for offset in range(size):
        hashes = hashes * np.uint64(_PRIME) + bytes_[starts + offset]
    return hashes


def _word_hashes(
    bytes_: NDArray[np.uint64], byte_rows: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    in_word = bytes_ != _SPACE
    starts = np.flatnonzero(in_word & ~np.concatenate(([False], in_word[:-1])))
    if len(starts) == 0:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    widths = np.diff(starts, append=len(bytes_))
    offsets = np.arange(starts[0], len(bytes_)) - np.repeat(starts, widths)
    powers = np.cumprod(np.full(int(offsets.max()) + 2, _PRIME, dtype=np.uint64))
    terms = np.where(in_word, bytes_, np.uint64(0))[starts[0] :] * powers[offsets]
    return np.add.reduceat(terms, starts - starts[0]), byte_rows[starts]


def _mixed(hashes: NDArray[np.uint64], salt: int) -> NDArray[np.uint64]:
    """Spread hashes over all 64 bits, differently for each kind of feature."""
    mixed = (hashes ^ np.uint64(salt * 0x51ED270B)) * _GOLDEN
    return (mixed ^ (mixed >> np.uint64(29))) * _GOLDEN
