"""Pairs of responses, and what a judge says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlaif_sdk.judges.usage import NOTHING, Usage
from rlaif_sdk.types import TextOrConversation


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to one prompt, each text or messages."""

    prompt: TextOrConversation
    response_1: TextOrConversation
    response_2: TextOrConversation


@dataclass(frozen=True, slots=True)
class PairLabel:
    """How likely the first of two responses is the better one.

    Attributes:
        prob_1: Probability that response 1 is better, the orders averaged; None: unlabelled, and ``error`` says why.
        prob_1_when_first: The same when response 1 stood in the first place; None where the judge was not asked.
        prob_1_when_second: The same when it stood in the second; None where that was not asked.
        rationales: Why, in the judge's words.
        hard: The label is a verdict and no probability of the model.
        tie: Neither is better.
        flags: What was found on the way: ``identical``, ``response_1_contentless``, ``bounded`` and so on.
        label_mass: The least probability that both labels had together before they were normalised; None where no
            probabilities were read. A small one says that the judge wanted to say something else.
        usage: What the label took.
        principle: The principle of a constitution under which it was made, or None.
        error: Why there is none.
        kind: The class of the error.
    """

    prob_1: float | None
    prob_1_when_first: float | None = None
    prob_1_when_second: float | None = None
    rationales: tuple[str, ...] = ()
    hard: bool = False
    tie: bool = False
    flags: tuple[str, ...] = ()
    label_mass: float | None = None
    usage: Usage = NOTHING
    principle: str | None = None
    error: str | None = None
    kind: str | None = None

    @property
    def winning_place(self) -> Literal["first", "second"] | None:
        """The place that won in both orders, where the judge followed the place and not the response; None otherwise."""
        when_first, when_second = self.prob_1_when_first, self.prob_1_when_second
        if when_first is None or when_second is None or (when_first - 0.5) * (when_second - 0.5) >= 0:
            return None
        return "first" if when_first > when_second else "second"

    @property
    def flipped(self) -> bool | None:
        """Whether the two orders prefer different responses; None where one order was asked."""
        if self.prob_1_when_first is None or self.prob_1_when_second is None:
            return None
        return self.winning_place is not None

    def record(self) -> dict[str, Any]:
        """The label as a JSON-ready mapping; of a pair that is unlabelled, the error."""
        usage = self.usage.record()
        if self.prob_1 is None:
            return {"error": self.error, "kind": self.kind, "flags": list(self.flags), "usage": usage}
        return {
            "prob_1": self.prob_1,
            "prob_1_when_first": self.prob_1_when_first,
            "prob_1_when_second": self.prob_1_when_second,
            "flipped": self.flipped,
            "winning_place": self.winning_place,
            "tie": self.tie,
            "label_kind": "hard" if self.hard else "soft",
            "label_mass": self.label_mass,
            "rationales": list(self.rationales),
            "flags": list(self.flags),
            "usage": usage,
            **({"principle": self.principle} if self.principle else {}),
        }


def labelled(prob_1_by_order: Sequence[float], *, tie_margin: float = 0.0, **fields: Any) -> PairLabel:
    """The label that one or two orders make: their mean.

    Args:
        prob_1_by_order: Probability that response 1 is better when it stands first and, if asked, when it stands
            second.
        tie_margin: A mean this close to 0.5 is a tie.
        **fields: Of `PairLabel`.
    """
    mean = sum(prob_1_by_order) / len(prob_1_by_order)
    second = prob_1_by_order[1] if len(prob_1_by_order) > 1 else None
    return PairLabel(mean, prob_1_by_order[0], second, tie=abs(mean - 0.5) <= tie_margin, **fields)


def unlabelled(error: str, *, kind: str = "JudgeResponseError", **fields: Any) -> PairLabel:
    """A pair that got no label."""
    return PairLabel(None, error=error, kind=kind, **fields)
