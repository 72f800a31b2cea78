"""Failure policies: what becomes of a row when a reward has no score for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from rlaif_sdk.exceptions import ConfigError, RewardError
from rlaif_sdk.scoring.checks import CheckedScores
from rlaif_sdk.statistics.arrays import Array, Labels, Mask, is_finite_number

_Policy: TypeAlias = Literal["raise", "abstain", "default", "drop"]
_MaskGroup: TypeAlias = Literal["never", "failed", "missing"]


@dataclass(frozen=True, slots=True)
class FailurePolicy:
    """What a reward's failure does. See `rlaif_sdk.config.FailureConfig` for the meaning of each field.

    Raises:
        ConfigError: ``policy`` or ``mask_group`` is unknown, or ``value`` does not go with the policy.
    """

    policy: _Policy = "abstain"
    value: float | None = None
    mask_group: _MaskGroup = "failed"
    fail_fast: bool = True

    def __post_init__(self) -> None:
        for name, known in (("policy", get_args(_Policy)), ("mask_group", get_args(_MaskGroup))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is one of {', '.join(known)}, not {getattr(self, name)!r}", key="on_failure")
        if (self.policy == "default") != is_finite_number(self.value):
            raise ConfigError("a finite 'value' goes with policy 'default', and only with it", key="on_failure")


def apply_failure_policy(
    name: str, scores: CheckedScores, policy: FailurePolicy, group_B: Labels | None
) -> tuple[Array, Mask | None, Mask | None]:
    """What of a reward's scores takes part in the total.

    Statistics learn from the raw scores all the same: a score that is masked is one, and an outage must not move the
    mean.

    Args:
        name: The reward's name.
        scores: What it said of B rows.
        policy: Its failure policy.
        group_B: (B,) integers, equal for rows that answer the same prompt; None when there are no groups.

    Returns:
        (B,) raw scores with defaults filled in, NaN where the reward takes no part; (B,) True where a score was left out
        because of a neighbour in its group, or None if nowhere; and (B,) True where the row gets no total, or None.

    Raises:
        RewardError: A row failed and the policy is ``raise``.
    """
    if not scores.failures and policy.mask_group != "missing":
        return scores.raw, None, None
    failed_B = np.zeros(len(scores.raw), dtype=bool)
    failed_B[list(scores.failures)] = True
    if scores.failures and policy.policy == "raise":
        row, problem = next(iter(scores.failures.items()))
        raise RewardError(
            f"failed on {len(scores.failures)} of {len(scores.raw)} rows, first on row {row + 1} of the batch: {problem}",
            reward=name,
            hint="on_failure: abstain would go on without it",
        ) from scores.error
    if policy.policy == "default":
        assert policy.value is not None
        return np.where(failed_B, policy.value, scores.raw), None, None
    if policy.policy == "drop":
        return scores.raw, None, failed_B
    if group_B is None or policy.mask_group == "never":
        return scores.raw, None, None
    reason_B = failed_B if policy.mask_group == "failed" else np.isnan(scores.raw)
    if not reason_B.any():
        return scores.raw, None, None
    struck_B = (np.bincount(group_B, weights=reason_B) > 0)[group_B]
    masked_B = struck_B & ~np.isnan(scores.raw)
    return np.where(masked_B, np.nan, scores.raw), masked_B, None
