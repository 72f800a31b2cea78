"""Sequences of several lengths in padded batches: padding is a cost of every forward pass, so little of it is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def token_batches(
    lengths: Sequence[int], max_tokens: int, *, max_rows: int | None = None, unpadded: bool = False
) -> Iterator[list[int]]:
    """The rows in batches of similar length, the longest first, so that a lack of memory shows at once.

    Args:
        lengths: Tokens of each row.
        max_tokens: The most tokens of a batch, padding included; a longer row has a batch of its own.
        max_rows: The most rows of a batch.
        unpadded: Whether the rows of a batch have one length.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch:
            longest = lengths[batch[0]]
            is_full = len(batch) == max_rows or (len(batch) + 1) * longest > max_tokens
            if is_full or (unpadded and lengths[row] != longest):
                yield batch
                batch = []
        batch.append(row)
    if batch:
        yield batch
