"""Verdicts on two answers in one order: by the likelihood of two labels, or in words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from rlaif_sdk.exceptions import JudgeResponseError
from rlaif_sdk.judges.backends import GeneratedText, JudgeBackend, LabelLogprobs, RowError, charged, usage_of
from rlaif_sdk.judges.pairwise_prompt import TIE, VERDICT, PairwisePrompt
from rlaif_sdk.judges.usage import NOTHING, Usage
from rlaif_sdk.types import Conversation, Message

_T = TypeVar("_T")
LABELS = ("1", "2")
_VERDICT = re.compile(r"[\s>#*_`-]*(?:final\s+)?preferred[\s*_`]*:[\s*_`]*(1|2|tie)[\s*_`]*\.?[\s*_`]*", re.IGNORECASE)
_PROBABILITY = {"1": 1.0, "2": 0.0, "tie": 0.5}
_THOUGHTS_END = "</think>"


@dataclass(frozen=True, slots=True)
class Ordered:
    """Two responses in the order in which the judge sees them."""

    prompt: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Preference:
    """A judge's verdict on two responses in one order.

    Attributes:
        prob_first: Probability that the response in the first place is better.
        rationales: Why, in the judge's words.
        flags: What was found on the way, such as ``rationale_truncated``.
        label_mass: The probability of both labels before they were normalised; None where none were read.
        usage: What it took.
    """

    prob_first: float
    rationales: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    label_mass: float | None = None
    usage: Usage = NOTHING


@dataclass(frozen=True, slots=True)
class LikelihoodPreference:
    """The softmax of the two labels' log-probabilities (Lee et al. 2023, arXiv 2309.00267, section 2.1).

    With a chain of thought there are two steps: the judge writes a rationale, which is put back before the ending that
    asks for the label.

    Attributes:
        prompt: What is asked.
        chain_of_thought: Ask for a rationale first.
        max_new_tokens: The longest rationale; one that is cut off there is used and flagged.
        temperature: At which rationales are sampled; 0 takes the likeliest words.
    """

    prompt: PairwisePrompt
    chain_of_thought: bool = False
    max_new_tokens: int = 256
    temperature: float = 0.0

    version = "1"
    hard = False

    @property
    def endings(self) -> tuple[str, ...]:
        """What is asked at the end, step by step."""
        return (self.prompt.rationale, self.prompt.ending) if self.chain_of_thought else (self.prompt.ending,)

    async def ask(self, backend: JudgeBackend, asked: Sequence[Ordered]) -> list[Preference | RowError]:
        """The verdicts on B ordered pairs."""
        if self.chain_of_thought:
            return await self._ask_after_rationales(backend, asked)
        requests = [_user(self._question(pair, self.prompt.ending)) for pair in asked]
        replies = await backend.label_logprobs(requests, LABELS)
        return [_read(reply) for reply in _one_each(replies, requests)]

    async def _ask_after_rationales(
        self, backend: JudgeBackend, asked: Sequence[Ordered]
    ) -> list[Preference | RowError]:
        questions = [self._question(pair, self.prompt.rationale) for pair in asked]
        thoughts = _one_each(
            await backend.generate(
                [_user(question) for question in questions],
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
            ),
            questions,
        )
        thought = {row: reply for row, reply in enumerate(thoughts) if isinstance(reply, GeneratedText)}
        requests = [self._with_rationale(questions[row], reply.text) for row, reply in thought.items()]
        replies = _one_each(await backend.label_logprobs(requests, LABELS), requests) if requests else []
        verdicts: list[Preference | RowError] = [
            reply if isinstance(reply, RowError) else JudgeResponseError("not asked") for reply in thoughts
        ]
        for (row, rationale), reply in zip(thought.items(), replies, strict=True):
            verdicts[row] = _read(reply, rationale)
        return verdicts

    def _question(self, pair: Ordered, ending: str) -> str:
        return self.prompt.question(pair.prompt, pair.first, pair.second, ending, rationales=self.chain_of_thought)

    def _with_rationale(self, question: str, rationale: str) -> Conversation:
        turns: list[Message] = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": rationale.strip()},
            {"role": "user", "content": self.prompt.ending.strip()},
        ]
        return turns


@dataclass(frozen=True, slots=True)
class WrittenPreference:
    """A verdict in words, for servers without log-probabilities: the judge's own last line counts.

    Attributes:
        prompt: What is asked.
        ties: Let the judge prefer neither.
        max_new_tokens: The longest reply; one that is cut off there is no verdict.
        temperature: At which replies are sampled.
    """

    prompt: PairwisePrompt
    ties: bool = True
    max_new_tokens: int = 256
    temperature: float = 0.0

    version = "1"
    hard = True

    @property
    def endings(self) -> tuple[str, ...]:
        """What is asked at the end."""
        return (f"{VERDICT}{TIE if self.ties else ''}.",)

    async def ask(self, backend: JudgeBackend, asked: Sequence[Ordered]) -> list[Preference | RowError]:
        """The verdicts on B ordered pairs."""
        requests = [
            _user(self.prompt.question(pair.prompt, pair.first, pair.second, self.endings[0], rationales=True))
            for pair in asked
        ]
        replies = await backend.generate(requests, max_new_tokens=self.max_new_tokens, temperature=self.temperature)
        return [
            charged(self._read(reply), reply) if isinstance(reply, GeneratedText) else reply
            for reply in _one_each(replies, requests)
        ]

    def _read(self, reply: GeneratedText) -> Preference | RowError:
        if reply.truncated:
            return JudgeResponseError(
                f"the judge's reply is cut off after {self.max_new_tokens} tokens", hint="raise max_new_tokens"
            )
        try:
            prob_first, reason = parse_preference(reply.text, ties=self.ties)
        except JudgeResponseError as error:
            return error
        return Preference(prob_first, (reason,) if reason else (), reply.flags, None, reply.usage)


def parse_preference(reply: str, *, ties: bool = True) -> tuple[float, str]:
    """The probability (1, 0 or 0.5) that the first response is better, and the reason, in a judge's reply.

    The verdict is the judge's last word: the last line that is not empty, ``Preferred: 1`` and nothing more. One that
    the judge quotes before is part of the reason.

    Raises:
        JudgeResponseError: The last line is no verdict.
    """
    lines = reply.rpartition(_THOUGHTS_END)[2].strip().splitlines()
    last = lines[-1] if lines else ""
    match = _VERDICT.fullmatch(last)
    verdict = match[1].lower() if match else ""
    if verdict not in _PROBABILITY or (verdict == "tie" and not ties):
        raise JudgeResponseError(f"the judge's last line is no verdict: {last[:80]!r}")
    return _PROBABILITY[verdict], "\n".join(lines[:-1]).strip()


def first_label_probability(logprobs_2: Sequence[float]) -> float:
    """The softmax of two log-probabilities, the first one's share; both may not be -inf."""
    greatest = max(logprobs_2)
    first, second = (math.exp(value - greatest) for value in logprobs_2)
    return first / (first + second)


def _read(reply: LabelLogprobs | RowError, rationale: GeneratedText | None = None) -> Preference | RowError:
    usage = usage_of(reply) + (usage_of(rationale) if rationale else NOTHING)
    if not isinstance(reply, LabelLogprobs):
        reply.usage = usage
        return reply
    if len(reply.logprobs) != len(LABELS) or any(math.isnan(value) or value > 0 for value in reply.logprobs):
        return _failure(f"the judge's backend gave no log-probability for each label: {reply.logprobs}", usage)
    label_mass = math.fsum(math.exp(value) for value in reply.logprobs)
    if label_mass == 0:
        return _failure("the judge gives none of its labels any probability", usage)
    flags = [*(rationale.flags if rationale else ()), *reply.flags, *(["bounded"] if reply.bounded else [])]
    if rationale and rationale.truncated:
        flags.append("rationale_truncated")
    return Preference(
        first_label_probability(reply.logprobs),
        (rationale.text.strip(),) if rationale else (),
        tuple(flags),
        label_mass,
        usage,
    )


def _failure(problem: str, usage: Usage) -> RowError:
    error = JudgeResponseError(problem)
    error.usage = usage
    return error


def _user(text: str) -> Conversation:
    turns: list[Message] = [{"role": "user", "content": text}]
    return turns


def _one_each(replies: Sequence[_T], requests: Sequence[object]) -> Sequence[_T]:
    if len(replies) != len(requests):
        raise JudgeResponseError(f"the judge's backend gave {len(replies)} answers to {len(requests)} requests")
    return replies
