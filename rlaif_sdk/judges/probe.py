"""One question to a judge before many: does it answer, and does it give log-probabilities?"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from rlaif_sdk.exceptions import JudgeConnectionError, JudgeError
from rlaif_sdk.judges.backends import GeneratedText, JudgeBackend, LabelLogprobs, usage_of
from rlaif_sdk.judges.usage import NO_USAGE, Usage
from rlaif_sdk.types import Conversation, Message

LABELS = ("1", "2")
_QUESTION: list[Message] = [
    {"role": "user", "content": "Which number is smaller, 1 or 2? Reply with 1 or 2 and nothing else."}
]


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a judge can do.

    Attributes:
        logprobs: It gives the log-probabilities of labels.
        label_mass: The probability of both labels together; a small one says that it would begin with something else.
        reply: What it writes, or None where it writes nothing.
        problems: What does not work, in words.
        seconds: What the questions took, loading included.
        usage: Likewise.
    """

    logprobs: bool
    label_mass: float | None
    reply: str | None
    problems: tuple[str, ...]
    seconds: float
    usage: Usage


async def probe(backend: JudgeBackend) -> ProbeResult:
    """Ask a judge one small question in both ways, by log-probabilities and in words.

    Raises:
        ConfigError: The model cannot be loaded.
        JudgeAuthError: The server refuses the key.
        JudgeQuotaError: The account is exhausted.
    """
    started = time.monotonic()
    backend.setup()
    problems: list[str] = []
    usage = NO_USAGE
    logprobs, label_mass, written = False, None, None
    asked: list[Conversation] = [_QUESTION]
    try:
        [labels] = await backend.label_logprobs(asked, LABELS)
        usage += usage_of(labels)
        if isinstance(labels, LabelLogprobs):
            logprobs, label_mass = True, math.fsum(map(math.exp, labels.logprobs))
        else:
            problems.append(f"log-probabilities: {labels}")
    except JudgeError as error:
        if type(error) is not JudgeError:
            raise
        problems.append(f"log-probabilities: {error}")
    [reply] = await backend.generate(asked, max_new_tokens=8)
    usage += usage_of(reply)
    if isinstance(reply, GeneratedText):
        written = reply.text
    else:
        problems.append(f"text: {reply}")
    return ProbeResult(logprobs, label_mass, written, tuple(problems), time.monotonic() - started, usage)


async def require_logprobs(backend: JudgeBackend) -> None:
    """Make sure that a judge gives log-probabilities, at the price of one token.

    Raises:
        JudgeError: It gives none, refuses the key, or cannot be reached; never passed over.
    """
    [answer] = await backend.label_logprobs([_QUESTION], LABELS)
    if isinstance(answer, JudgeConnectionError):
        raise answer
