"""The best of several scored completions to a prompt: best of n, and rejection sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt

from rlaif_sdk.config import ConfigModel
from rlaif_sdk.config.base import Finite
from rlaif_sdk.conversations import view
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.types import TextOrConversation


class BestSettings(ConfigModel):
    """Which of a prompt's completions are kept: its best ones, or some that are drawn by their totals."""

    keep: PositiveInt = 1
    """How many of a prompt's completions, the best ones: one is best of n."""
    min_reward: Finite | None = None
    """Only those with at least this total."""
    drop_truncated: bool = True
    """Leave out truncated completions: they would teach to stop in the middle."""
    temperature: Annotated[Finite, Field(gt=0)] | None = None
    """Draw ``keep`` of them with odds of exp(total / this), as rejection sampling does: what is kept is as of the policy that
    PPO reaches with this as ``kl_coef``, the closer the more completions there are. Null takes the best."""


def choose_best(
    totals_K: Array,
    completions: Sequence[TextOrConversation],
    truncated: Sequence[bool],
    settings: BestSettings,
    draw: np.random.Generator,
) -> list[tuple[int, int]]:
    """Which of K completions to one prompt are kept.

    An unscored or empty completion is none of them, and equal ones count once. With a temperature they are drawn without
    replacement, by Gumbel noise (Kool et al. 2019); for one that is kept this is the aim of statistical rejection sampling
    (Liu et al. 2024), which never takes a completion that it has rejected.

    Args:
        totals_K: The totals; NaN where there is none.
        completions: The completions.
        truncated: Whether each reached the greatest length.
        settings: How many, and of what.
        draw: What completions are drawn with.

    Returns:
        (rank, place) each, the highest total first; the rank counts from 1 among those that might be kept.
    """
    floor = -math.inf if settings.min_reward is None else settings.min_reward
    eligible: list[int] = []
    for place in np.argsort(-totals_K, kind="stable").tolist():
        usable = totals_K[place] >= floor and not (settings.drop_truncated and truncated[place])
        if (
            usable
            and says_something(completions[place])
            and all(completions[place] != completions[other] for other in eligible)
        ):
            eligible.append(place)
    ranked = [*enumerate(eligible, start=1)]
    if settings.temperature is None or not ranked:
        return ranked[: settings.keep]
    keys_E = totals_K[eligible] / settings.temperature + draw.gumbel(size=len(eligible))
    chosen = np.argsort(-keys_E)[: settings.keep]
    return [ranked[index] for index in sorted(chosen.tolist())]


def says_something(completion: TextOrConversation) -> bool:
    """Whether there is anything to learn from: words, thinking or a call."""
    return view(completion, "transcript", thinking="keep").strip() != ""
