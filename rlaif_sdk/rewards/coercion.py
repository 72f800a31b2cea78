"""Whatever can score, as a `Reward`."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, ClassVar

from rlaif_sdk.rewards.contract import Reward, Scores
from rlaif_sdk.rewards.functions import FunctionReward
from rlaif_sdk.types import RewardBatch


class _DuckReward(Reward):
    """Anything with a ``score(batch)`` method, with defaults for what it does not say."""

    _optional: ClassVar = ("version", "range", "columns", "higher_is_better", "ends", "inputs", "scope", "cacheable")

    def __init__(self, scorer: Any) -> None:
        self._scorer = scorer
        self.name = getattr(scorer, "name", "") or type(scorer).__name__
        for attribute in self._optional:
            if hasattr(scorer, attribute):
                setattr(self, attribute, getattr(scorer, attribute))

    def setup(self) -> None:
        getattr(self._scorer, "setup", lambda: None)()

    def score(self, batch: RewardBatch) -> Scores | Awaitable[Scores]:
        result: Scores | Awaitable[Scores] = self._scorer.score(batch)
        return result

    def close(self) -> None:
        getattr(self._scorer, "close", lambda: None)()


def unwrapped(reward: Reward) -> Any:
    """The object that its author made: for one that is no `Reward` itself, that which `as_reward` was given."""
    return reward._scorer if isinstance(reward, _DuckReward) else reward  # noqa: SLF001 - of this module


def stated_by(reward: Reward) -> dict[str, str]:
    """What a reward states of itself: ``version``, and ``revision`` or an empty text. Some know it after setup only."""
    target = unwrapped(reward)
    return {
        "version": str(getattr(target, "version", None) or Reward.version),
        "revision": str(getattr(target, "revision", None) or ""),
    }


def is_reward_class(value: Any) -> bool:
    """Whether a value is a class whose instances have ``score(batch)``."""
    return isinstance(value, type) and callable(getattr(value, "score", None))


def as_reward(value: Any) -> Reward:
    """A `Reward` from a `Reward`, a function, a duck-typed object, or a class of either without required arguments.

    Raises:
        TypeError: It is none of these.
    """
    if is_reward_class(value):
        value = value()
    if isinstance(value, Reward):
        return value
    if callable(getattr(value, "score", None)):
        return _DuckReward(value)
    if callable(value) and not isinstance(value, type):
        return FunctionReward(value)
    raise TypeError(f"{value!r} is no reward: it needs a score(batch) method, or be f(prompts, completions, **columns)")
