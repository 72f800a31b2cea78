"""What the bodies that OpenAI-compatible servers send mean. Nothing here touches the network."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rlaif_sdk.conversations import ASSISTANT, read
from rlaif_sdk.exceptions import ConversationError, JudgeAuthError, JudgeError, JudgeQuotaError, JudgeResponseError
from rlaif_sdk.judges.backends.base import GeneratedText, LabelLogprobs
from rlaif_sdk.judges.usage import Prices, Usage
from rlaif_sdk.scoring.retry import retry_after

NO_LOGPROB = -9999.0
"""What servers write for a log-probability that they do not know."""


class TransientError(Exception):
    """Worth another try.

    Attributes:
        delay: Seconds that the server asks to wait, or None.
    """

    def __init__(self, message: str, delay: float | None = None) -> None:
        super().__init__(message)
        self.delay = delay


def status_error(status: int, headers: Mapping[str, str], body: bytes) -> Exception:
    """The error that an HTTP status other than 2xx stands for."""
    said = _message(body)
    where = f"the judge's server answered HTTP {status}{said and f': {said}'}"
    if status in (401, 403):
        return JudgeAuthError(where, hint="check the key in the variable that api_key_env names")
    if status == 402 or (status == 429 and b"insufficient_quota" in body):
        return JudgeQuotaError(where, hint="top the account up, then start the run again")
    if status in (408, 409, 425, 429) or status >= 500:
        return TransientError(where, retry_after(headers.get("retry-after", "")))
    if 300 <= status < 400:
        target = headers.get("location", "").split("?")[0]
        return JudgeError(
            f"the judge's server redirects to {target!r}; the key does not follow",
            hint="give the address that it redirects to as base_url, if you trust it",
        )
    if status in (404, 405):
        return JudgeError(where, hint="check base_url (it usually ends in /v1) and model")
    return JudgeResponseError(where)


def parse_reply(body: bytes) -> dict[str, Any]:
    """The JSON object that a server answered with.

    Raises:
        TransientError: The body is no JSON object: an HTML page, or JSON cut short.
    """
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        raise TransientError(f"the judge's server answered something that is no JSON: {_start(body)}") from None
    if not isinstance(reply, dict):
        raise TransientError(f"the judge's server answered JSON that is no object: {_start(body)}")
    return reply


def usage_in(reply: Mapping[str, Any], prices: Prices | None) -> Usage:
    """The tokens that a server says one answer took, and their price; what it does not say counts as none."""
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
        raise JudgeResponseError(f"the judge refused: {str(message.get('refusal') or 'content filter')[:200]}")
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

    Tokens that differ in surrounding space alone are one label. Labels that are not among the tokens share the mass
    that the tokens leave, none getting more than the least likely token reported.

    Raises:
        JudgeError: The server gives no log-probabilities at all.
        JudgeResponseError: They are no numbers, or no label is among them.
    """
    reported = _top_logprobs(choice)
    probability_of: dict[str, float] = {}
    for token, logprob in reported.items():
        label = token.strip(" \t\r\n\u0120\u2581")
        if label in labels_K:
            if logprob <= NO_LOGPROB:
                raise JudgeResponseError(f"the judge's server does not know the log-probability of {label!r}")
            probability_of[label] = probability_of.get(label, 0.0) + math.exp(logprob)
    if not probability_of:
        found = ", ".join(repr(token) for token in list(reported)[:5])
        raise JudgeResponseError(f"none of the judge's labels is among its most likely first tokens ({found} ...)")
    missing = tuple(label for label in labels_K if label not in probability_of)
    residual = max(0.0, 1.0 - math.fsum(map(math.exp, reported.values())))
    bound = min(residual / len(missing), math.exp(min(reported.values()))) if missing else 0.0
    return LabelLogprobs(tuple(_log(probability_of.get(label, bound)) for label in labels_K), missing, flags)


def _top_logprobs(choice: Mapping[str, Any]) -> dict[str, float]:
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    first = content[0] if isinstance(content, list) and content else None
    top = first.get("top_logprobs") if isinstance(first, dict) else None
    if not isinstance(top, list) or not top:
        raise JudgeError(
            "the judge's server was asked for log-probabilities and gave none",
            hint="use a server and model that give top_logprobs, or mode: rating",
        )
    reported: dict[str, float] = {}
    for entry in top:
        token, logprob = (entry.get("token"), entry.get("logprob")) if isinstance(entry, dict) else (None, None)
        if not isinstance(token, str) or isinstance(logprob, bool) or not isinstance(logprob, int | float):
            raise JudgeResponseError(f"the judge's log-probabilities are malformed: {str(entry)[:100]}")
        if not -math.inf < logprob <= 1e-3:
            raise JudgeResponseError(f"the judge gave the log-probability {logprob} for {token[:20]!r}")
        reported[token] = max(min(float(logprob), 0.0), reported.get(token, -math.inf))
    return reported


def _message(body: bytes) -> str:
    try:
        error = json.loads(body)["error"]
        said = error if isinstance(error, str) else error["message"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return ""
    return str(said)[:300]


def _start(body: bytes) -> str:
    return repr(body[:80].decode("utf-8", "replace"))


def _shown(reply: Mapping[str, Any]) -> str:
    return str(reply)[:80]


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _log(probability: float) -> float:
    return min(math.log(probability), 0.0) if probability > 0 else -math.inf
