"""The reward ``remote``: what a reward server says, asked over connections that are kept, with retries."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from rlaif_sdk.exceptions import ConfigError, RewardError, RewardOutputError
from rlaif_sdk.integrations.reward_params import RemoteParams
from rlaif_sdk.io.http import HttpError, JsonClient, Problem, json_body
from rlaif_sdk.rewards import Reward, ScoreLike, Scores
from rlaif_sdk.scoring.wire import json_plain
from rlaif_sdk.statistics.arrays import encode_groups
from rlaif_sdk.statistics.groups import parts_of_groups
from rlaif_sdk.types import Progress, RewardBatch, Score

_MAX_ANSWER = 64_000_000
_CONFIG_KEY: Mapping[Problem, str] = {
    "key": "params.api_key_env",
    "quota": "params.api_key_env",
    "redirect": "params.url",
}
"""Where the config has what concerns every row; any other problem is one of its rows."""


class Remote(Reward):
    """See `RemoteParams`.

    The rows of a request that comes to nothing have failed, the others keep their scores.

    Raises:
        ConfigError: The address is none; when scoring, the server refuses the key or sends us elsewhere.
    """

    name = "remote"
    reads_images = True

    def __init__(self, params: RemoteParams) -> None:
        self.params = params
        self.scope = params.scope
        self.higher_is_better = params.higher_is_better
        self.ends = ("worse", "better") if params.higher_is_better else ("better", "worse")
        self.cacheable = params.revision is not None
        self.revision = params.revision or ""
        label = params.label_column
        if params.protocol == "openrlhf":
            self.columns = self.inputs = () if label is None else (label,)
        elif params.columns is not None:
            self.columns = self.inputs = params.columns
        route = "/v1/score" if params.protocol == "native" else ""
        url = params.url.rstrip("/") + route
        self._client = JsonClient(
            url=url,
            server=f"the reward server {url}",
            extra="serve",
            api_key_env=params.api_key_env,
            timeout=params.timeout,
            attempts=params.attempts,
            max_retry_after=params.max_retry_after,
            concurrency=params.concurrency,
            max_body_bytes=_MAX_ANSWER,
        )

    def setup(self) -> None:
        try:
            self._client.check()
        except HttpError as error:
            raise _reward_error(error) from None

    async def score(self, batch: RewardBatch) -> Scores:
        parts = list(parts_of(batch, self.params.batch_size))
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(self._part(batch.select(rows))) for rows in parts]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        scores: list[ScoreLike] = [None] * len(batch)
        for rows, part in zip(parts, asked, strict=True):
            for row, answer in zip(rows, part.result(), strict=True):
                scores[row] = answer
        return scores

    async def _part(self, part: RewardBatch) -> list[ScoreLike]:
        ask, read = (_rows, _rows_said) if self.params.protocol == "native" else (_queries, _rewards_said)
        try:
            return read(await self._asked(ask(part, self.params)), len(part))
        except RewardError as error:
            return [Score.failed(str(error)) for _ in range(len(part))]

    async def _asked(self, body: Any) -> Any:
        try:
            data = json_body(body, default=json_plain)
        except (TypeError, ValueError) as error:
            raise RewardError(
                f"a row cannot be sent as JSON: {error}", hint="name the columns to send: params.columns"
            ) from None
        try:
            session = await self._client.session()
            return await self._client.tried(lambda: self._client.post(session, lambda: data))
        except HttpError as error:
            raise _reward_error(error) from None

    def close(self) -> None:
        self._client.close()


def _reward_error(error: HttpError) -> ConfigError | RewardError:
    if key := _CONFIG_KEY.get(error.problem):
        return ConfigError(str(error), key=key, hint=error.hint)
    return RewardError(str(error), hint=error.hint)


def parts_of(batch: RewardBatch, size: int) -> Iterator[list[int]]:
    """The rows of a batch in parts of at most ``size``, the rows of a group in one part whatever its size."""
    return parts_of_groups(encode_groups([None] * len(batch) if batch.group is None else batch.group), size)


def _rows(part: RewardBatch, params: RemoteParams) -> dict[str, Any]:
    names = part.columns if params.columns is None else params.columns
    labels = encode_groups(part.group)
    rows: list[dict[str, Any]] = []
    for row in range(len(part)):
        said: dict[str, Any] = {"prompt": part.prompts[row], "completion": part.completions[row]}
        if names:
            said["columns"] = {name: part.column(name)[row] for name in names}
        if labels is not None:
            said["group"] = int(labels[row])
        rows.append(said)
    asked: dict[str, Any] = {"rows": rows}
    if part.progress != Progress():
        asked["step"] = part.progress.step
    if not part.training:
        asked["training"] = False
    return asked


def _rows_said(answer: Any, rows: int) -> list[ScoreLike]:
    said = _list_in(answer, "rows", rows)
    return [_row_said(one) for one in said]


def _row_said(said: Any) -> ScoreLike:
    if not isinstance(said, dict) or "total" not in said:
        return Score.failed(f"the reward server says nothing of the row: {str(said)[:80]}")
    reason = said.get("reason")
    reason = reason if isinstance(reason, str) else None
    if said["total"] is None:
        abstained = said.get("status") == "abstained"
        return Score(None, reason) if abstained else Score.failed(reason or "the reward server gives no reason")
    return _number(said["total"], reason)


def _queries(part: RewardBatch, params: RemoteParams) -> dict[str, Any]:
    texts = zip(part.prompt_texts, part.completion_texts, strict=True)
    labels = [None] * len(part) if params.label_column is None else list(part.column(params.label_column))
    return {
        "query": [prompt + completion for prompt, completion in texts],
        "prompts": list(part.prompt_texts),
        "labels": labels,
    }


def _rewards_said(answer: Any, rows: int) -> list[ScoreLike]:
    said = _list_in(answer, "rewards", rows)
    reasons = answer.get("reasons")
    reasons = reasons if isinstance(reasons, list) and len(reasons) == rows else [None] * rows
    return [
        Score.failed(str(reason or "the reward server gives no reason")) if value is None else _number(value, None)
        for value, reason in zip(said, reasons, strict=True)
    ]


def _list_in(answer: Any, name: str, rows: int) -> list[Any]:
    said = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(said, list):
        raise RewardOutputError(f"the reward server's answer has no {name!r}: {str(answer)[:80]}")
    if len(said) != rows:
        raise RewardOutputError(f"the reward server answered {len(said)} rows where {rows} were asked about")
    return said


def _number(value: Any, reason: str | None) -> Score:
    largest = sys.float_info.max
    if isinstance(value, bool) or not isinstance(value, int | float) or not -largest <= value <= largest:
        return Score.failed(f"the reward server's number is {str(value)[:40]!r}")
    return Score(float(value), reason)
