"""A batch scored in parts: cut up, and the answers put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlaif_sdk.composer.execution.outcome import Outcome, described
from rlaif_sdk.composer.validation import entries_of
from rlaif_sdk.exceptions import RewardError
from rlaif_sdk.rewards import ScoreLike
from rlaif_sdk.types import RewardBatch, Score


def cut(batch: RewardBatch, size: int | None) -> list[RewardBatch]:
    """The batch in parts of so many rows at most."""
    if size is None or len(batch) <= size:
        return [batch]
    return [batch.select(range(first, min(first + size, len(batch)))) for first in range(0, len(batch), size)]


def merged(results: Sequence[Any], sizes: Sequence[int], seconds: float) -> Outcome:
    """One outcome of the answers to all chunks; the rows of a chunk that failed have failed."""
    if len(results) == 1:
        result = results[0]
        return Outcome(seconds, error=result) if isinstance(result, RewardError) else Outcome(seconds, answer=result)
    entries: list[ScoreLike] = []
    first_error: RewardError | None = None
    failed = 0
    for result, size in zip(results, sizes, strict=True):
        try:
            if isinstance(result, RewardError):
                raise result
            entries.extend(entries_of(result, size))
        except RewardError as error:
            first_error = first_error or error
            failed += 1
            entries.extend([Score.failed(described(error))] * size)
    return Outcome(seconds, error=first_error) if failed == len(results) else Outcome(seconds, answer=entries)
