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
    name: str, scores: CheckedScores, policy: FailurePolicy, group_B: Labels | None, *, otherwise: float | None = None
) -> tuple[Array, Array, Mask | None]:
    """What of a reward's scores takes part in the total.

    Statistics learn from the raw scores all the same: a score that is masked is one, and an outage must not move the
    mean.

    Args:
        name: The reward's name.
        scores: What it said of B rows.
        policy: Its failure policy.
        group_B: (B,) integers, equal for rows that answer the same prompt; None when there are no groups.
        otherwise: The score of a row that it is not asked about; None if it abstains there.

    Returns:
        (B,) raw scores with what is stated for rows without one; the same, NaN where the reward is left out because of a
        neighbour in its group; and (B,) True where the row gets no total, or None if nowhere.

    Raises:
        RewardError: A row failed and the policy is ``raise``.
    """
    raw_B = scores.raw
    if otherwise is not None and scores.not_asked:
        raw_B = raw_B.copy()
        raw_B[scores.skipped] = otherwise
    if scores.imputed:
        raw_B = raw_B.copy()
        raw_B[list(scores.imputed)] = [imputed.value for imputed in scores.imputed.values()]
    if not scores.failures and policy.mask_group != "missing":
        return raw_B, raw_B, None
    failed_B = np.zeros(len(raw_B), dtype=bool)
    failed_B[list(scores.failures)] = True
    if scores.failures and policy.policy == "raise":
        row, problem = next(iter(scores.failures.items()))
        raise RewardError(
            f"failed on {len(scores.failures)} of {len(raw_B)} rows, first on row {row + 1} of the batch: {problem}",
            reward=name,
            hint="on_failure: abstain continues without it",
        ) from scores.error
    if policy.policy == "default":
        assert policy.value is not None
        stated_B = np.where(failed_B, policy.value, raw_B)
        return stated_B, stated_B, None
    if policy.policy == "drop":
        return raw_B, raw_B, failed_B
    if group_B is None or policy.mask_group == "never":
        return raw_B, raw_B, None
    reason_B = failed_B if policy.mask_group == "failed" else np.isnan(raw_B)
    if not reason_B.any():
        return raw_B, raw_B, None
    struck_B = (np.bincount(group_B, weights=reason_B) > 0)[group_B]
    return raw_B, np.where(struck_B, np.nan, raw_B), None
