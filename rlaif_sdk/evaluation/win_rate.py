"""Who wins between two policies: win rate, expected win rate, and both at equal length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlaif_sdk.evaluation.label_table import LabelTable, read_labels
from rlaif_sdk.evaluation.length_control import length_controlled
from rlaif_sdk.statistics.estimates import Estimate, bootstrap_mean, wilson


@dataclass(frozen=True, slots=True)
class WinRate:
    """How often the responses of one policy are preferred to those of another.

    Attributes:
        policies: The two, the one first whose wins are counted.
        wins: Pairs that it won.
        losses: Pairs that it lost.
        ties: Pairs with no winner; each counts half.
        rate: The win rate with Wilson's interval.
        rate_over_prompts: The same with a bootstrap over prompts: for several pairs a prompt.
        probability: The mean probability that its response is the better one; bootstrap over prompts.
        length_controlled: The win rate at equal length, by the regression on the difference of lengths.
        length_controlled_by_ratio: The same by the regression on their ratio.
        mean_lengths: The mean length of both policies' responses in characters.
        flip_rate: The share of pairs whose winner changes with the order, by the judge; None where one was asked.
    """

    policies: tuple[str, str]
    wins: int
    losses: int
    ties: int
    rate: Estimate
    rate_over_prompts: Estimate
    probability: Estimate
    length_controlled: Estimate
    length_controlled_by_ratio: Estimate
    mean_lengths: tuple[float, float]
    flip_rate: Estimate | None

    def record(self) -> dict[str, Any]:
        """The figures as a JSON-ready mapping."""
        figures = ("rate", "rate_over_prompts", "probability", "length_controlled", "length_controlled_by_ratio")
        return {
            "policies": list(self.policies),
            "wins": self.wins,
            "losses": self.losses,
            "ties": self.ties,
            **{name: getattr(self, name).record() for name in figures},
            "mean_lengths": list(self.mean_lengths),
            "flip_rate": self.flip_rate.record() if self.flip_rate else None,
        }


def win_rate(
    labels: str | Path | LabelTable, policies: Sequence[str] = ("policy 1", "policy 2"), *, confidence: float = 0.95
) -> WinRate:
    """The win rate of the policy that wrote every response 1 over the one that wrote every response 2.

    Args:
        labels: What `rlaif label` wrote, what `rlaif review` exported (people's decisions then count before the
            judge's), or a table already read.
        policies: Their names.
        confidence: Of the intervals.

    Raises:
        DataError: A row is no label; names the row.
    """
    table = labels if isinstance(labels, LabelTable) else read_labels(labels)
    outcomes_N, prompts_N, lengths_N2 = table.outcomes_N, table.prompts_N, table.lengths_N2
    asked_N = ~np.isnan(table.when_first_N) & ~np.isnan(table.when_second_N)
    flipped_N = (table.when_first_N[asked_N] - 0.5) * (table.when_second_N[asked_N] - 0.5) < 0
    one, other = policies
    first_length, second_length = lengths_N2.mean(axis=0).tolist()
    return WinRate(
        policies=(one, other),
        wins=int((outcomes_N == 1).sum()),
        losses=int((outcomes_N == 0).sum()),
        ties=int((outcomes_N == 0.5).sum()),
        rate=wilson(float(outcomes_N.sum()), len(table), confidence),
        rate_over_prompts=bootstrap_mean(outcomes_N, prompts_N, confidence=confidence),
        probability=bootstrap_mean(table.decided_prob_1_N, prompts_N, confidence=confidence),
        length_controlled=length_controlled(outcomes_N, lengths_N2, prompts_N, confidence=confidence),
        length_controlled_by_ratio=length_controlled(
            outcomes_N, lengths_N2, prompts_N, feature="ratio", confidence=confidence
        ),
        mean_lengths=(first_length, second_length),
        flip_rate=wilson(int(flipped_N.sum()), int(asked_N.sum()), confidence) if asked_N.any() else None,
    )
