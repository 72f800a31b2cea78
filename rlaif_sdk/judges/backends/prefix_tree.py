"""Token sequences laid out so that what they begin with in common stands there once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, takewhile

Tokens = Sequence[int]


@dataclass(frozen=True, slots=True)
class Pack:
    """Several sequences as one row of S tokens, the shared ones once: a tree, flattened.

    Attributes:
        rows: Which sequences are in it.
        tokens: The S tokens.
        depths: For each token its position in its sequences.
        branches: For each sequence, where its own tokens begin in ``tokens``, and the places of all its tokens, from
            the first to the last.
    """

    rows: list[int]
    tokens: list[int]
    depths: list[int]
    branches: list[tuple[int, list[int]]]


def shared_length(sequences: Sequence[Tokens]) -> int:
    """How many tokens all sequences begin with in common."""
    return _common(min(sequences, key=tuple), max(sequences, key=tuple))  # the two that differ earliest


def packs(sequences: Sequence[Tokens], start: int, max_tokens: int) -> Iterator[Pack]:
    """The sequences from their ``start`` on, in packs of at most ``max_tokens`` tokens.

    Neighbours in lexicographic order share the most, so they are packed in that order. A sequence that is longer than
    the limit stands alone.

    Args:
        sequences: Token sequences that have the first ``start`` tokens in common, each longer than that.
        start: Where the packs begin; these tokens are in no pack.
        max_tokens: The most tokens of a pack.
    """
    pack = Pack([], [], [], [])
    for row in sorted(range(len(sequences)), key=lambda row: tuple(sequences[row])):
        own = sequences[row][start:]
        shared = _common(own, sequences[pack.rows[-1]][start:]) if pack.rows else 0
        if pack.rows and len(pack.tokens) + len(own) - shared > max_tokens:
            yield pack
            pack, shared = Pack([], [], [], []), 0
        begin = len(pack.tokens)
        places = pack.branches[-1][1][:shared] if shared else []
        pack.rows.append(row)
        pack.branches.append((begin, [*places, *range(begin, begin + len(own) - shared)]))
        pack.tokens.extend(own[shared:])
        pack.depths.extend(range(start + shared, start + len(own)))
    if pack.rows:
        yield pack


def _common(left: Tokens, right: Tokens) -> int:
    pairs = zip(count(), left, right, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[1] == pair[2], pairs))
