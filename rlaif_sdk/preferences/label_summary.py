"""Figures over labels: how often the order decided, how often there was a tie, what it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlaif_sdk.judges.usage import NOTHING, Usage


@dataclass
class LabelSummary:
    """Counts over labels, taken in one at a time.

    Attributes:
        pairs: Pairs in the file.
        labelled: Pairs with a label.
        asked_twice: Labels whose two orders were asked.
        first_wins: Of these, how often the first place won in both orders.
        second_wins: How often the second place did.
        ties: Labels that prefer neither.
        hard: Labels that are verdicts and no probabilities.
        flagged: Labels that carry a flag.
        usage: What all requests took, those of failed pairs included.
    """

    pairs: int = 0
    labelled: int = 0
    asked_twice: int = 0
    first_wins: int = 0
    second_wins: int = 0
    ties: int = 0
    hard: int = 0
    flagged: int = 0
    usage: Usage = NOTHING

    def add(self, label: Mapping[str, Any] | None) -> None:
        """Take in the record of a label (`PairLabel.record`), or None for a pair without one."""
        self.pairs += 1
        if label is None:
            return
        self.labelled += 1
        self.asked_twice += label["flipped"] is not None
        self.first_wins += label["winning_place"] == "first"
        self.second_wins += label["winning_place"] == "second"
        self.ties += label["tie"]
        self.hard += label["label_kind"] == "hard"
        self.flagged += bool(label["flags"])

    @property
    def failed(self) -> int:
        """Pairs without a label."""
        return self.pairs - self.labelled

    @property
    def flip_rate(self) -> float | None:
        """The share of pairs, of those asked in both orders, whose preferred response changes with the order.

        It is the position bias of Lee et al. 2023: with two places, another response wins exactly when the same place
        does. `first_wins` and `second_wins` say which. None where no pair was asked twice.
        """
        return (self.first_wins + self.second_wins) / self.asked_twice if self.asked_twice else None

    def record(self) -> dict[str, Any]:
        """The figures as a JSON-ready mapping."""
        twice = self.asked_twice
        return {
            "pairs": self.pairs,
            "labelled": self.labelled,
            "failed": self.failed,
            "flip_rate": self.flip_rate,
            "position_bias": {
                "first": self.first_wins / twice if twice else None,
                "second": self.second_wins / twice if twice else None,
            },
            "asked_in_both_orders": twice,
            "ties": self.ties,
            "hard": self.hard,
            "flagged": self.flagged,
            "usage": self.usage.record(),
            "cost_per_label": self._cost_per_label(),
        }

    def _cost_per_label(self) -> float | None:
        cost = self.usage.cost
        return cost / self.labelled if cost is not None and self.labelled else None
