"""How far two raters agree: accuracy and Cohen's kappa, with confidence intervals.

C categories; a table counts the items that the first rater put into the row's category and the second into the
column's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of two raters.

    Attributes:
        items: How many items both rated.
        accuracy: The share on which they agree, in [0, 1]; NaN without items.
        accuracy_interval: Wilson's interval of it.
        kappa: Cohen's kappa, at most 1; 0 is agreement by chance. NaN where both used one and the same category only.
        kappa_interval: By the asymptotic standard error, cut to [-1, 1]. NaN where that is 0, as with one item or
            agreement on all: such ratings do not show how far kappa may be off.
    """

    items: int
    accuracy: float
    accuracy_interval: Interval
    kappa: float
    kappa_interval: Interval


def agreement(ratings: Iterable[tuple[str, str]], *, confidence: float = 0.95) -> Agreement:
    """The agreement of two raters.

    Args:
        ratings: What each said of an item, an item a pair.
        confidence: Of the intervals, between 0 and 1.
    """
    table_CC = contingency_table(ratings)
    items = sum(map(sum, table_CC))
    agreed = sum(table_CC[index][index] for index in range(len(table_CC)))
    kappa, error = cohen_kappa(table_CC)
    half = NormalDist().inv_cdf((1 + confidence) / 2) * error
    return Agreement(
        items,
        agreed / items if items else math.nan,
        wilson_interval(agreed, items, confidence=confidence),
        kappa,
        (max(-1.0, kappa - half), min(1.0, kappa + half)) if half > 0 else (math.nan, math.nan),
    )


def contingency_table(ratings: Iterable[tuple[str, str]]) -> list[list[int]]:
    """Counts of each pair of categories; the categories sorted."""
    counts = Counter(ratings)
    categories = sorted({category for pair in counts for category in pair})
    return [[counts[row, column] for column in categories] for row in categories]


def cohen_kappa(table_CC: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Cohen's kappa (1960) and its asymptotic standard error (Fleiss, Cohen and Everitt 1969, equation 13).

    Args:
        table_CC: Counts, none below 0.

    Returns:
        Kappa and its standard error; both NaN where agreement by chance is certain, or nothing was counted.
    """
    items = sum(map(sum, table_CC))
    if not items:
        return math.nan, math.nan
    share_CC = [[count / items for count in row] for row in table_CC]
    row_C = [math.fsum(row) for row in share_CC]
    column_C = [math.fsum(column) for column in zip(*share_CC, strict=True)]
    span = range(len(share_CC))
    observed = math.fsum(share_CC[i][i] for i in span)
    by_chance = math.fsum(row_C[i] * column_C[i] for i in span)
    if any(count == items for row in table_CC for count in row) and observed == 1:
        return math.nan, math.nan
    kappa = (observed - by_chance) / (1 - by_chance)
    agreed = math.fsum(share_CC[i][i] * (1 - (row_C[i] + column_C[i]) * (1 - kappa)) ** 2 for i in span)
    differed = math.fsum(share_CC[i][j] * (column_C[i] + row_C[j]) ** 2 for i in span for j in span if i != j)
    variance = agreed + (1 - kappa) ** 2 * differed - (kappa - by_chance * (1 - kappa)) ** 2
    return kappa, math.sqrt(max(0.0, variance) / items) / (1 - by_chance)


def wilson_interval(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Wilson's interval (1927) of a share; NaN without trials."""
    if not trials:
        return math.nan, math.nan
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, centre - half), min(1.0, centre + half)
