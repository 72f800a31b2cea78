"""Defaults of rewards that fail, fitted to what people prefer: what a completion is worth about which a reward says nothing.

N pairs of two completions, R rewards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.evaluation.gate_fit import SUPPORT, gated_margins, rounded
from rlaif_sdk.evaluation.judged_scores import ScoredPairs
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.davidson import held_out_losses
from rlaif_sdk.statistics.estimates import Estimate

_VALUES = 41


@dataclass(frozen=True, slots=True)
class FittedDefault:
    """What people's verdicts say of the score that a reward's failure counts as.

    Attributes:
        reward: The reward.
        before: The default that it had.
        value: The default, with the least and the greatest one that the verdicts contradict no more than by chance (1.92 of
            log-likelihood), among the scores that the reward gives; ``n`` is the pairs in which it failed. The one
            that it had is kept where they do not contradict it.
    """

    reward: str
    before: float
    value: Estimate

    def record(self) -> dict[str, Any]:
        """As a JSON-ready mapping."""
        return {"reward": self.reward, "before": self.before, "value": self.value.record()}


def with_defaults(pairs: ScoredPairs, defaults: Sequence[FittedDefault]) -> ScoredPairs:
    """The pairs as they are seen with these defaults."""
    for each in defaults:
        pairs = pairs.with_default(each.reward, each.value.value)
    return pairs


def fit_defaults(
    pairs: ScoredPairs, defaults: Sequence[FittedDefault], weights_R: Array, gates: Sequence[Gate], log_ties: float
) -> list[FittedDefault]:
    """Choose one default after the other by the least loss, given weights, gates and the other defaults.

    Args:
        pairs: The pairs.
        defaults: Where to begin.
        weights_R: The weights.
        gates: The gates.
        log_ties: See `rlaif_sdk.statistics.davidson.fit_davidson`.
    """
    found = list(defaults)
    for place, each in enumerate(found):
        failing = pairs.defaulted[each.reward]
        rest = with_defaults(pairs.among(np.asarray(failing.failed_N2.any(axis=1))), found)
        scores = np.unique(np.quantile(failing.scores, np.linspace(0, 1, _VALUES)))
        profile = []
        for value in [each.before, *map(rounded, scores.tolist())]:
            tried = rest.with_default(each.reward, value)
            margins_N = gated_margins(tried.totals_N2(weights_R), gates, tried.raw)
            profile.append((float(held_out_losses(margins_N, log_ties, tried.votes_N3).sum()), value))
        least = min(loss for loss, _ in profile)
        supported = [value for loss, value in profile if loss <= least + SUPPORT]
        value = each.before if each.before in supported else min(profile)[1]
        found[place] = replace(each, value=Estimate(value, min(supported), max(supported), len(rest.votes_N3)))
    return found
