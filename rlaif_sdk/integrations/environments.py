"""An environment's own reward as one of ours: what TRL's environments say of a rollout, as the reward ``environment``."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Sequence
from typing import Any

from rlaif_sdk.exceptions import exception_text
from rlaif_sdk.io.run_async import run_async
from rlaif_sdk.rewards import Reward, ScoreLike, Scores
from rlaif_sdk.types import RewardBatch, Score

COLUMN = "environment_reward"
"""The column that an adapter fills with what each row's environment says: a number, None of one that says nothing, or
why there is no number, as a text."""


class EnvironmentReward(Reward):
    """What the environment of each rollout says of it; abstains where there is no environment, or it says nothing."""

    name = "environment"
    reads_images = True
    inputs = (COLUMN,)
    ends = ("worse", "better")

    def score(self, batch: RewardBatch) -> Scores:
        return [_score(said) for said in batch.columns.get(COLUMN, [None] * len(batch))]


def _score(said: Any) -> ScoreLike:
    if said is None:
        return Score(None, reason="no environment says anything of this row")
    return Score.failed(said) if isinstance(said, str) else said


def own_rewards(environments: Sequence[Any], loop: asyncio.AbstractEventLoop | None = None) -> list[float | str | None]:
    """What each of B environments says of the rollout that it has just had, for `COLUMN`.

    Args:
        environments: Of TRL's kind: one that has a ``get_reward``, plain or ``async``, is asked by it.
        loop: Where those run that are ``async``, beside their tools; a loop of their own without it.
    """
    said = [_asked(environment) for environment in environments]
    waiting = [row for row, value in enumerate(said) if inspect.isawaitable(value)]
    if waiting:
        together = _together([said[row] for row in waiting])
        answers = asyncio.run_coroutine_threadsafe(together, loop).result() if loop else run_async(together)
        for row, answer in zip(waiting, answers, strict=True):
            said[row] = answer
    return [_number(value) for value in said]


def _asked(environment: Any) -> Any:
    try:
        return environment.get_reward() if hasattr(environment, "get_reward") else None
    except Exception as error:  # noqa: BLE001 - whatever an environment raises is a failure of its row
        return error


async def _together(coroutines: Sequence[Awaitable[Any]]) -> list[Any]:
    return await asyncio.gather(*coroutines, return_exceptions=True)


def _number(value: Any) -> float | str | None:
    if value is None:
        return None
    if isinstance(value, BaseException):
        return f"the environment's get_reward raised {exception_text(value)}"
    if not isinstance(value, (str, bytes)) and hasattr(value, "__float__"):
        with contextlib.suppress(Exception):  # an array of several has it too
            return float(value)
    return f"the environment's get_reward returned {value!r:.60}, which is no number"
