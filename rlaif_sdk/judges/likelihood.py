"""Verdicts by the likelihood of each score: direct RLAIF (Lee et al. 2023, arXiv 2309.00267, section 2.2.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from rlaif_sdk.exceptions import JudgeResponseError
from rlaif_sdk.judges.backends import JudgeBackend, LabelLogprobs, RowError, charged
from rlaif_sdk.judges.prompts import Scale
from rlaif_sdk.types import Conversation, Score

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class LikelihoodVerdict:
    """Reads how likely each of the K scores is, and takes the expected one.

    Args:
        scale: The scores.
        labels: ``letters`` (A is the lowest score; each is a single token) or ``numbers`` (scored as whole
            continuations, since "10" is not one token everywhere; local models only).
    """

    version = "1"

    def __init__(self, scale: Scale, labels: Literal["letters", "numbers"] = "letters") -> None:
        self._scale = scale
        self._labels_K = tuple(
            _LETTERS[index] if labels == "letters" else str(point) for index, point in enumerate(scale.points)
        )
        by = f"from {scale.low} (worst) to {scale.high} (best)"
        legend = ", ".join(f"{label} = {point}" for label, point in zip(self._labels_K, scale.points, strict=True))
        self.instruction = (
            f"Rate the answer on a scale {by}. Reply with one letter and nothing else: {legend}."
            if labels == "letters"
            else f"Rate the answer with a whole number {by}. Reply with the number and nothing else."
        )

    async def ask(self, backend: JudgeBackend, requests: Sequence[Conversation]) -> list[Score | RowError]:
        """The scores of B requests, each in [-1, 1] with the distribution in its details."""
        replies = await backend.label_logprobs(requests, self._labels_K)
        return [charged(self._score(reply), reply) if isinstance(reply, LabelLogprobs) else reply for reply in replies]

    def _score(self, reply: LabelLogprobs) -> Score | RowError:
        if len(reply.logprobs) != len(self._labels_K) or any(
            math.isnan(value) or value > 0 for value in reply.logprobs
        ):
            return JudgeResponseError(f"the judge's backend gave no log-probability for each label: {reply.logprobs}")
        label_mass = math.fsum(math.exp(value) for value in reply.logprobs)
        if label_mass == 0:
            return JudgeResponseError("the judge gives none of its labels any probability")
        distribution_K, expected = expected_score(reply.logprobs, self._scale.points)
        points = dict(zip(self._labels_K, self._scale.points, strict=True))
        return Score(
            value=self._scale.to_unit(expected),
            details={
                "expected": expected,
                "distribution": {
                    str(point): probability
                    for point, probability in zip(self._scale.points, distribution_K, strict=True)
                },
                "label_mass": label_mass,
                "bounded": [points[label] for label in reply.bounded],
                "flags": [*reply.flags, *(["bounded"] if reply.bounded else [])],
                "usage": reply.usage.record(),
            },
        )


def expected_score(logprobs_K: Sequence[float], points_K: Sequence[float]) -> tuple[list[float], float]:
    """The normalised distribution over K scores, and its mean s = sum_i i P(i).

    Args:
        logprobs_K: Log-probabilities, at least one of them finite; they need not sum to one.
        points_K: The scores.
    """
    greatest = max(logprobs_K)
    weights_K = [math.exp(logprob - greatest) for logprob in logprobs_K]
    total = math.fsum(weights_K)
    distribution_K = [weight / total for weight in weights_K]
    mean = math.fsum(point * probability for point, probability in zip(points_K, distribution_K, strict=True))
    return distribution_K, min(max(mean, min(points_K)), max(points_K))
