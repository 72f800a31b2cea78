"""What the page shows of a pair: texts in turns, left and right as this reviewer sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from rlaif_sdk.conversations import read, rendered
from rlaif_sdk.preferences.review.pairs import AILabel, Number, ReviewPair
from rlaif_sdk.preferences.review.queue import left_response
from rlaif_sdk.types import TextOrConversation

Side = Literal["left", "right"]


def shown_pair(pair: ReviewPair, reviewer: str, *, blind: bool, edits: Sequence[str] = ()) -> dict[str, Any]:
    """A pair as JSON for the page.

    Args:
        pair: The pair.
        reviewer: For whom.
        blind: Leave out what the judges said.
        edits: Better responses that the reviewer has written so far.
    """
    left = left_response(pair.id, reviewer)
    responses = {1: pair.response_1, 2: pair.response_2}
    return {
        "id": pair.id,
        "prompt": [] if pair.prompt is None else turns(pair.prompt),
        "left": turns(responses[left]),
        "right": turns(responses[3 - left]),
        "edits": list(edits),
        "ai": None if blind or pair.prob_1 is None else shown_labels(pair, reviewer),
    }


def shown_labels(pair: ReviewPair, reviewer: str) -> dict[str, Any]:
    """What the judges said, in terms of left and right."""
    left = left_response(pair.id, reviewer)
    preference = pair.ai_preference
    prob_1 = pair.prob_1
    return {
        "preference": preference if preference in (None, "tie") else side(int(preference), left),
        "prob_left": None if prob_1 is None else _prob_left(prob_1, left),
        "labels": [_shown_label(label, left) for label in pair.labels],
    }


def side(number: int, left: Number) -> Side:
    """Where a response stands, given which one stands on the left."""
    return "left" if number == left else "right"


def number(place: Side, left: Number) -> Number:
    """Which response stands there, given which one stands on the left."""
    other: Number = 2 if left == 1 else 1
    return left if place == "left" else other


def turns(value: TextOrConversation) -> list[dict[str, str | None]]:
    """Text or messages as turns with a role, which is None for text; thinking is shown, as people judge all of it."""
    if isinstance(value, str):
        return [{"role": None, "text": value}]
    return [{"role": turn.role, "text": rendered(turn, thinking="keep")} for turn in read(value)]


def _shown_label(label: AILabel, left: Number) -> dict[str, Any]:
    return {
        "judge": label.judge,
        "prob_left": _prob_left(label.prob_1, left),
        "flipped": label.flipped,
        "rationales": [
            {"text": each.text, "first": side(each.first, left) if each.first else None} for each in label.rationales
        ],
    }


def _prob_left(prob_1: float, left: Number) -> float:
    return prob_1 if left == 1 else 1 - prob_1
