"""When a cheap reward is sure enough: what a cascade to a stronger one saves, and how much of its verdict it loses."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlaif_sdk.composer.ledger import Ledger
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.statistics.arrays import Array, Labels, Mask, encode_groups, json_number
from rlaif_sdk.statistics.estimates import Estimate, share_over_groups

LEAST_ROWS = 40
MOST_PAIRS = 10_000
"""Of a group: all pairs of 141 rows. Of a larger group as many are drawn, so that pairs grow as rows do."""
SHARES = tuple(percent / 100 for percent in range(0, 101, 5))


@dataclass(frozen=True, slots=True)
class CascadePoint:
    """What it costs and what it loses to ask the strong reward only where the cheap one's score is within a band.

    Attributes:
        least: The band's lower end, in the cheap reward's units; minus infinity where it has none, and infinity where no
            row is asked about.
        greatest: Its upper end; infinity where it has none.
        asked: The share of the rows for which the strong reward is asked, measured on rows that did not choose the band.
        agreement: Of pairs of rows that the strong reward tells apart, those of one group where there are groups, the
            share that the cascade puts in the same order, a tie counting half; likewise measured on other rows. Of a group
            with more pairs than 10,000 it is of so many that are drawn.
        difference: The mean absolute difference between the cascade's score and the strong reward's.
    """

    least: float
    greatest: float
    asked: float
    agreement: Estimate
    difference: float

    @property
    def asks(self) -> bool:
        """Whether there is any score at which the strong reward is asked."""
        return self.least <= self.greatest

    def condition(self, cheap: str) -> dict[str, Any]:
        """The ``when`` of the strong reward; empty where it is asked about every row, or about none.

        Its bounds have all their digits, since they are scores that rows have: a rounded 2/3 would keep out each 2/3.
        """
        ends = {"min": self.least, "max": self.greatest}
        bounds = {name: end for name, end in ends.items() if math.isfinite(end)}
        return {"reward": cheap, **bounds} if bounds else {}

    def record(self) -> dict[str, Any]:
        """The point as a JSON-ready mapping."""
        return {
            "min": json_number(self.least),
            "max": json_number(self.greatest),
            "asked": self.asked,
            "agreement": self.agreement.record(),
            "difference": json_number(self.difference),
        }


@dataclass(frozen=True, slots=True)
class CascadeCurve:
    """The trade between calls of the strong reward and agreement with it.

    Attributes:
        points: From asking it about no row to asking it about all.
        rows: How many rows have a score of both.
        unasked: How many have one of the cheap reward alone, and could not be used.
        shift: The mean of the cheap reward's scores less that of the strong one's on the same rows.
    """

    points: tuple[CascadePoint, ...]
    rows: int
    unasked: int
    shift: float

    def cheapest(self, agreement: float) -> CascadePoint | None:
        """The point that asks least among those whose agreement is at least this; None if none reaches it."""
        return next((point for point in self.points if point.agreement.value >= agreement), None)


def calibrate_cascade(
    ledger: Ledger, cheap: str, strong: str, *, runs: Iterable[int] | None = None, seed: int = 0
) -> CascadeCurve:
    """Learn from recorded scores where a cheap reward may be believed, and where a strong one should be asked.

    For each share of rows that may be asked, the band of cheap scores is found whose rows hold the most absolute difference
    between the two, which is what asking them repairs. Each point is cross-fitted: the groups, or rows without groups,
    are split in two halves at random; each half chooses its band, and is measured with the band of the other. The band
    that is reported is chosen by all rows.

    Args:
        ledger: Holds rows that both were asked about.
        cheap: The name of the cheap reward.
        strong: The name of the strong one, whose scores are in the same units.
        runs: Numbers of the runs to read, each alone; the last one with those that it resumed if None.
        seed: Of the split, and of the pairs that are drawn.

    Raises:
        DataError: A reward is not in the record, fewer than 40 rows have a score of both, or all are of one group.
        LedgerError: There is no such run, or the ledger cannot be read.
    """
    cheap_N, strong_N, group_N, unasked = _scores(ledger, cheap, strong, runs)
    if len(cheap_N) < LEAST_ROWS:
        raise DataError(
            f"{len(cheap_N)} rows have a score of both {cheap!r} and {strong!r}, and {LEAST_ROWS} are needed",
            file=str(ledger.path),
            hint="score some answers with both, and without 'when', first",
        )
    groups = int(group_N.max()) + 1
    if groups == 1:
        raise DataError(
            "all rows answer one prompt, and a band that they choose would be measured on themselves",
            file=str(ledger.path),
            hint="score the answers to several prompts with both",
        )
    draw = np.random.default_rng(seed)
    half_N = (draw.permutation(groups) % 2)[group_N]
    first_P, second_P = _pairs(strong_N, group_N, draw)
    points = []
    for share in SHARES:
        bands = [_band(cheap_N[half_N == other], strong_N[half_N == other], share) for other in (1, 0)]
        asked_N = np.zeros(len(cheap_N), dtype=bool)
        for half, band in enumerate(bands):
            asked_N |= (half_N == half) & _within(cheap_N, band)
        scores_N = np.where(asked_N, strong_N, cheap_N)
        agreement = _agreement(scores_N, strong_N, first_P, second_P, group_N)
        difference = float(np.abs(scores_N - strong_N).mean())
        points.append(CascadePoint(*_band(cheap_N, strong_N, share), float(asked_N.mean()), agreement, difference))
    return CascadeCurve(tuple(points), len(cheap_N), unasked, float((cheap_N - strong_N).mean()))


def _scores(ledger: Ledger, cheap: str, strong: str, runs: Iterable[int] | None) -> tuple[Array, Array, Labels, int]:
    """Both rewards' scores of the rows that have both, their groups, and how many rows have only the cheap one's.

    A row without a group is a group of its own.
    """
    cheap_parts, strong_parts, groups = [], [], []
    unasked = rows = 0
    for run in map(ledger.run, [None] if runs is None else runs):
        for name in (cheap, strong):
            if name not in run.rewards:
                raise DataError(f"there is no reward {name!r} in {run}; there are {', '.join(run.rewards)}")
        for entry in ledger.batches(run):
            cheap_B, strong_B = entry.answers[cheap].raw, entry.answers[strong].raw
            both_B = ~np.isnan(cheap_B) & ~np.isnan(strong_B)
            unasked += int((~np.isnan(cheap_B) & np.isnan(strong_B)).sum())
            group_B = encode_groups(entry.batch.group)
            group_B = np.arange(len(entry.batch)) if group_B is None else group_B
            cheap_parts.append(cheap_B[both_B])
            strong_parts.append(strong_B[both_B])
            groups.append(rows + group_B[both_B])
            rows += len(entry.batch)
    if not groups:
        return np.empty(0), np.empty(0), np.empty(0, dtype=np.intp), unasked
    _, group_N = np.unique(np.concatenate(groups), return_inverse=True)
    return np.concatenate(cheap_parts), np.concatenate(strong_parts), group_N, unasked


def _pairs(strong_N: Array, group_N: Labels, draw: np.random.Generator) -> tuple[Labels, Labels]:
    """The pairs of rows of a group that the strong reward tells apart; without groups of several, rows paired at random."""
    order = np.argsort(group_N, kind="stable")
    ends = np.flatnonzero(np.diff(group_N[order])) + 1
    members = [part for part in np.split(order, ends) if len(part) > 1]
    if members:
        places = [_places(len(part), draw) for part in members]
        first_P = np.concatenate([part[left] for part, (left, _) in zip(members, places, strict=True)])
        second_P = np.concatenate([part[right] for part, (_, right) in zip(members, places, strict=True)])
    else:
        shuffled = draw.permutation(len(group_N))
        first_P, second_P = shuffled[: len(shuffled) // 2], shuffled[len(shuffled) // 2 : len(shuffled) // 2 * 2]
    apart_P = strong_N[first_P] != strong_N[second_P]
    return first_P[apart_P], second_P[apart_P]


def _places(count: int, draw: np.random.Generator) -> tuple[Labels, Labels]:
    """The pairs of so many places, or some of them, drawn with replacement."""
    if count * (count - 1) // 2 <= MOST_PAIRS:
        return np.triu_indices(count, 1)
    left_P = draw.integers(count, size=MOST_PAIRS)
    return left_P, (left_P + draw.integers(1, count, size=MOST_PAIRS)) % count


def _band(cheap_N: Array, strong_N: Array, share: float) -> tuple[float, float]:
    """The band with this share of the rows that holds the most absolute difference."""
    count = round(share * len(cheap_N))
    if count == 0:
        return math.inf, -math.inf
    order = np.argsort(cheap_N, kind="stable")
    sums = np.concatenate([[0.0], np.abs(cheap_N - strong_N)[order].cumsum()])
    first = int(np.argmax(sums[count:] - sums[:-count]))
    last = first + count - 1
    least = -math.inf if first == 0 else float(cheap_N[order[first]])
    return least, math.inf if last == len(order) - 1 else float(cheap_N[order[last]])


def _within(values_N: Array, band: tuple[float, float]) -> Mask:
    return (values_N >= band[0]) & (values_N <= band[1])


def _agreement(scores_N: Array, strong_N: Array, first_P: Labels, second_P: Labels, group_N: Labels) -> Estimate:
    same_P = np.sign(scores_N[first_P] - scores_N[second_P]) * np.sign(strong_N[first_P] - strong_N[second_P])
    if not len(same_P):
        return Estimate(math.nan, math.nan, math.nan, 0)
    return share_over_groups((same_P + 1) / 2, group_N[first_P])
