"""Judges behind any server that speaks the OpenAI chat completions protocol."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Literal, TypeVar

from rlaif_sdk.config import LimitsConfig
from rlaif_sdk.conversations import chat_messages, read
from rlaif_sdk.exceptions import ConfigError, JudgeConnectionError, JudgeResponseError
from rlaif_sdk.judges.backends.base import GeneratedText, LabelLogprobs, RowError
from rlaif_sdk.judges.backends.openai_replies import (
    TransientError,
    choice_of,
    label_logprobs_of,
    parse_reply,
    text_of,
    usage_in,
)
from rlaif_sdk.judges.backends.openai_sessions import Client, Session, Sessions
from rlaif_sdk.judges.usage import NOTHING, Prices, Usage
from rlaif_sdk.scoring.limits import RateLimits
from rlaif_sdk.types import Conversation

T = TypeVar("T")
ReplyT = TypeVar("ReplyT", LabelLogprobs, GeneratedText)
Reader = Callable[[dict[str, Any], tuple[str, ...]], ReplyT]
TokenLimit = Literal["max_tokens", "max_completion_tokens"]

_ROLE_MARKER = re.compile(
    r"<(?=[|\uff5c][^<>]{1,60}[|\uff5c]>|(?:start|end)_of_turn>|/?s>|/?think>|</?SYS>>)|\[(?=/?INST\])", re.IGNORECASE
)
"""The first character of special tokens in common chat templates."""


class OpenAIBackend:
    """A model behind an OpenAI-compatible server.

    Label probabilities are read from the first token's ``top_logprobs``. Servers apply the chat template themselves,
    and some obey special tokens inside a message: those of common templates are broken by a space, and the answer is
    flagged ``markers_defused``.

    Args:
        model: The model's name at the server.
        base_url: The server's address, up to and including ``/v1``.
        api_key_env: The environment variable that has the key; None for a server without keys.
        concurrency: The most requests in flight.
        timeout: Seconds for one attempt, from connecting to the last byte.
        attempts: The most attempts for one request.
        max_retry_after: The most seconds to wait where the server says how long.
        top_logprobs: How many of the first token's alternatives to ask for; most servers allow 20.
        max_body_bytes: The longest answer that is read.
        limit_field: The field that limits an answer's tokens; newer models take ``max_completion_tokens`` alone.
        requests_per_minute: The most requests begun in any 60 seconds, retries included.
        tokens_per_minute: The most tokens in any 60 seconds, as the server counts them; a request is estimated by its
            length until it is answered.
        prices: What the server charges, for the cost in each answer's usage.
        extra_body: Further fields of every request.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        api_key_env: str | None = None,
        concurrency: int = 64,
        timeout: float = 120.0,
        attempts: int = 5,
        max_retry_after: float = 60.0,
        top_logprobs: int = 20,
        max_body_bytes: int = 4_000_000,
        limit_field: TokenLimit = "max_tokens",
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        prices: Prices | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        self.concurrency = concurrency
        self._model = model
        self._base_url = base_url
        self._timeout = timeout
        self._attempts = attempts
        self._max_retry_after = max_retry_after
        self._top_logprobs = top_logprobs
        self._max_body_bytes = max_body_bytes
        self._limit_field = limit_field
        self._limits = RateLimits(
            LimitsConfig(requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute)
        )
        self._prices = prices
        self._extra_body = dict(extra_body or {})
        self._sessions = Sessions(base_url, api_key_env=api_key_env, concurrency=concurrency)

    @property
    def identity(self) -> str:
        """Address, model and extra fields. What a server calls by one name may change behind it."""
        return f"openai:{self._base_url}:{self._model}:{sorted(self._extra_body.items())}"

    def setup(self) -> None:
        """Check the key and the libraries; no request is sent."""
        self._sessions.check()

    def close(self) -> None:
        """Close connections that belong to loops still running; the others closed with their loops."""
        self._sessions.close()

    async def label_logprobs(
        self, requests: Sequence[Conversation], labels: Sequence[str]
    ) -> Sequence[LabelLogprobs | RowError]:
        """See `JudgeBackend.label_logprobs`.

        Raises:
            ConfigError: One label begins another.
        """
        if any(a != b and b.startswith(a) for a in labels for b in labels):
            raise ConfigError(
                "a server reports single tokens, and one of the judge's labels begins another, as 1 begins 10",
                hint="use labels: letters",
            )
        # Some servers report probabilities after the temperature: 1 leaves them as the model gave them.
        options = {self._limit_field: 1, "temperature": 1.0, "logprobs": True, "top_logprobs": self._top_logprobs}
        return await self._ask(requests, options, lambda choice, flags: label_logprobs_of(choice, labels, flags))

    async def generate(
        self, requests: Sequence[Conversation], *, max_new_tokens: int, temperature: float = 0.0
    ) -> Sequence[GeneratedText | RowError]:
        """See `JudgeBackend.generate`."""
        return await self._ask(requests, {self._limit_field: max_new_tokens, "temperature": temperature}, text_of)

    async def _ask(
        self, requests: Sequence[Conversation], options: dict[str, Any], read: Reader[ReplyT]
    ) -> list[ReplyT | RowError]:
        session = await self._sessions.current()
        return await _all_or_none([self._row(session, request, options, read) for request in requests])

    async def _row(
        self, session: Session, request: Conversation, options: dict[str, Any], read: Reader[ReplyT]
    ) -> ReplyT | RowError:
        messages, flags = _defused(request)
        body = {"model": self._model, "messages": messages, **options, **self._extra_body}
        attempts: list[Usage] = []
        try:
            answer = read(choice_of(await self._reply(session, body, attempts)), flags)
        except (JudgeConnectionError, JudgeResponseError) as error:
            error.usage = _total(attempts)
            return error
        return replace(answer, usage=_total(attempts))

    async def _reply(self, session: Session, body: dict[str, Any], attempts: list[Usage]) -> dict[str, Any]:
        """The server's answer; what each attempt took is appended to ``attempts``."""
        try:
            return await self._attempt(session, body, attempts)
        except TransientError as failure:
            return await self._tried_again(failure, session, body, attempts)

    async def _tried_again(
        self, failure: TransientError, session: Session, body: dict[str, Any], attempts: list[Usage]
    ) -> dict[str, Any]:
        """The answer after a first attempt that failed. Most requests have none, and what retries costs as much as they do."""
        import stamina

        def worth_retrying(error: Exception) -> bool | float:
            if not isinstance(error, TransientError) or error.delay is None:
                return isinstance(error, TransientError)
            return min(error.delay, self._max_retry_after)

        try:
            async for attempt in stamina.retry_context(
                worth_retrying, attempts=self._attempts, timeout=None, wait_initial=0.5, wait_max=30.0
            ):
                with attempt:
                    if attempt.num == 1:
                        raise failure
                    return await self._attempt(session, body, attempts)
        except TransientError as error:
            raise JudgeConnectionError(
                f"no usable answer in {self._attempts} attempts; the last time: {error}",
                hint=f"check that {self._base_url} is up and allows this many requests",
            ) from None
        raise AssertionError("the attempts end with an answer or an error")

    async def _attempt(self, session: Session, body: dict[str, Any], attempts: list[Usage]) -> dict[str, Any]:
        characters = sum(len(turn.content) for turn in read(body["messages"]))
        entry = await self._limits.acquire(characters, session.turn)
        request = session.client.request(body)
        async with session.in_flight:  # nothing is done here that can be done before or after
            attempts.append(Usage(calls=1, retries=min(len(attempts), 1)))
            answer = await self._exchange(session.client, request)
        reply = parse_reply(self._sessions.redacted(answer))
        attempts[-1] += usage_in(reply, self._prices)
        if taken := attempts[-1].tokens:
            self._limits.correct(entry, taken, characters)
        return reply

    async def _exchange(self, client: Client, request: Any) -> bytes:
        try:
            async with (
                asyncio.timeout(self._timeout),
                aclosing(await client.http.send(request, stream=True)) as response,
            ):
                return await self._read(response.aiter_bytes())
        except TimeoutError:
            raise TransientError(f"no whole answer within {self._timeout:g} s") from None
        except client.failed as error:
            raise TransientError(f"the exchange failed: {str(error) or type(error).__name__}") from None

    async def _read(self, chunks: AsyncIterator[bytes]) -> bytes:
        body = bytearray()
        async for chunk in chunks:
            body += chunk
            if len(body) > self._max_body_bytes:
                raise JudgeResponseError(f"the judge's answer is longer than {self._max_body_bytes} bytes")
        return bytes(body)


def _total(attempts: Sequence[Usage]) -> Usage:
    return sum(attempts, NOTHING)


def _defused(request: Conversation) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    turns = read(request)
    defused = [replace(turn, content=_ROLE_MARKER.sub(lambda match: f"{match[0]} ", turn.content)) for turn in turns]
    return chat_messages(defused), () if defused == list(turns) else ("markers_defused",)


async def _all_or_none(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results in order; the first error, or a cancellation, ends all."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
