"""Agreement in a review: of people with the judges, of people with each other, and what place they favour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from rlaif_sdk.preferences.review.pairs import audit_draw
from rlaif_sdk.preferences.review.store import ReviewStore
from rlaif_sdk.statistics.agreement import cohens_kappa, symmetric_kappa
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.estimates import Estimate, wilson

VERDICTS = ("1", "2", "tie")
"""What a rater says of a pair."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of two raters.

    Attributes:
        accuracy: The share of the items on which they agree, with Wilson's interval; NaN without items.
        kappa: Cohen's kappa, at most 1; 0 is agreement by chance. NaN where both used one and the same category only.
        symmetric_kappa: The same, whichever responses have the number 1: what it says of a table whose chosen responses
            come first.
    """

    accuracy: Estimate
    kappa: Estimate
    symmetric_kappa: Estimate

    @property
    def items(self) -> int:
        """How many items both rated."""
        return self.accuracy.n

    def record(self) -> dict[str, Any]:
        """The agreement as a JSON-ready mapping."""
        return {
            "items": self.items,
            "accuracy": self.accuracy.record(),
            "kappa": self.kappa.record(),
            "symmetric_kappa": self.symmetric_kappa.record(),
        }


def agreement(ratings: Iterable[tuple[str, str]]) -> Agreement:
    """The agreement of two raters.

    Args:
        ratings: What each said of an item, of `VERDICTS`.
    """
    counts_33 = contingency_table(ratings)
    agreed, items = float(np.trace(counts_33)), int(counts_33.sum())
    return Agreement(wilson(agreed, items), cohens_kappa(counts_33), symmetric_kappa(counts_33))


def contingency_table(ratings: Iterable[tuple[str, str]]) -> Array:
    """(3, 3) how often each pair of verdicts occurs: the first rater's in rows, both in the order of `VERDICTS`."""
    counts = Counter(ratings)
    return np.array([[counts[row, column] for column in VERDICTS] for row in VERDICTS], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class ReviewEstimates:
    """What a review shows of judges and people.

    Ties are a category of their own. The pairs of the queue are the doubtful ones, so agreement over them is lower than
    over all the labels; the audit sample is a random one, and tells of all.

    Attributes:
        ai: Of the judges with the people, over all verdicts.
        ai_audit: The same over the random sample.
        ai_by_reviewer: The same for each reviewer.
        reviewers: Of each two reviewers with pairs in common.
        left_share: For each reviewer, the share of decided verdicts for the left response; 0.5 is no favour.
    """

    ai: Agreement
    ai_audit: Agreement
    ai_by_reviewer: dict[str, Agreement]
    reviewers: dict[tuple[str, str], Agreement]
    left_share: dict[str, float]

    def record(self) -> dict[str, Any]:
        """The estimates as JSON-ready values; None for NaN."""
        by_reviewer = [
            {"reviewer": name, "left_share": self.left_share.get(name), **found.record()}
            for name, found in self.ai_by_reviewer.items()
        ]
        between = [{"reviewers": list(names), **found.record()} for names, found in self.reviewers.items()]
        return {
            "ai": self.ai.record(),
            "ai_audit": self.ai_audit.record(),
            "ai_by_reviewer": by_reviewer,
            "reviewers": between,
        }


def review_estimates(store: ReviewStore) -> ReviewEstimates:
    """The estimates of what has been reviewed so far."""
    with_ai: list[tuple[str, str]] = []
    in_audit: list[tuple[str, str]] = []
    by_reviewer: dict[str, list[tuple[str, str]]] = {}
    between: dict[tuple[str, str], list[tuple[str, str]]] = {}
    left: dict[str, list[bool]] = {}
    for pair, given in store.results(judged_only=True):
        verdicts = {annotation.reviewer: annotation for annotation in given if annotation.choice in {"1", "2", "tie"}}
        for reviewer, annotation in verdicts.items():
            if annotation.choice != "tie":
                left.setdefault(reviewer, []).append(annotation.choice == str(annotation.left_response))
            rated = by_reviewer.setdefault(reviewer, [])
            if pair.ai_preference is None:
                continue
            ratings = pair.ai_preference, annotation.choice
            rated.append(ratings)
            with_ai.append(ratings)
            if audit_draw(pair.id) < store.audit:
                in_audit.append(ratings)
        for one, other in combinations(sorted(verdicts), 2):
            between.setdefault((one, other), []).append((verdicts[one].choice, verdicts[other].choice))
    return ReviewEstimates(
        agreement(with_ai),
        agreement(in_audit),
        {name: agreement(found) for name, found in sorted(by_reviewer.items())},
        {names: agreement(found) for names, found in sorted(between.items())},
        {name: sum(found) / len(found) for name, found in left.items()},
    )
