"""How far two raters agree: accuracy and Cohen's kappa, with confidence intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlaif_sdk.statistics.agreement import cohens_kappa
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.estimates import Estimate, wilson


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of two raters.

    Attributes:
        accuracy: The share of the items on which they agree, with Wilson's interval; NaN without items.
        kappa: Cohen's kappa, at most 1; 0 is agreement by chance. NaN where both used one and the same category only.
    """

    accuracy: Estimate
    kappa: Estimate

    @property
    def items(self) -> int:
        """How many items both rated."""
        return self.accuracy.n

    def record(self) -> dict[str, Any]:
        """The agreement as a JSON-ready mapping."""
        return {"items": self.items, "accuracy": self.accuracy.record(), "kappa": self.kappa.record()}


def agreement(ratings: Iterable[tuple[str, str]], *, confidence: float = 0.95) -> Agreement:
    """The agreement of two raters.

    Args:
        ratings: What each said of an item, an item a pair.
        confidence: Of the intervals, between 0 and 1.
    """
    counts_CC = contingency_table(ratings)
    agreed, items = float(np.trace(counts_CC)), int(counts_CC.sum())
    return Agreement(wilson(agreed, items, confidence), cohens_kappa(counts_CC, confidence))


def contingency_table(ratings: Iterable[tuple[str, str]]) -> Array:
    """How often each pair of the C categories occurs (C, C): the first rater's in rows, both sorted."""
    counts = Counter(ratings)
    categories = sorted({category for pair in counts for category in pair})
    cells = [[counts[row, column] for column in categories] for row in categories]
    return np.array(cells, dtype=np.float64).reshape(len(categories), len(categories))
