"""Agreement in a review: of people with the judges, of people with each other, and what place they favour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from rlaif_sdk.preferences.review.agreement import Agreement, agreement
from rlaif_sdk.preferences.review.pairs import ReviewPair
from rlaif_sdk.preferences.review.queue import audit_draw
from rlaif_sdk.preferences.review.store import ReviewStore

Opinion = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class ReviewFigures:
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
        """The figures as JSON-ready values; None for NaN."""
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


def review_figures(store: ReviewStore) -> ReviewFigures:
    """The figures of what has been reviewed so far."""
    with_ai: list[tuple[str, str]] = []
    in_audit: list[tuple[str, str]] = []
    by_reviewer: dict[str, list[tuple[str, str]]] = {}
    between: dict[tuple[str, str], list[tuple[str, str]]] = {}
    left: dict[str, list[bool]] = {}
    for pair, acts in store.results(judged_only=True):
        verdicts = {act.reviewer: act for act in acts if act.choice in {"1", "2", "tie"}}
        numbered = _numbering(pair)
        for reviewer, act in verdicts.items():
            if act.choice != "tie":
                left.setdefault(reviewer, []).append(act.choice == str(act.left_response))
            rated = by_reviewer.setdefault(reviewer, [])
            if pair.ai_preference is None:
                continue
            ratings = numbered(pair.ai_preference), numbered(act.choice)
            rated.append(ratings)
            with_ai.append(ratings)
            if audit_draw(pair.id) < store.audit:
                in_audit.append(ratings)
        for one, other in combinations(sorted(verdicts), 2):
            ratings = numbered(verdicts[one].choice), numbered(verdicts[other].choice)
            between.setdefault((one, other), []).append(ratings)
    return ReviewFigures(
        agreement(with_ai),
        agreement(in_audit),
        {name: agreement(found) for name, found in sorted(by_reviewer.items())},
        {names: agreement(found) for names, found in sorted(between.items())},
        {name: sum(found) / len(found) for name, found in left.items()},
    )


def _numbering(pair: ReviewPair) -> Opinion:
    """Numbers that mean nothing: where response 1 is always the chosen one, kappa would see a judge that says 1."""
    if int(pair.id[-1], 16) % 2:
        return lambda choice: choice
    return lambda choice: {"1": "2", "2": "1"}.get(choice, choice)
