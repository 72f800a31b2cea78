"""The results of a labelling job: a table that trainers of preferences take, and a table of what failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.types import TextOrConversation

PAIR_COLUMNS = ("prompt", "chosen", "rejected", "chosen_prob", "chosen_response")
LABEL_COLUMNS = (
    "prob_1",
    "prob_1_when_first",
    "prob_1_when_second",
    "flipped",
    "winning_place",
    "tie",
    "label_kind",
    "label_mass",
    "rationales",
    "flags",
    "judge",
    "usage",
)
PRINCIPLE_COLUMN = "principle"
"""In labels under a constitution alone."""


def labelled_row(
    prompt: TextOrConversation,
    response_1: TextOrConversation,
    response_2: TextOrConversation,
    label: Mapping[str, Any],
    judge: str,
) -> Row:
    """A row of the results: the pair with the likelier better response as ``chosen``, and the label.

    Responses in text to a prompt in messages become messages, as trainers want them.

    Args:
        prompt: What both answer.
        response_1: The first response.
        response_2: The second response.
        label: See `rlaif_sdk.judges.PairLabel.record`.
        judge: The labeler's fingerprint.
    """
    prob_1 = label["prob_1"]
    responses = [_like(prompt, response_1), _like(prompt, response_2)]
    chosen, rejected = responses if prob_1 >= 0.5 else responses[::-1]
    pair = (prompt, chosen, rejected, max(prob_1, 1 - prob_1), 1 if prob_1 >= 0.5 else 2)
    known = {name: judge if name == "judge" else label[name] for name in LABEL_COLUMNS}
    principle = {PRINCIPLE_COLUMN: label[PRINCIPLE_COLUMN]} if PRINCIPLE_COLUMN in label else {}
    return dict(zip(PAIR_COLUMNS, pair, strict=True)) | known | principle


def _like(prompt: TextOrConversation, response: TextOrConversation) -> TextOrConversation:
    if isinstance(response, str) and not isinstance(prompt, str):
        return [{"role": "assistant", "content": response}]
    return response
