"""Failure policies: what becomes of a row when a reward has no score for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from rlaif_sdk.composer.arrays import Array, Labels, Mask, is_finite_number
from rlaif_sdk.composer.validation import Answer
from rlaif_sdk.exceptions import ConfigError, RewardError

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

    def __post_init__(self) -> None:
        for name, known in (("policy", get_args(_Policy)), ("mask_group", get_args(_MaskGroup))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is one of {', '.join(known)}, not {getattr(self, name)!r}", key="on_failure")
        if (self.policy == "default") != is_finite_number(self.value):
            raise ConfigError("a finite 'value' goes with policy 'default', and only with it", key="on_failure")


@dataclass(frozen=True, slots=True)
class Settled:
    """A reward's answer after its failure policy.

    Attributes:
        observed: (B,) raw scores that may enter statistics, NaN elsewhere; a score that is masked counts, since it
            is one: an outage must not move the mean.
        values: (B,) raw scores with defaults filled in, NaN where the reward takes no part.
        masked: (B,) True where a score was left out because of a neighbour in its group.
        dropped: (B,) True where the row gets no total.
    """

    observed: Array
    values: Array
    masked: Mask
    dropped: Mask


def settle(name: str, answer: Answer, policy: FailurePolicy, group_B: Labels | None) -> Settled:
    """Apply a failure policy to a reward's answer.

    Raises:
        RewardError: A row failed and the policy is ``raise``.
    """
    failed_B = np.zeros(len(answer.raw), dtype=bool)
    failed_B[list(answer.failures)] = True
    masked_B = np.zeros_like(failed_B)
    if answer.failures and policy.policy == "raise":
        row, problem = next(iter(answer.failures.items()))
        raise RewardError(
            f"failed on {len(answer.failures)} of {len(answer.raw)} rows, first on row {row}: {problem}",
            reward=name,
            hint="on_failure: abstain would go on without it",
        ) from answer.error
    if policy.policy == "default":
        assert policy.value is not None
        return Settled(answer.raw, np.where(failed_B, policy.value, answer.raw), masked_B, masked_B)
    if policy.policy == "drop":
        return Settled(answer.raw, answer.raw, masked_B, failed_B)
    if group_B is not None and policy.mask_group != "never":
        reason_B = failed_B if policy.mask_group == "failed" else np.isnan(answer.raw)
        if reason_B.any():
            struck_B = (np.bincount(group_B, weights=reason_B) > 0)[group_B]
            masked_B = struck_B & ~np.isnan(answer.raw)
    kept_B = np.where(masked_B, np.nan, answer.raw) if masked_B.any() else answer.raw
    return Settled(answer.raw, kept_B, masked_B, np.zeros_like(failed_B))
