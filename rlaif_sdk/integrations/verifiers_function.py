"""The reward ``verifiers``: a function in the convention of verifiers' rubrics, which scores one completion."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.integrations.builtin import VerifiersParams
from rlaif_sdk.references import load_reference
from rlaif_sdk.rewards import Reward, ScoreLike, Scores
from rlaif_sdk.types import RewardBatch, Score


class VerifiersFunction(Reward):
    """Calls ``f(prompt, completion, answer, state, info, **columns) -> float`` once a row, all rows at the same time.

    A row on which it raises has failed: in a rubric it would be scored 0. Functions of a whole group (those that take
    ``completions``) are refused.

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
        self._function = function
        self._arguments = params.arguments
        self._accepts = parameters.keys()
        self._accepts_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())

    async def score(self, batch: RewardBatch) -> Scores:
        return list(await asyncio.gather(*(self._score(self._offered(batch, row)) for row in range(len(batch)))))

    async def _score(self, offered: Mapping[str, Any]) -> ScoreLike:
        known = offered if self._accepts_any else {n: value for n, value in offered.items() if n in self._accepts}
        try:
            value = self._function(**known)
            if inspect.isawaitable(value):
                value = await value
        except Exception as error:  # noqa: BLE001 - a stranger's function may raise anything
            return Score.failed(f"{type(error).__name__}: {error}")
        return None if value is None else float(value)

    def _offered(self, batch: RewardBatch, row: int) -> dict[str, Any]:
        columns = {name: values[row] for name, values in batch.columns.items()}
        info = columns.get("info") or {}
        answer = columns.get("answer", "")
        told = {"prompt": batch.prompts[row], "completion": batch.completions[row], "answer": answer, "info": info}
        return {**columns, **told, "state": {**columns, **told}, **self._arguments}
