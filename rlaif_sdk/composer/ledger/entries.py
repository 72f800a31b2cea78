"""What a ledger's record holds: runs, batches, and what each reward said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.scoring.checks import CheckedScores
from rlaif_sdk.statistics.arrays import Array, Mask
from rlaif_sdk.types import RewardBatch


@dataclass(frozen=True, slots=True)
class RecordedReward:
    """What is known of a reward whose scores are recorded.

    Attributes:
        use: The plugin's name for it, a reference, or empty for one made in Python.
        version: Its version.
        params: A digest of its parameters, or empty.
        range: The least and greatest score, or None.
        higher_is_better: False for a cost.
    """

    use: str
    version: str
    params: str
    range: tuple[float, float] | None
    higher_is_better: bool


@dataclass(frozen=True, slots=True)
class Run:
    """What one composer recorded.

    Attributes:
        number: Its number in the ledger, from 1.
        started: When its first batch was composed, in seconds since 1970.
        rewards: Its rewards by name.
        batches: How many batches it has.
        rows: How many rows these have.
    """

    number: int
    started: float
    rewards: Mapping[str, RecordedReward]
    batches: int
    rows: int


@dataclass(frozen=True, slots=True, eq=False)
class RecordedAnswer:
    """What one reward said of B rows.

    Attributes:
        raw: (B,) its scores, NaN where there is none.
        failures: Why, for each row that failed.
        reasons: Why, in the reward's words, for each row with a reason.
        stood_in: Why it failed, for each row on which its fallback's score stands; None without a fallback.
        cached: (B,) True where the score came from the cache.
    """

    raw: Array
    failures: Mapping[int, str]
    reasons: Mapping[int, str]
    stood_in: Mapping[int, str] | None
    cached: Mask

    @property
    def answer(self) -> CheckedScores:
        """The same as the composer's arithmetic takes it."""
        return CheckedScores(self.raw.copy(), dict(self.failures), (), fallback_reasons=self.stood_in)


@dataclass(frozen=True, slots=True, eq=False)
class RecordedBatch:
    """A batch of B rows that was composed.

    Attributes:
        batch: Prompts, completions, groups and progress; columns and token ids are not recorded.
        totals: (B,) the totals that were given out.
        answers: What each reward said.
        in_force: The weights, and the constraints' multipliers, by name.
    """

    batch: RewardBatch
    totals: Array
    answers: Mapping[str, RecordedAnswer]
    in_force: Mapping[str, Mapping[str, float]]


def recorded(composition: Composition) -> RecordedBatch:
    """What is recorded of a composition."""
    return RecordedBatch(
        composition.batch,
        composition.totals,
        {
            name: RecordedAnswer(
                column.raw,
                column.failures,
                {row: score.reason for row in range(len(composition)) if (score := column.score(row)) and score.reason},
                column.fallback_reasons,
                np.zeros(len(composition), dtype=bool) if column.cached is None else column.cached,
            )
            for name, column in composition.rewards.items()
        },
        {
            "weights": {name: column.weight for name, column in composition.rewards.items()},
            "groups": dict(composition.group_weights),
            "multipliers": {part.constraint.key: part.multiplier for part in composition.constraints},
        },
    )
