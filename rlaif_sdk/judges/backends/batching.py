"""Token sequences of different lengths in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def token_batches(lengths: Sequence[int], max_rows: int, max_tokens: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, the longest first, so that a lack of memory shows at once.

    A batch has at most ``max_rows`` rows and, with padding, ``max_tokens`` tokens; a sequence longer than that
    stands alone.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) == max_rows or lengths[batch[0]] * (len(batch) + 1) > max_tokens):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def padded(
    sequences: Sequence[Sequence[int]], pad_id: int, device: torch.device, *, left: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ids and the mask of N sequences, each (N, T)."""
    import torch

    width = max(map(len, sequences))
    ids_NT = torch.full((len(sequences), width), pad_id)
    mask_NT = torch.zeros_like(ids_NT)
    for row, ids in enumerate(sequences):
        where = slice(width - len(ids), width) if left else slice(0, len(ids))
        ids_NT[row, where] = torch.tensor(ids)
        mask_NT[row, where] = 1
    return ids_NT.to(device), mask_NT.to(device)
