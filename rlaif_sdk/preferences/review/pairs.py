"""A pair that people review, and in which order pairs are worth a person's time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from rlaif_sdk.conversations import read
from rlaif_sdk.exceptions import ConversationError, DataError
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.jsonl import Row, plain, row_as_json
from rlaif_sdk.io.tables import TableName, read_rows
from rlaif_sdk.io.text import listed
from rlaif_sdk.types import TextOrConversation

Number = Literal[1, 2]
Preference = Literal["1", "2", "tie"]
_TEXT_COLUMNS = {"prompt", "chosen", "rejected", "response_1", "response_2"}


@dataclass(frozen=True, slots=True)
class Rationale:
    """A judge's words, and which response stood first when it wrote them, or None where that is not known."""

    text: str
    first: Number | None = None


@dataclass(frozen=True, slots=True)
class AILabel:
    """What one judge said of a pair.

    Attributes:
        prob_1: Probability in [0, 1] that response 1 is better.
        order_gap: By how much that probability differs between the two orders, in [0, 1]; 0 where one was asked.
        flipped: The two orders prefer different responses.
        tie: It says that neither is better.
        rationales: Why.
        judge: Who.
    """

    prob_1: float
    order_gap: float = 0.0
    flipped: bool = False
    tie: bool = False
    rationales: tuple[Rationale, ...] = ()
    judge: str | None = None

    def swapped(self) -> AILabel:
        """The same label of the pair whose responses are numbered the other way."""
        other: Mapping[Number | None, Number | None] = {1: 2, 2: 1}
        rationales = tuple(Rationale(each.text, other.get(each.first)) for each in self.rationales)
        return replace(self, prob_1=1 - self.prob_1, rationales=rationales)


@dataclass(frozen=True, slots=True)
class ReviewPair:
    """A pair to review.

    Attributes:
        id: A digest of the texts, the same whichever response is number 1.
        prompt: What both answer, or None where the file has no such column.
        response_1: As the judge numbered it; in files without ``chosen_response``, the chosen one.
        response_2: The other.
        labels: What the judges said; several where several labelled it, none where none did.
        record: The columns of its row besides the texts.
    """

    id: str
    prompt: TextOrConversation | None
    response_1: TextOrConversation
    response_2: TextOrConversation
    labels: tuple[AILabel, ...]
    record: Row

    @property
    def prob_1(self) -> float | None:
        """The mean of the judges' probabilities that response 1 is better, or None without a label."""
        return math.fsum(label.prob_1 for label in self.labels) / len(self.labels) if self.labels else None

    @property
    def ai_preference(self) -> Preference | None:
        """What the judges prefer together, or None without a label."""
        prob_1 = self.prob_1
        if prob_1 is None:
            return None
        if prob_1 == 0.5 or all(label.tie for label in self.labels):
            return "tie"
        return "1" if prob_1 > 0.5 else "2"

    def with_labels_of(self, other: ReviewPair) -> ReviewPair:
        """This pair with another row's labels of it besides its own."""
        same = self.response_1 == other.response_1
        return replace(self, labels=self.labels + tuple(label if same else label.swapped() for label in other.labels))

    def to_json(self) -> str:
        """The pair as `from_json` reads it."""
        own = {
            field.name: getattr(self, field.name) for field in fields(self)
        }  # whose record nests as deep as a row may
        return json.dumps({**own, "labels": [asdict(label) for label in self.labels]}, default=plain)

    @classmethod
    def from_json(cls, text: str) -> ReviewPair:
        """The pair that `to_json` wrote."""
        pair = json.loads(text)
        labels = tuple(
            AILabel(**{**label, "rationales": tuple(Rationale(**each) for each in label["rationales"])})
            for label in pair["labels"]
        )
        return cls(**{**pair, "labels": labels})


def read_review_pairs(path: TableName) -> Iterator[ReviewPair]:
    """The pairs of a file: of labels, of ``chosen`` and ``rejected``, or of ``response_1`` and ``response_2``.

    Raises:
        DataError: A row is no pair; names the row.
    """
    for row, record in enumerate(read_rows(path), start=1):
        try:
            pair = _pair(record)
        except DataError as error:
            raise DataError(error.message, file=str(path), row=row, hint=error.hint) from error
        row_as_json(record, str(path), row)
        yield pair


def _pair(record: Row) -> ReviewPair:
    if record.get("chosen") is not None:
        names, prob = ("chosen", "rejected"), _probability(record, "chosen_prob", default=1.0)
        if record.get("chosen_response") == 2:
            names, prob = ("rejected", "chosen"), None if prob is None else 1 - prob
    else:
        names, prob = ("response_1", "response_2"), _probability(record, "prob_1", default=None)
    response_1, response_2 = (_text(record, name) for name in names)
    prompt = _text(record, "prompt") if record.get("prompt") is not None else None
    return ReviewPair(
        _digest(prompt, response_1, response_2),
        prompt,
        response_1,
        response_2,
        () if prob is None else (_label(record, prob),),
        {name: value for name, value in record.items() if name not in _TEXT_COLUMNS},
    )


def _digest(prompt: Any, response_1: Any, response_2: Any) -> str:
    return json_digest([json_digest(prompt), *sorted(map(json_digest, (response_1, response_2)))])


def _text(record: Row, name: str) -> TextOrConversation:
    if name not in record:
        hint = f"a pair has chosen and rejected, or response_1 and response_2; columns: {listed(record)}"
        raise DataError(f"has no column {name!r}", hint=hint)
    try:
        turns = read(record[name])
    except ConversationError as error:
        raise DataError(f"{name!r} cannot be read: {error}") from error
    if not turns:
        raise DataError(f"{name!r} has no messages")
    found: TextOrConversation = record[name]
    return found


def _probability(record: Row, name: str, *, default: float | None) -> float | None:
    value = record.get(name, default)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise DataError(f"{name!r} must be a probability in [0, 1], not {value!r}")
    return float(value)


def _label(record: Row, prob_1: float) -> AILabel:
    first, second = (_probability(record, f"prob_1_when_{place}", default=None) for place in ("first", "second"))
    asked_twice = first is not None and second is not None
    return AILabel(
        prob_1,
        order_gap=abs(first - second) if first is not None and second is not None else 0.0,
        flipped=bool(record.get("flipped")),
        tie=bool(record.get("tie")),
        rationales=_rationales(record, asked_twice=asked_twice),
        judge=str(record["judge"]) if record.get("judge") else None,
    )


def _rationales(record: Row, *, asked_twice: bool) -> tuple[Rationale, ...]:
    """With both orders asked, the first half was written with response 1 in the first place."""
    texts = [text for text in record.get("rationales") or () if isinstance(text, str)]
    if not asked_twice:
        return tuple(Rationale(text, 1) for text in texts)
    half = len(texts) // 2
    known = len(texts) % 2 == 0 and "samples_failed" not in (record.get("flags") or ())
    return tuple(Rationale(text, (1 if index < half else 2) if known else None) for index, text in enumerate(texts))


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
