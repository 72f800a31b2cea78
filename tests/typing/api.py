"""How people write against the public names, for type checkers: `nox -s typecheck` reads it, nothing runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaif_sdk import (
    Composer,
    Normalizer,
    NormalizerSpec,
    Params,
    Reward,
    RewardBatch,
    RewardSpec,
    Score,
    hookimpl,
    reward,
)

if TYPE_CHECKING:  # a misspelt name is an error: where it were none, mypy would call the comment unused
    from rlaif_sdk import Compser  # type: ignore[attr-defined]  # noqa: F401


class LimitParams(Params):
    """Parameters of a reward."""

    limit: int = 60


class Brevity(Reward):
    """A reward as a plugin's author writes it."""

    def __init__(self, params: LimitParams) -> None:
        self.limit = params.limit

    def score(self, batch: RewardBatch) -> list[Score | float | None]:
        return [Score(1.0, reason="short") if len(text) < self.limit else None for text in batch.completion_texts]


@reward(range=(0.0, 1.0))
def lower(completion_texts: list[str]) -> list[float]:
    """A reward as a plain function."""
    return [float(text.islower()) for text in completion_texts]


@hookimpl
def rlaif_rewards() -> list[RewardSpec]:
    """A plugin's offer."""
    return [RewardSpec(name="brevity", factory=Brevity, params=LimitParams), RewardSpec.from_function(lower)]


def total_of_one_row(normalizer: type[Normalizer]) -> float:
    """A composition in a script."""
    NormalizerSpec(name="mine", factory=lambda _: normalizer())
    with Composer.from_config({"rewards": {"brevity": {"weight": 1.0}}}) as composer:
        composition = composer.compose(RewardBatch(prompts=["p"], completions=["c"]))
    return float(composition.totals[0])
