"""How well a model's beliefs about preference pairs fit the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rlaif_sdk.statistics.arrays import Array

BINS = 10
_CLIP = 1e-12
"""How near to 0 and 1 a probability may be: its log-odds stay finite."""


@dataclass(frozen=True, slots=True)
class ConfidenceBin:
    """The pairs whose confidence lies in one interval.

    Attributes:
        low: Least confidence.
        high: Greatest confidence, left out of every bin but the last.
        pairs: How many.
        confidence: Their mean confidence; NaN when there are none.
        accuracy: The mean probability that the labels give to the side that the model is confident of; likewise.
    """

    low: float
    high: float
    pairs: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a model's beliefs about pairs compare with their labels.

    Nothing of it depends on which completion of a pair is called the chosen one.

    Attributes:
        pairs: How many pairs were judged.
        error: The expected calibration error (Guo et al. 2017, arXiv:1706.04599), in [0, 1]: the mean over pairs of the
            distance between confidence and accuracy in their bin.
        agreement: Share of the pairs on which model and label favour the same completion, of those whose label favours
            one; where the model favours none, half counts. NaN when no label favours any.
        cross_entropy: Mean over the pairs of -label log(belief) - (1 - label) log(1 - belief), in nats. Margins play no
            part, and every pair counts once, however the pairs were batched.
        label_distance: Mean distance between the believed and the labelled probability, in [0, 1].
        bins: Intervals of equal width over confidences from 0.5 to 1.
    """

    pairs: int
    error: float
    agreement: float
    cross_entropy: float
    label_distance: float
    bins: Sequence[ConfidenceBin]

    def metrics(self) -> dict[str, float]:
        """The measures by the names that they are logged under."""
        return {
            "ece": self.error,
            "agreement": self.agreement,
            "cross_entropy": self.cross_entropy,
            "label_distance": self.label_distance,
        }


def calibrate(differences_B: ArrayLike, chosen_prob_B: ArrayLike, *, bins: int = BINS) -> Calibration:
    """Compare beliefs with labels.

    Args:
        differences_B: By how much the model puts the first of each pair ahead, in nats: its belief is the logistic.
        chosen_prob_B: The labels, in [0, 1].
        bins: Into how many intervals confidences from 0.5 to 1 are sorted.

    Raises:
        ValueError: There are no pairs, the shapes differ, or ``bins`` is below 1.
    """
    gaps_B, labels_B = np.asarray(differences_B, dtype=np.float64), np.asarray(chosen_prob_B, dtype=np.float64)
    if gaps_B.shape != labels_B.shape or gaps_B.ndim != 1 or not gaps_B.size:
        raise ValueError(f"beliefs and labels must be equally many and at least one: {gaps_B.shape}, {labels_B.shape}")
    if bins < 1:
        raise ValueError(f"there must be at least one bin, not {bins}")
    confidences_B = 1 / (1 + np.exp(-np.abs(gaps_B)))
    favoured_B = np.where(gaps_B > 0, labels_B, np.where(gaps_B < 0, 1 - labels_B, 0.5))
    table = _bins(confidences_B, favoured_B, bins)
    decided_B = labels_B != 0.5
    agrees_B = 0.5 * (1 + np.sign(gaps_B) * np.sign(labels_B - 0.5))
    return Calibration(
        pairs=gaps_B.size,
        error=sum(part.pairs * abs(part.confidence - part.accuracy) for part in table if part.pairs) / gaps_B.size,
        agreement=float(agrees_B[decided_B].mean()) if decided_B.any() else float("nan"),
        cross_entropy=float((np.logaddexp(0, -gaps_B) + (1 - labels_B) * gaps_B).mean()),
        label_distance=float(np.abs(np.where(gaps_B >= 0, confidences_B, 1 - confidences_B) - labels_B).mean()),
        bins=table,
    )


def calibrate_probs(probs_B: Array, chosen_prob_B: ArrayLike) -> Calibration:
    """The same of beliefs that are probabilities.

    Args:
        probs_B: How probable it is that the first of each pair is better, in [0, 1].
        chosen_prob_B: See `calibrate`.

    Raises:
        ValueError: As `calibrate`.
    """
    clipped_B = np.clip(probs_B, _CLIP, 1 - _CLIP)
    return calibrate(np.log(clipped_B / (1 - clipped_B)), chosen_prob_B)


def _bins(confidences_B: Array, favoured_B: Array, bins: int) -> tuple[ConfidenceBin, ...]:
    edges = np.linspace(0.5, 1.0, bins + 1)
    bin_B = np.minimum(np.searchsorted(edges, confidences_B, side="right") - 1, bins - 1)
    table = []
    for index in range(bins):
        inside_B = bin_B == index
        count = int(inside_B.sum())
        confidence = float(confidences_B[inside_B].mean()) if count else float("nan")
        accuracy = float(favoured_B[inside_B].mean()) if count else float("nan")
        table.append(ConfidenceBin(float(edges[index]), float(edges[index + 1]), count, confidence, accuracy))
    return tuple(table)
