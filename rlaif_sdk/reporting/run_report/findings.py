"""What a reader of the report should know first, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rlaif_sdk.diagnostics import Drift, Saturation, find_drifts, flat_groups, group_spread, saturation, variance_shares
from rlaif_sdk.diagnostics.drift import MIN_STEPS, TOTAL
from rlaif_sdk.diagnostics.saturation import TOLERANCE, width
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.reporting.run_report.observations import Observations
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.correlation import correlation_interval, pearson, spearman

SAME = 0.9
"""Two rewards with a stronger correlation say nearly the same."""
LONG = 0.5
"""A total that certainly correlates more strongly with length is largely a measure of length."""
TIED = 0.9
"""A reward with a greater share of scores alike cannot tell completions apart."""
FLAT = 0.5
"""With a greater share of groups without differences most prompts teach nothing."""
DOMINANT = 0.9
"""A reward with a greater share of the total's variance leaves the others little say."""
SILENT = 0.02
"""A reward with a smaller share of the total's variance has little say, whatever its weight."""
FAILING = 0.01
"""A reward that fails on a greater share of the rows needs looking at."""


@dataclass(frozen=True, slots=True, eq=False)
class Measures:
    """The diagnostics of a whole run. R rewards; the last two of R + 2 rows are the total and the length.

    Attributes:
        pearson: (R + 2, R + 2) correlations.
        spearman: The same, of ranks.
        shares_R: Each reward's share in the variance of the total.
        saturation: By reward.
        flat: The share of groups without differences, by reward and for ``total``; empty without groups.
        drifts: One a held-out reward, where there are enough steps.
    """

    pearson: Array
    spearman: Array
    shares_R: Array
    saturation: dict[str, Saturation]
    flat: dict[str, float]
    drifts: Sequence[Drift]


def measure(seen: Observations, held_out: Sequence[str] = ()) -> Measures:
    """Measure everything.

    Args:
        seen: The run.
        held_out: Rewards to compare with the total, beside those that never had a weight.

    Raises:
        DataError: A held-out reward is none of the run's.
    """
    for name in held_out:
        if name not in seen.rewards:
            raise DataError(f"no reward is named {name!r}", hint=f"the run has {', '.join(seen.rewards)}")
    together = np.vstack([seen.raw_RN, seen.totals_N, seen.length_N])
    proxies = {TOTAL: seen.by_step(seen.totals_N)[0]}
    unseen: dict[str, Array] = {}
    for name, facts in seen.rewards.items():
        means_T, _ = seen.by_step(seen.oriented(name))
        (unseen if facts.is_held_out or name in held_out else proxies)[name] = means_T
    return Measures(
        pearson=pearson(together),
        spearman=spearman(together),
        shares_R=variance_shares(seen.parts_RN, seen.totals_N)
        if seen.has_parts
        else np.full(len(seen.rewards), np.nan),
        saturation={
            name: saturation(raw_N, facts.declared_range)
            for (name, facts), raw_N in zip(seen.rewards.items(), seen.raw_RN, strict=True)
        },
        flat=_flat(seen),
        drifts=find_drifts(seen.steps_T.tolist(), proxies, unseen),
    )


def _flat(seen: Observations) -> dict[str, float]:
    grouped_N = seen.group_N >= 0
    if not grouped_N.any():
        return {}
    values = dict(zip((*seen.rewards, "total"), np.vstack([seen.raw_RN, seen.totals_N]), strict=True))
    spread_RG = group_spread(np.stack([*values.values()])[:, grouped_N], seen.group_N[grouped_N])
    ranges = {name: facts.declared_range for name, facts in seen.rewards.items()}
    return {
        name: flat_groups(spread_G, epsilon=TOLERANCE * width(values_N, ranges.get(name)))
        for (name, values_N), spread_G in zip(values.items(), spread_RG, strict=True)
    }


def warnings_of(seen: Observations, measured: Measures) -> list[str]:
    """What may be wrong with the rewards, the gravest first; each a sentence or two with its numbers."""
    return [
        *(f"Reward hacking: {drift}." for drift in measured.drifts if drift.detected),
        *_failing(seen),
        *_flat_groups(measured),
        *_shares(seen, measured),
        *_saturated(seen, measured),
        *_correlated(seen, measured),
        *_long(seen, measured),
    ]


def notes_of(seen: Observations, measured: Measures) -> list[str]:
    """What a reader has to know to read the rest, and what was looked for and not found."""
    notes = [f"No drift: {drift}." for drift in measured.drifts if not drift.detected]
    if not any(facts.is_held_out for facts in seen.rewards.values()) and not measured.drifts:
        notes.append(
            "No reward is held out, so reward hacking cannot be seen: give a reward the weight 0 to record it without "
            "training on it."
        )
    elif not measured.drifts:
        notes.append(f"Too few steps to look for drift: {len(seen.steps_T)}, and {MIN_STEPS} are needed.")
    for name, facts in seen.rewards.items():
        weights = list(facts.weights.values())
        if len(set(weights)) > 1:
            notes.append(
                f"The weight of {name!r} changed from {weights[0]:g} to {weights[-1]:g}: the total then means something "
                "else, whatever the policy does."
            )
    if not seen.training:
        notes.append("There are no training rows: these are those of evaluation.")
    unscored = int(np.isnan(seen.totals_N).sum())
    if unscored:
        notes.append(f"{unscored} of {len(seen)} rows are unscored, and take part in nothing that involves the total.")
    return notes


def _failing(seen: Observations) -> list[str]:
    return [
        f"{name!r} failed on {share:.1%} of the rows."
        for name, share in zip(seen.rewards, seen.failed_RN.mean(axis=1), strict=True)
        if share > FAILING
    ]


def _flat_groups(measured: Measures) -> list[str]:
    share = measured.flat.get("total", 0.0)
    if not share > FLAT:
        return []
    return [f"In {share:.0%} of the groups all completions have the same total: these prompts teach nothing."]


def _shares(seen: Observations, measured: Measures) -> list[str]:
    weighed = {
        name: share
        for (name, facts), share in zip(seen.rewards.items(), measured.shares_R.tolist(), strict=True)
        if not facts.is_held_out
    }
    found = []
    for name, share in weighed.items() if len(weighed) > 1 else ():
        if share > DOMINANT:
            found.append(f"{name!r} makes {share:.0%} of the variance of the total: the others have little say.")
        elif share < -SILENT:
            found.append(f"{name!r} moves against the total: its share in the total's variance is {share:.0%}.")
        elif share < SILENT:
            found.append(f"{name!r} makes {share:z.1%} of the variance of the total: it has little say.")
    return found


def _saturated(seen: Observations, measured: Measures) -> list[str]:
    found = []
    for name, facts in seen.rewards.items():
        low, high, tied = measured.saturation[name]
        if tied > TIED:
            edge = ""
            if facts.declared_range is not None and max(low, high) > TIED:
                edge = f", at the {'upper' if high > low else 'lower'} edge of its range"
            found.append(f"{name!r} gives {tied:.0%} of the completions the same score{edge}.")
    return found


def _correlated(seen: Observations, measured: Measures) -> list[str]:
    found = []
    for (first, one), (second, other) in combinations(enumerate(seen.rewards), 2):
        correlation = measured.pearson[first, second]
        if abs(correlation) > SAME:
            same = "nearly the same" if correlation > 0 else "nearly the opposite"
            found.append(f"{one!r} and {other!r} say {same}: their correlation is {correlation:+.2f}.")
    return found


def _long(seen: Observations, measured: Measures) -> list[str]:
    found = []
    for index, name in enumerate((*seen.rewards, "total")):
        values_N = seen.totals_N if name == "total" else seen.raw_RN[index]
        rows = int(np.count_nonzero(~np.isnan(values_N)))
        correlation = float(measured.pearson[index, -1])
        low, high = correlation_interval(correlation, rows)
        if low > LONG or high < -LONG:
            who = "The total" if name == "total" else repr(name)
            found.append(
                f"{who} goes with {'longer' if correlation > 0 else 'shorter'} completions: its correlation with their "
                f"length is {correlation:+.2f} (95% interval {low:+.2f} to {high:+.2f})."
            )
    return found
