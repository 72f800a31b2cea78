"""Judges behind an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import math
import os
import re
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

from rlaif_sdk.config import LimitsConfig
from rlaif_sdk.conversations import ASSISTANT, Turn, chat_messages, image_block, read
from rlaif_sdk.exceptions import (
    ConfigError,
    ConversationError,
    JudgeAuthError,
    JudgeConnectionError,
    JudgeError,
    JudgeQuotaError,
    JudgeResponseError,
)
from rlaif_sdk.io.http import HttpError, JsonClient, Problem, Session, json_body
from rlaif_sdk.judges.backends import ASK_OTHERWISE, SUM_TOLERANCE, GeneratedText, LabelLogprobs, RowError
from rlaif_sdk.judges.prompts import TAGS
from rlaif_sdk.judges.usage import NO_USAGE, Prices, Usage
from rlaif_sdk.scoring.limits import RateLimits
from rlaif_sdk.types import Conversation

NO_LOGPROB = -9999.0
"""What servers write for a log-probability that they do not know."""

_MOST_TOKENS = 2**53
_NO_SCHEMA = "if the server takes no JSON schema, leave structured_output out: the form is then asked for in words"
_SPACES = " \t\r\n\u0120\u2581"
"""Spaces, and what vocabularies write for them."""
T = TypeVar("T")
ReplyT = TypeVar("ReplyT", LabelLogprobs, GeneratedText)
Reader = Callable[[dict[str, Any], tuple[str, ...]], ReplyT]
TokenLimit = Literal["max_tokens", "max_completion_tokens"]
_MARKER = re.compile(
    rf"""
      [<\[{{](?=[|\uff5c][^<>\[\]{{}}\n]{{1,60}}[>\]}}])  # <|im_end|>, <|turn>, [|endofturn|]
    | <(?=[^<>\[\]{{}}\n|\uff5c]{{1,60}}[|\uff5c]>)  # <turn|>
    | <(?=</?\w{{1,30}}>>)  # <<SYS>>
    | <(?=/?(?!(?:{"|".join(TAGS)})>|h[1-6]>)\w{{0,40}}[_0-9]\w{{0,40}}/?>)  # <start_of_turn>, <reserved_106>; not the judge's own tags
    | (?i:<(?=/?(?:s|[bes]o[a-z]|pad|unk|cls|sep|pre|mid|suf|g?mask|think(?:ing)?|thought|reasoning|seed:\w{{1,20}}|system|user
        |assistant|human|bot|tools?|role|special|unused\w{{1,20}}|(?:start|begin|end)(?:of\w{{1,20}})?|\w{{1,20}}:tool_call)/?>))  # </s>, <eot>
    | \](?=~!?\w{{1,9}}[\[\]])|\](?=<\]\w{{1,20}}\[>\[)|\[(?=\w~\[)  # ]~b], [e~[
    | \[(?=control_[0-9]{{1,4}}\])
    | \[(?=/?(?:(?i:inst)|[a-z]?[A-Z][A-Z0-9_]{{2,40}})\])  # [INST], [TOOL_RESULTS], [gMASK]
    | \u25c1(?=/?\w{{1,30}}\u25b7)  # Kimi's brackets
    """,
    re.VERBOSE | re.ASCII,
)
"""The first character of what has the shape of a special token or role marker, of whatever family of models."""
_OPENING = re.compile("[<\\[{\\]\u25c1]")
"""With what a marker begins: one character is found faster than one of many forms."""
_ERRORS: Mapping[Problem, type[JudgeError]] = {
    "passing": JudgeConnectionError,
    "closed": JudgeConnectionError,
    "key": JudgeAuthError,
    "quota": JudgeQuotaError,
    "address": JudgeError,
    "redirect": JudgeError,
    "refused": JudgeResponseError,
    "answer": JudgeResponseError,
}
_ACCOUNT: Mapping[str, str] = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}


def usage_in(reply: Mapping[str, Any], prices: Prices | None) -> Usage:
    """The tokens that a server says one answer took, and their price; what it does not say counts as none.

    Raises:
        JudgeResponseError: No answer takes so many.
    """
    reported = reply.get("usage")
    counts = reported if isinstance(reported, dict) else {}
    asked, answered = (_count(counts.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    return Usage(input_tokens=asked, output_tokens=answered, cost=prices.cost(asked, answered) if prices else None)


def choice_of(reply: Mapping[str, Any]) -> dict[str, Any]:
    """The first choice of a chat completion.

    Raises:
        JudgeResponseError: There is no choice, or the model refused.
    """
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise JudgeResponseError(f"the judge's answer has no choices: {_shown(reply)}")
    choice: dict[str, Any] = choices[0]
    message = choice.get("message")
    if not isinstance(message, dict):
        raise JudgeResponseError(f"the judge's answer has no message: {_shown(reply)}")
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        raise JudgeResponseError(f"the judge refused: {str(message.get('refusal') or 'content filter')[:200]!r}")
    return choice


def text_of(choice: Mapping[str, Any], flags: tuple[str, ...]) -> GeneratedText:
    """The text of a choice.

    Raises:
        JudgeResponseError: It has none.
    """
    truncated = choice.get("finish_reason") == "length"
    try:
        turns = read({**choice["message"], "role": ASSISTANT})
    except ConversationError as error:
        raise JudgeResponseError(f"the judge's answer cannot be read: {error}") from error
    content = "".join(turn.content for turn in turns if turn.role == ASSISTANT)
    if not content:
        hint = "raise max_new_tokens: the limit came before its first word" if truncated else None
        raise JudgeResponseError("the judge's answer has no content", hint=hint)
    return GeneratedText(content, truncated=truncated, flags=flags)


def label_logprobs_of(choice: Mapping[str, Any], labels_K: Sequence[str], flags: tuple[str, ...]) -> LabelLogprobs:
    """The log-probabilities of K labels from the most likely first tokens of a choice.

    Tokens of one spelling are one label, and so are those that differ only in surrounding space. Labels that are not among
    the tokens share the mass that the tokens leave, none getting more than the least likely token reported.

    Raises:
        JudgeError: The server gives no log-probabilities at all.
        JudgeResponseError: They are no probabilities, or no label is among them.
    """
    reported = _top_logprobs(choice)
    probability_of: dict[str, float] = {}
    for token, logprob in reported:
        label = token.strip(_SPACES)
        if label in labels_K:
            if logprob <= NO_LOGPROB:
                raise JudgeResponseError(f"the judge's server does not know the log-probability of {label!r}")
            probability_of[label] = probability_of.get(label, 0.0) + math.exp(logprob)
    if not probability_of:
        found = ", ".join(repr(token) for token, _ in reported[:5])
        problem = f"none of the judge's labels is among its most likely first tokens ({found} ...)"
        raise JudgeResponseError(problem, hint=ASK_OTHERWISE)
    missing = tuple(label for label in labels_K if label not in probability_of)
    total = math.fsum(math.exp(logprob) for _, logprob in reported)
    if total > 1 + SUM_TOLERANCE:
        raise JudgeResponseError(f"the probabilities of the judge's first tokens add up to {total:.3f}")
    least = min(logprob for _, logprob in reported)
    bound = min(max(0.0, 1.0 - total) / len(missing), math.exp(least)) if missing else 0.0
    return LabelLogprobs(tuple(_log(probability_of.get(label, bound)) for label in labels_K), missing, flags)


def _top_logprobs(choice: Mapping[str, Any]) -> list[tuple[str, float]]:
    logprobs = choice.get("logprobs")
    content = _inside(logprobs, dict, "content")
    first = _inside(content, list, 0)
    top = _inside(first, dict, "top_logprobs")
    if not top:
        raise JudgeError(
            "the judge's server was asked for log-probabilities and gave none",
            hint="use a server and model that give top_logprobs, or ask in words: mode: verdict for pairs and "
            "rubrics, mode: rating for the judge",
        )
    if not isinstance(top, list):
        raise _malformed(top)
    reported = []
    for entry in top:
        token, logprob = (entry.get("token"), entry.get("logprob")) if isinstance(entry, dict) else (None, None)
        if not isinstance(token, str) or isinstance(logprob, bool) or not isinstance(logprob, int | float):
            raise _malformed(entry)
        if not -sys.float_info.max <= logprob <= 1e-3:
            raise JudgeResponseError(f"the judge gave the log-probability {str(logprob)[:20]} for {token[:20]!r}")
        reported.append((token, min(float(logprob), 0.0)))
    return reported


def _inside(value: Any, kind: type, key: str | int) -> Any:
    """What a mapping or list has at a place; None where there is nothing.

    Raises:
        JudgeResponseError: It is something else.
    """
    if value and not isinstance(value, kind):
        raise _malformed(value)
    return (value.get(key) if kind is dict else value[key]) if value else None


def _malformed(value: Any) -> JudgeResponseError:
    return JudgeResponseError(f"the judge's log-probabilities are malformed: {_shown(value)}")


def _shown(reply: Any) -> str:
    return str(reply)[:80]


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        return 0
    if value > _MOST_TOKENS:
        raise JudgeResponseError("the judge's server says that the answer took more tokens than there are")
    return value


def _log(probability: float) -> float:
    return min(math.log(probability), 0.0) if probability > 0 else -math.inf


class OpenAIBackend:
    """A model behind an OpenAI-compatible server.

    Label probabilities are read from the first token's ``top_logprobs``. Servers apply the chat template themselves,
    and some obey special tokens inside a message: what has the shape of one is broken by a space, and the answer is flagged
    ``markers_defused``. ``OPENAI_ORG_ID`` and ``OPENAI_PROJECT_ID`` are sent with a key.

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
        limit_field: The field that limits an answer's tokens; newer models take only ``max_completion_tokens``.
        requests_per_minute: The most requests begun in any 60 seconds, retries included.
        tokens_per_minute: The most tokens in any 60 seconds, as the server counts them; a request is estimated by its
            length until it is answered.
        prices: What the server charges, for the cost in each answer's usage.
        images: Send the images of what is judged along, as ``image_url`` blocks; the model has to take them.
        structured_output: Send the JSON schema of replies that are read as JSON, as ``response_format``.
        extra_body: Further fields of every request; one that is None is left out, defaults of ours too.
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
        images: bool = False,
        structured_output: bool = False,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        self.concurrency = concurrency
        self.reads_images = images
        self.structured_output = structured_output
        self._model = model
        self._base_url = base_url
        self._top_logprobs = top_logprobs
        self._limit_field = limit_field
        self._limits = RateLimits(
            LimitsConfig(requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute)
        )
        self._prices = prices
        self._extra_body = dict(extra_body or {})
        self._client = JsonClient(
            url=f"{base_url.rstrip('/')}/chat/completions",
            server="the judge's server",
            extra="openai",
            api_key_env=api_key_env,
            timeout=timeout,
            attempts=attempts,
            max_retry_after=max_retry_after,
            concurrency=concurrency,
            max_body_bytes=max_body_bytes,
            headers={name: os.environ[variable] for variable, name in _ACCOUNT.items() if variable in os.environ},
        )

    @property
    def identity(self) -> str:
        """Address, model and extra fields. What a server calls by one name may change behind it."""
        schemas, images = ":schema" * self.structured_output, ":images" * self.reads_images
        return f"openai:{self._base_url}:{self._model}:{sorted(self._extra_body.items())}{schemas}{images}"

    def setup(self) -> None:
        """Check the key and the libraries; no request is sent."""
        try:
            self._client.check()
        except HttpError as error:
            raise _judge_error(error) from None

    def close(self) -> None:
        """Close connections that belong to loops still running; the others closed with their loops."""
        self._client.close()

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
        self,
        requests: Sequence[Conversation],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        schema: Mapping[str, Any] | None = None,
    ) -> Sequence[GeneratedText | RowError]:
        """See `JudgeBackend.generate`; a JSON schema holds the replies to its form."""
        options: dict[str, Any] = {self._limit_field: max_new_tokens, "temperature": temperature}
        if schema is not None:
            named = {"name": "verdict", "schema": schema, "strict": True}
            options["response_format"] = {"type": "json_schema", "json_schema": named}
        return await self._ask(requests, options, text_of)

    async def _ask(
        self, requests: Sequence[Conversation], options: dict[str, Any], reply_of: Reader[ReplyT]
    ) -> list[ReplyT | RowError]:
        try:
            session = await self._client.session()
        except HttpError as error:
            raise _judge_error(error) from None
        return await _all_or_none(
            [self._row(session, request, options, reply_of) for request in requests], self.concurrency
        )

    async def _row(
        self, session: Session, request: Conversation, options: dict[str, Any], reply_of: Reader[ReplyT]
    ) -> ReplyT | RowError:
        flags: tuple[str, ...] = ()
        attempts: list[Usage] = []
        try:
            turns = read(request)
            characters = sum(len(turn.content) for turn in turns)

            def body() -> bytes:
                nonlocal flags
                messages, flags = _defused(turns)
                fields = {"model": self._model, "messages": messages, **options, **self._extra_body}
                return json_body({name: value for name, value in fields.items() if value is not None})

            choice = await self._client.tried(lambda: self._attempt(session, body, characters, attempts))
            answer = reply_of(choice, flags)
        except ConversationError as unsendable:  # an image
            return JudgeResponseError(unsendable.message, hint=unsendable.hint)
        except (HttpError, JudgeConnectionError, JudgeResponseError) as failure:
            if isinstance(failure, HttpError) and failure.problem == "refused" and "response_format" in options:
                failure.hint = _NO_SCHEMA
            error = _judge_error(failure) if isinstance(failure, HttpError) else failure
            error.usage = _total(attempts)
            if not isinstance(error, RowError):
                raise error from None
            return error
        return replace(answer, usage=_total(attempts))

    async def _attempt(
        self, session: Session, body: Callable[[], bytes], characters: int, attempts: list[Usage]
    ) -> dict[str, Any]:
        """The first choice of the server's answer; what the attempt took is appended to ``attempts``."""
        entry = await self._limits.acquire(characters, session.turn)
        attempts.append(Usage(calls=1, retries=min(len(attempts), 1)))
        reply = await self._client.post(session, body)
        if not isinstance(reply, dict):
            raise HttpError("passing", f"the judge's server answered JSON that is no object: {_shown(reply)}")
        attempts[-1] += usage_in(reply, self._prices)
        if taken := attempts[-1].tokens:
            self._limits.correct(entry, taken, characters)
        if not reply.get("choices") and any(reply.get(name) for name in ("code", "detail", "message")):
            self._client.refuse(reply)
        choice = choice_of(reply)
        if choice.get("error") or choice.get("finish_reason") == "error":
            self._client.refuse(choice.get("error") or "the answer ends with an error")
        return choice


def _judge_error(error: HttpError) -> JudgeError:
    hint = "check base_url (it usually ends in /v1) and model" if error.problem == "address" else error.hint
    return _ERRORS[error.problem](str(error), hint=hint)


def _total(attempts: Sequence[Usage]) -> Usage:
    return sum(attempts, NO_USAGE)


def _defused(turns: Sequence[Turn]) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The messages in which no special token acts, and what is to be flagged.

    Raises:
        ConversationError: An image cannot be sent.
    """
    messages = chat_messages(turns)
    defused: list[dict[str, Any]] = _without_markers(messages)
    flags = () if defused == messages else ("markers_defused",)
    for turn, message in zip(turns, defused, strict=True):
        if turn.images:
            message["content"] = [{"type": "text", "text": message["content"]}, *map(image_block, turn.images)]
    return defused, flags


def _without_markers(value: Any) -> Any:
    """A JSON value in which no text, whatever field it stands in, has a marker."""
    if isinstance(value, str):
        return _OPENING.sub(lambda match: f"{match[0]} " if _MARKER.match(value, match.start()) else match[0], value)
    if isinstance(value, dict):
        return {name: _without_markers(item) for name, item in value.items()}
    return [_without_markers(item) for item in value] if isinstance(value, list) else value


async def _all_or_none(work: Sequence[Coroutine[Any, Any, T]], at_once: int) -> list[T]:
    """All results in order; the first error, or a cancellation, ends all.

    Work is begun ``at_once`` by ``at_once``, so that the first requests travel while the next ones are written.
    """
    tasks: list[asyncio.Task[T]] = []
    try:
        for start in range(0, len(work), at_once):
            tasks += [asyncio.ensure_future(one) for one in work[start : start + at_once]]
            await asyncio.sleep(0)
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for never_begun in work[len(tasks) :]:
            never_begun.close()
        raise
