"""In which order pairs are worth a person's time."""

from __future__ import annotations

from collections.abc import Sequence

from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.preferences.review.pairs import AILabel, Number


def uncertainty(prob: float | None) -> float:
    """How little a soft label decides: 1 - |2p - 1|, which is 1 at 0.5 and without a label, and 0 at 0 and 1."""
    return 1.0 if prob is None else 1 - abs(2 * prob - 1)


def disagreement(labels: Sequence[AILabel]) -> float:
    """How far the opinions on one pair lie apart, in [0, 1].

    The greatest of: the spread of the judges' probabilities, a judge's difference between its two orders, and 1 where
    a judge's orders prefer different responses.
    """
    if not labels:
        return 0.0
    probs = [label.prob_1 for label in labels]
    return max(max(probs) - min(probs), *(max(label.order_gap, float(label.flipped)) for label in labels))


def priority(prob: float | None, labels: Sequence[AILabel]) -> float:
    """Uncertainty and disagreement together, in [0, 2]; the queue begins with the greatest."""
    return uncertainty(prob) + disagreement(labels)


def audit_draw(pair_id: str) -> float:
    """A number in [0, 1) that is uniform over pairs and the same for a pair wherever it is computed.

    The pairs whose number is below the audit share are the random sample, reviewed in the order of their numbers. So
    what is reviewed of them at any time is itself a random sample, however uncertain the judge was.
    """
    return int(pair_id[:13], 16) / 16**13


def left_response(pair_id: str, reviewer: str) -> Number:
    """Which response (1 or 2) stands on the left for a reviewer: as by a coin, and the same each time."""
    return 1 if int(json_digest([pair_id, reviewer]), 16) % 2 else 2
