"""Content keys: equal for equal input to equal rewards, different for anything else."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from rlaif_sdk.io.digests import Digest
from rlaif_sdk.types import RewardBatch

IDS = "completion_ids"


def row_keys(fingerprint: str, batch: RewardBatch, inputs: Collection[str] | None) -> list[bytes] | None:
    """B keys, each of the reward, the prompt, the completion, and what else the reward reads of the row.

    Args:
        fingerprint: Of the reward.
        batch: B rows.
        inputs: The columns that the reward reads, with ``completion_ids`` if it reads those; None when that is
            unknown: all of them then count.

    Returns:
        The keys, or None if a column holds what has no JSON form, so that equal rows cannot be told.
    """
    columns: dict[str, Sequence[Any]] = dict(batch.columns)
    if batch.completion_ids is not None:
        columns[IDS] = batch.completion_ids
    names = sorted(columns if inputs is None else columns.keys() & set(inputs))
    header = Digest()
    header.add([fingerprint, names])
    keys = []
    try:
        for row in zip(batch.prompts, batch.completions, *(columns[name] for name in names), strict=True):
            digest = header.copy()
            for value in row:
                digest.add(value)
            keys.append(digest.bytes())
    except (TypeError, ValueError, RecursionError):
        return None
    return keys
