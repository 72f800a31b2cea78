"""The self-rewarding score of DLMA: which of two answers a model itself finds better, read from contrasting prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator

from rlaif_sdk.config import ConfigModel
from rlaif_sdk.judges.backends import RowError
from rlaif_sdk.preferences.policy import LocalPolicy
from rlaif_sdk.types import TextOrConversation


class MarginConfig(ConfigModel):
    """How a self-rewarding score becomes the margin of a pair."""

    low: float = Field(default=-40.0, allow_inf_nan=False)
    """The least score that counts, in nats; a lower one is set to it."""
    high: float = Field(default=40.0, allow_inf_nan=False)
    """The greatest score that counts, in nats."""
    scale: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    """Nats of margin per nat of score."""

    @model_validator(mode="after")
    def _ordered(self) -> MarginConfig:
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) is above high ({self.high:g})")
        return self


@dataclass(frozen=True, slots=True)
class ContrastingLogprobs:
    """How likely two answers are under two contrasting prompts, in nats, summed over tokens.

    Attributes:
        first_positive: log pi(a1 | p+), p+ being the prompt that asks for the virtue.
        first_negative: log pi(a1 | p-), p- being the one that asks for its opposite.
        second_positive: log pi(a2 | p+).
        second_negative: log pi(a2 | p-).
    """

    first_positive: float
    first_negative: float
    second_positive: float
    second_negative: float

    @property
    def score(self) -> float:
        """R = log [pi(a1|p+) / pi(a1|p-)] - log [pi(a2|p+) / pi(a2|p-)] (Liu et al. 2024, arXiv 2402.11907), in nats.

        Above 0 where the model finds a1 to have more of the virtue.
        """
        return (self.first_positive - self.first_negative) - (self.second_positive - self.second_negative)

    def record(self) -> dict[str, float]:
        """The four numbers as a JSON-ready mapping."""
        return {name: getattr(self, name) for name in self.__slots__}


def self_rewarding_margin(score: float, settings: MarginConfig) -> float:
    """The margin that DLMA's DPO takes from the reward difference: the score clipped, then scaled; in nats."""
    return settings.scale * min(max(score, settings.low), settings.high)


async def contrasting_logprobs(
    policy: LocalPolicy, pairs: Sequence[tuple[TextOrConversation, TextOrConversation, str, str]]
) -> list[ContrastingLogprobs | RowError]:
    """Ask a model how likely both answers of B pairs are under both prompts.

    Args:
        policy: The model.
        pairs: p+, p-, a1 and a2 each.

    Returns:
        B entries; an error stands for a pair that is too long.
    """
    asked = [
        (prompt, answer)
        for positive, negative, first, second in pairs
        for answer in (first, second)
        for prompt in (positive, negative)
    ]
    found: list[ContrastingLogprobs | RowError] = []
    logprobs = iter(await policy.answer_logprobs(asked))
    for four in zip(logprobs, logprobs, logprobs, logprobs, strict=True):
        error = next((value for value in four if isinstance(value, RowError)), None)
        numbers: Any = four
        found.append(error or ContrastingLogprobs(*numbers))
    return found
