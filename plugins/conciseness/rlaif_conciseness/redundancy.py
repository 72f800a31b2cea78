"""How much of a text repeats itself."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def repeated_share(units: Sequence[Hashable], n: int) -> float:
    """Share of the n-grams of a text that occurred before in it, in [0, 1).

    The n-grams are cyclic: the text is read as a ring, so L units have L n-grams however short the text, and
    writing a text k times over multiplies their number by k and adds no new one.

    Args:
        units: Words or token ids of the text, L >= 1 of them.
        n: Length of an n-gram, at least 1.
    """
    length = len(units)
    if n == 1:
        return 1.0 - len(set(units)) / length
    ring = list(units)
    while len(ring) < length + n - 1:
        ring.extend(units)
    distinct = set(zip(*(ring[start : start + length] for start in range(n)), strict=True))
    return 1.0 - len(distinct) / length
