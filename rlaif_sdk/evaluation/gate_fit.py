"""Gates fitted to what people prefer: from which score on a completion may win, and how far back one is that may not.

N pairs of two completions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.davidson import held_out_losses
from rlaif_sdk.statistics.estimates import Estimate

_MOST_THRESHOLDS = 40
_NEAR = 20
_FLOORS = (0.1, 0.3, 0.5)
"""Quantiles of the totals, beside a floor below all of them."""
SUPPORT = 1.92
"""By how much the log-likelihood may be less within a 95% interval: half of the chi-square's quantile."""


@dataclass(frozen=True, slots=True)
class FittedGate:
    """What people's verdicts say of one gate.

    Attributes:
        gate: The gate, with its threshold and floor.
        before: The threshold that it had.
        threshold: The threshold, with the least and the greatest one that the verdicts contradict no more than by chance
            (1.92 of log-likelihood). Rough, since the likelihood jumps from one threshold to the next.
    """

    gate: Gate
    before: float
    threshold: Estimate

    def record(self) -> dict[str, Any]:
        """As a JSON-ready mapping."""
        return {
            "reward": self.gate.reward,
            "bound": bound_of(self.gate),
            "before": self.before,
            "threshold": self.threshold.record(),
            "floor": self.gate.floor,
        }


def bound_of(gate: Gate) -> str:
    """Which of its bounds a gate with one has."""
    return "max" if gate.min is None else "min"


def gated_margins(totals_N2: Array, gates: Sequence[Gate], raw: Mapping[str, Array]) -> Array:
    """(N,) by how much the first completion is ahead after gates.

    Args:
        totals_N2: The totals before gates.
        gates: Each lowers what does not pass it.
        raw: The (N, 2) raw scores of each reward that a gate names.
    """
    for gate in gates:
        totals_N2 = gate.apply(totals_N2, raw[gate.reward])
    return totals_N2[:, 0] - totals_N2[:, 1]


def fit_gates(
    totals_N2: Array, gates: Sequence[FittedGate], raw: Mapping[str, Array], votes_N3: Array, log_ties: float
) -> list[FittedGate]:
    """Choose for one gate after the other the threshold and floor of the least loss, given totals and the other gates.

    Args:
        totals_N2: The totals before gates.
        gates: Where to begin.
        raw: The (N, 2) raw scores of each reward that a gate names.
        votes_N3: See `rlaif_sdk.statistics.davidson.fit_davidson`.
        log_ties: Likewise.
    """
    lowest = rounded(float(totals_N2.min()) - 1)
    floors = [lowest, *(rounded(float(floor)) for floor in np.quantile(totals_N2, _FLOORS))]
    found = [replace(each, gate=replace(each.gate, floor=lowest)) for each in gates]
    for place, each in enumerate(found):
        profile: list[tuple[float, float, Gate]] = []
        for gate in _thresholds(each.gate, raw[each.gate.reward]):
            others = [other.gate for other in found]
            losses = []
            for floor in floors:
                others[place] = replace(gate, floor=floor)
                margins_N = gated_margins(totals_N2, others, raw)
                losses.append((float(held_out_losses(margins_N, log_ties, votes_N3).sum()), floor))
            loss, floor = min(losses)
            profile.append((loss, float(getattr(gate, bound_of(gate))), replace(gate, floor=floor)))
        least, threshold, gate = min(profile, key=lambda one: one[0])
        supported = [one for loss, one, _ in profile if loss <= least + SUPPORT]
        estimate = Estimate(threshold, min(supported), max(supported), len(votes_N3))
        found[place] = replace(each, gate=gate, threshold=estimate)
    return found


def _thresholds(gate: Gate, raw_N2: Array) -> Iterator[Gate]:
    """The gate as it is, and with other thresholds: over all scores, each one near its own, and one that lets all pass."""
    yield gate
    bound = bound_of(gate)
    scores = raw_N2[~np.isnan(raw_N2)]
    different = np.unique(scores)
    if not different.size:
        return
    cuts = (different[1:] + different[:-1]) / 2
    if len(cuts) > 2 * _MOST_THRESHOLDS:
        place = int(np.clip(np.searchsorted(cuts, getattr(gate, bound)), _NEAR, len(cuts) - _NEAR))
        over_all = np.quantile(scores, np.linspace(0, 1, _MOST_THRESHOLDS + 2)[1:-1])
        cuts = np.unique([*over_all, *cuts[place - _NEAR : place + _NEAR]])
    everything = different[0] if bound == "min" else different[-1]  # exactly: rounded, it may keep out its own score
    for value in [float(everything), *map(rounded, cuts.tolist())]:
        yield replace(gate, min=value) if bound == "min" else replace(gate, max=value)


def rounded(value: float) -> float:
    """As many digits of a fitted number as a person reads."""
    return float(f"{value:.6g}")
