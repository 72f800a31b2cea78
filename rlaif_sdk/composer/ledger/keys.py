"""Content keys: equal for equal input to equal rewards, different for anything else."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import Any

from rlaif_sdk.types import RewardBatch

KEY_BYTES = 16
"""128 bits: among 10^12 rows the chance of any collision is below 10^-14."""
IDS = "completion_ids"


def digest(value: Any) -> str:
    """What tells a JSON value from others, 32 hexadecimal digits.

    Raises:
        TypeError: JSON cannot hold it.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return blake2b(text.encode(), digest_size=KEY_BYTES).hexdigest()


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
    header = blake2b(digest([fingerprint, names]).encode(), digest_size=KEY_BYTES)
    keys = []
    try:
        for row in zip(batch.prompts, batch.completions, *(columns[name] for name in names), strict=True):
            state = header.copy()
            for value in row:
                state.update(_encoded(value))
            keys.append(state.digest())
    except (TypeError, ValueError, RecursionError):
        return None
    return keys


def _encoded(value: Any) -> bytes:
    """Bytes that begin with their kind and length, so that a row of them can be read in one way only."""
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        return b"s%d:%b" % (len(text), text)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain).encode()
    return b"j%d:%b" % (len(text), text)


def _plain(value: Any) -> Any:
    """Arrays and their scalars as JSON values."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"JSON cannot hold a {type(value).__name__}")
