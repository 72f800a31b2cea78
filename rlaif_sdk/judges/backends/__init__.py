"""What a judge needs from a language model, and the two backends that ship with the SDK."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from rlaif_sdk.conversations import after_thinking
from rlaif_sdk.exceptions import JudgeConnectionError, JudgeResponseError
from rlaif_sdk.judges.usage import NO_USAGE, Usage
from rlaif_sdk.types import Conversation

__all__ = [
    "ASK_OTHERWISE",
    "SUM_TOLERANCE",
    "GeneratedText",
    "JudgeBackend",
    "LabelLogprobs",
    "RowError",
    "asks_for_schema",
    "closed_object",
    "closing_line",
    "generate_json",
    "label_mass",
    "once_each",
    "one_each",
    "readable_json",
    "reads_images",
    "usage_of",
    "whole_text",
    "with_usage_of",
]

T = TypeVar("T")
RowError = JudgeConnectionError | JudgeResponseError
"""What may go wrong with a single request: it is returned in the request's place. Every other error concerns all
requests (a refused key, an exhausted account, a server without log-probabilities) and is raised."""
SUM_TOLERANCE = 0.01
"""By how much probabilities that were rounded may add up to more than 1."""
LEAST_LABEL_MASS = 1e-4
"""With less, a label is read from noise: a judge that is asked well gives its labels nearly all."""
_ESCAPE = re.compile(r"\\(?:([\"\\/bfnrt]|u[0-9a-fA-F]{4})|)")
ASK_OTHERWISE = (
    "turn the judge's thinking off (extra_body: {chat_template_kwargs: {enable_thinking: false}}), or ask in words: mode: "
    "verdict for pairs and rubrics, mode: rating for the judge"
)
"""The next step where a judge begins with something else than a label."""


@dataclass(frozen=True, slots=True)
class LabelLogprobs:
    """How likely an answer is to begin with each of K labels.

    Attributes:
        logprobs: K natural logarithms of disjoint probabilities, each at most 0 and possibly -inf: that the answer
            begins with this label and with no longer label of the set.
        bounded: The labels that a server did not report; what stands for them is the greatest probability that the
            reported ones leave to them.
        flags: Anything else worth recording, such as ``markers_defused``.
        usage: What the request took.
    """

    logprobs: tuple[float, ...]
    bounded: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    usage: Usage = NO_USAGE


def label_mass(reply: LabelLogprobs, labels_K: Sequence[str]) -> float:
    """The probability of all K labels together, which says how far they are what the judge would begin with.

    Raises:
        JudgeResponseError: There is not a log-probability for each label, or together they have next to no probability, or
            more than 1.
    """
    if len(reply.logprobs) != len(labels_K) or any(math.isnan(value) or value > 0 for value in reply.logprobs):
        raise JudgeResponseError(f"the judge's backend gave no log-probability for each label: {reply.logprobs}")
    mass = math.fsum(map(math.exp, reply.logprobs))
    if mass > 1 + SUM_TOLERANCE:
        raise JudgeResponseError(f"the probabilities of the judge's labels add up to {mass:.3f}")
    if mass < LEAST_LABEL_MASS:
        raise JudgeResponseError(
            f"the judge's labels have {mass:.2g} of the probability: it begins with something else", hint=ASK_OTHERWISE
        )
    return mass


@dataclass(frozen=True, slots=True)
class GeneratedText:
    """What a model answered.

    Attributes:
        text: The answer.
        truncated: It was cut off at the limit of tokens.
        flags: As in `LabelLogprobs`.
        usage: What the request took.
    """

    text: str
    truncated: bool = False
    flags: tuple[str, ...] = ()
    usage: Usage = NO_USAGE


def usage_of(reply: LabelLogprobs | GeneratedText | RowError) -> Usage:
    """What a request took, whether it was answered or failed."""
    if isinstance(reply, LabelLogprobs | GeneratedText):
        return reply.usage
    return reply.usage if isinstance(reply.usage, Usage) else NO_USAGE


def with_usage_of(outcome: T, reply: LabelLogprobs | GeneratedText) -> T:
    """What was made of a reply; an error takes over what the reply took."""
    if isinstance(outcome, RowError):
        outcome.usage = reply.usage
    return outcome


def one_each(replies: Sequence[T], requests: Sequence[object]) -> Sequence[T]:
    """What a backend answered, which is one reply for each request.

    Raises:
        JudgeResponseError: It is more or fewer.
    """
    if len(replies) != len(requests):
        raise JudgeResponseError(f"the judge's backend gave {len(replies)} answers to {len(requests)} requests")
    return replies


def whole_text(reply: GeneratedText, max_new_tokens: int) -> str:
    """What a judge wrote.

    Raises:
        JudgeResponseError: It is longer than it may be, and was cut off.
    """
    if reply.truncated:
        problem = f"the judge's reply is cut off after {max_new_tokens} tokens"
        raise JudgeResponseError(problem, hint="raise max_new_tokens")
    return reply.text


def readable_json(reply: str) -> str:
    """JSON that a model wrote, with those backslashes doubled that escape nothing: judges quote LaTeX as it stands."""
    return _ESCAPE.sub(lambda found: found[0] if found[1] else "\\\\", reply)


def once_each(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The object of a JSON reader's ``object_pairs_hook``, which has each name once.

    Raises:
        ValueError: A name stands twice, of which one value would be lost.
    """
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return dict(pairs)


def closing_line(reply: str) -> tuple[str, str]:
    """The last line of a judge's reply that is not empty, after its thinking, and what stands before it."""
    lines = after_thinking(reply).splitlines()
    return (lines[-1] if lines else ""), "\n".join(lines[:-1]).strip()


class JudgeBackend(Protocol):
    """A language model that judges ask.

    The text of the messages is inert: special tokens and role markers inside it do not act as such.

    A backend that answers many calls at once (a server) may have an attribute ``concurrency``, the most requests that
    it has in flight: jobs then make many small calls instead of one large call after another.

    One that can hold its model to a JSON schema has an attribute ``structured_output`` that is true, and its `generate`
    takes a ``schema``; see `generate_json`.

    One whose model takes images has an attribute ``reads_images`` that is true: messages then hold them as blocks, as they
    were written.
    """

    @property
    def identity(self) -> str:
        """Changes whenever the same request may get another answer; known without loading anything."""

    def setup(self) -> None:
        """Load the model or check the settings. The other methods do so themselves when it was not called."""

    async def label_logprobs(
        self, requests: Sequence[Conversation], labels: Sequence[str]
    ) -> Sequence[LabelLogprobs | RowError]:
        """The log-probabilities of K labels as the beginning of the answer to each of B conversations.

        Returns:
            B entries; an error stands for a request that failed.

        Raises:
            JudgeError: The failure concerns all requests.
        """

    async def generate(
        self, requests: Sequence[Conversation], *, max_new_tokens: int, temperature: float = 0.0
    ) -> Sequence[GeneratedText | RowError]:
        """The answer to each of B conversations; temperature 0 is greedy.

        Returns:
            B entries; an error stands for a request that failed.

        Raises:
            JudgeError: The failure concerns all requests.
        """

    def close(self) -> None:
        """Release the model or the connections."""


async def generate_json(
    backend: JudgeBackend, requests: Sequence[Conversation], schema: Mapping[str, Any], **options: Any
) -> Sequence[GeneratedText | RowError]:
    """`JudgeBackend.generate` for replies in JSON: held to a schema where the backend can, and read with equal care."""
    if asks_for_schema(backend):
        options["schema"] = schema
    return one_each(await backend.generate(requests, **options), requests)


def closed_object(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema of an object that has these properties and no others."""
    return {"type": "object", "properties": dict(properties), "required": [*properties], "additionalProperties": False}


def asks_for_schema(backend: JudgeBackend) -> bool:
    """Whether a backend holds its model to a JSON schema."""
    return bool(getattr(backend, "structured_output", False))


def reads_images(backend: JudgeBackend) -> bool:
    """Whether a backend's model takes images."""
    return bool(getattr(backend, "reads_images", False))
