"""The reward ``verifiers``: a function in the convention of verifiers' rubrics, which scores one completion."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.io.digests import code_digest
from rlaif_sdk.plugins.references import load_reference
from rlaif_sdk.rewards import Params, Reward, ScoreLike, Scores
from rlaif_sdk.types import RewardBatch, Score


class VerifiersParams(Params):
    """A reward function of the verifiers library."""

    function: str
    """``package.module:function`` or ``path/to/file.py:function``, which takes any of prompt, completion, answer, state,
    info and the columns."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further arguments, such as a parser's settings."""


class VerifiersFunction(Reward):
    """Calls ``f(prompt, completion, answer, state, info, **columns) -> float`` once a row.

    Coroutines of all rows run at the same time. A plain function is called row by row in the reward's own thread, so that
    one that blocks holds up no other reward. A row on which it raises has failed: in a rubric it would be scored 0.
    Functions of a whole group (those that take ``completions``) are refused. One whose code nothing identifies (a partial
    that binds an object, say) has no revision, and a ledger keeps none of its scores.

    Raises:
        ConfigError: There is no such function, or it scores a group.
    """

    name = "verifiers"

    def __init__(self, params: VerifiersParams) -> None:
        function = load_reference(params.function, Path())
        if not callable(function):
            raise ConfigError(f"{params.function!r} is no function", key="params.function")
        parameters = inspect.signature(function).parameters
        plural = {"prompts", "completions", "answers", "states", "tasks", "infos"} & parameters.keys()
        if plural:
            raise ConfigError(
                f"{params.function!r} scores a group: it takes {', '.join(sorted(plural))}",
                key="params.function",
                hint="use a function of one completion",
            )
        self.revision = code_digest(function)  # it is the function's code that scores, and a ledger must know it
        self.cacheable = bool(self.revision)
        self._function = function
        self._arguments = params.arguments
        self._accepts = parameters.keys()
        self._accepts_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())

    def score(self, batch: RewardBatch) -> Scores | Awaitable[Scores]:
        answers = [self._called(self._offered(batch, row)) for row in range(len(batch))]
        return _awaited(answers) if any(map(inspect.isawaitable, answers)) else answers

    def _called(self, offered: Mapping[str, Any]) -> Any:
        """A row's score, or what is to be awaited for it."""
        known = offered if self._accepts_any else {n: value for n, value in offered.items() if n in self._accepts}
        try:
            value = self._function(**known)
            return value if inspect.isawaitable(value) else _score(value)
        except Exception as error:  # noqa: BLE001 - a stranger's function may raise anything
            return _failed(error)

    def _offered(self, batch: RewardBatch, row: int) -> dict[str, Any]:
        columns = {name: values[row] for name, values in batch.columns.items()}
        info = columns.get("info") or {}
        answer = columns.get("answer", "")
        told = {"prompt": batch.prompts[row], "completion": batch.completions[row], "answer": answer, "info": info}
        return {**columns, **told, "state": {**columns, **told}, **self._arguments}


async def _awaited(answers: Sequence[Any]) -> Scores:
    return list(await asyncio.gather(*map(_awaited_score, answers)))


async def _awaited_score(answer: Any) -> ScoreLike:
    if not inspect.isawaitable(answer):
        scored: ScoreLike = answer
        return scored
    try:
        return _score(await answer)
    except Exception as error:  # noqa: BLE001 - as above
        return _failed(error)


def _score(value: Any) -> float | None:
    return None if value is None else float(value)


def _failed(error: Exception) -> Score:
    return Score.failed(f"{type(error).__name__}: {error}")
