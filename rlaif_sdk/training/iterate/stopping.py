"""When a loop ends, and which of its rounds is the best: decided from the rounds' evaluations alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlaif_sdk.training.iterate.config import StopSettings


@dataclass(frozen=True, slots=True)
class RoundMetrics:
    """What the held-out prompts say of a round's policy.

    Attributes:
        total: The mean composed reward; NaN when no answer was scored.
        rewards: Each reward's mean, higher being better; NaN likewise.
        kl: Divergence from the starting model, in nats an answer.
    """

    total: float
    rewards: Mapping[str, float]
    kl: float


@dataclass(frozen=True, slots=True)
class StopDecision:
    """Whether a loop ends, and its best round so far.

    Attributes:
        best: The round of the best policy within the limits; 0 is the starting model.
        stale: How many rounds in a row have brought no improvement.
        end: Why the loop ends, or None.
    """

    best: int
    stale: int
    end: str | None


def decide_stop(rounds: Sequence[RoundMetrics], stop: StopSettings) -> StopDecision:
    """Decide whether a loop ends after some rounds, and which is the best.

    Args:
        rounds: The figures of the starting model, and of each round since.
        stop: The rule.
    """
    best, stale = 0, 0
    for number, figures in enumerate(rounds[1:], start=1):
        # a best that has no figure is beaten by any that has one
        threshold = -math.inf if math.isnan(rounds[best].total) else rounds[best].total + stop.min_improvement
        improved = figures.total > threshold and _breach(figures, rounds[0], stop) is None
        best, stale = (number, 0) if improved else (best, stale + 1)
    return StopDecision(best, stale, _end(rounds, stale, stop))


def _end(rounds: Sequence[RoundMetrics], stale: int, stop: StopSettings) -> str | None:
    last = rounds[-1]
    breach = _breach(last, rounds[0], stop)
    if breach is not None:
        return breach
    if stop.target is not None and last.total >= stop.target:
        return f"the composed reward {last.total:.4g} has reached the target {stop.target:g}"
    if stop.patience is not None and stale >= stop.patience:
        return f"no improvement in {stale} round{'s' * (stale > 1)}"
    if len(rounds) > stop.rounds:
        return f"all {stop.rounds} rounds are done" if stop.rounds > 1 else "the one round is done"
    return None


def _breach(figures: RoundMetrics, start: RoundMetrics, stop: StopSettings) -> str | None:
    if stop.max_kl is not None and not figures.kl <= stop.max_kl:
        return f"the divergence of {figures.kl:.4g} nats an answer exceeds max_kl {stop.max_kl:g}"
    for name, limit in stop.max_regression.items():
        loss = start.rewards[name] - figures.rewards[name]
        if loss > limit:
            return f"the reward {name!r} is worse by {loss:.4g} than at the start, more than {limit:g}"
    return None
