"""A judge that says which of two answers is better: the AI labeler of RLAIF."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlaif_sdk.conversations import USER, Thinking, View, view
from rlaif_sdk.exceptions import ConfigError, ConversationError, JudgeResponseError
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.text import short_repr
from rlaif_sdk.judges.backends import (
    GeneratedText,
    JudgeBackend,
    LabelLogprobs,
    RowError,
    closing_line,
    label_mass,
    one_each,
    usage_of,
    whole_text,
    with_usage_of,
)
from rlaif_sdk.judges.prompts import TIE, VERDICT, PairwisePrompt
from rlaif_sdk.judges.screening import Overlong, PreparedText, Screening
from rlaif_sdk.judges.usage import NO_USAGE, Usage
from rlaif_sdk.types import Conversation, Message, TextOrConversation

LABELS = ("1", "2")
_VERDICT = re.compile(
    r"[\s>#*_`-]*(?:final\s+)?preferred[\s*_`]*:[\s*_`]*(?:response[ _]?(?=[12]))?(1|2|tie)[\s*_`]*(?:\.[\s*_`]*)?",
    re.IGNORECASE,
)
_PROBABILITY = {"1": 1.0, "2": 0.0, "tie": 0.5}

PairMode = Literal["likelihood", "verdict"]
Orders = Literal["both", "given"]


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
    usage: Usage = NO_USAGE


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
        return [_read(reply) for reply in one_each(replies, requests)]

    async def _ask_after_rationales(
        self, backend: JudgeBackend, asked: Sequence[Ordered]
    ) -> list[Preference | RowError]:
        questions = [self._question(pair, self.prompt.rationale) for pair in asked]
        thoughts = one_each(
            await backend.generate(
                [_user(question) for question in questions],
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
            ),
            questions,
        )
        thought = {row: reply for row, reply in enumerate(thoughts) if isinstance(reply, GeneratedText)}
        requests = [self._with_rationale(questions[row], reply.text) for row, reply in thought.items()]
        replies = one_each(await backend.label_logprobs(requests, LABELS), requests) if requests else []
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
            with_usage_of(self._read(reply), reply) if isinstance(reply, GeneratedText) else reply
            for reply in one_each(replies, requests)
        ]

    def _read(self, reply: GeneratedText) -> Preference | RowError:
        try:
            prob_first, reason = parse_preference(whole_text(reply, self.max_new_tokens), ties=self.ties)
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
    last, reason = closing_line(reply)
    match = _VERDICT.fullmatch(last)
    verdict = match[1].lower() if match else ""
    if verdict not in _PROBABILITY or (verdict == "tie" and not ties):
        raise JudgeResponseError(f"the judge's last line is no verdict: {last[:80]!r}")
    return _PROBABILITY[verdict], reason


def first_label_probability(logprobs_2: Sequence[float]) -> float:
    """The softmax of two log-probabilities, the first one's share; both may not be -inf."""
    greatest = max(logprobs_2)
    first, second = (math.exp(value - greatest) for value in logprobs_2)
    return first / (first + second)


def _read(reply: LabelLogprobs | RowError, rationale: GeneratedText | None = None) -> Preference | RowError:
    usage = usage_of(reply) + (usage_of(rationale) if rationale else NO_USAGE)
    if not isinstance(reply, LabelLogprobs):
        reply.usage = usage
        return reply
    try:
        mass = label_mass(reply, LABELS)
    except JudgeResponseError as error:
        error.usage = usage
        return error
    flags = [*(rationale.flags if rationale else ()), *reply.flags, *(["bounded"] if reply.bounded else [])]
    if rationale and rationale.truncated:
        flags.append("rationale_truncated")
    return Preference(
        first_label_probability(reply.logprobs),
        (rationale.text.strip(),) if rationale else (),
        tuple(flags),
        mass,
        usage,
    )


def _user(text: str) -> Conversation:
    turns: list[Message] = [{"role": "user", "content": text}]
    return turns


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to one prompt, each text or messages."""

    prompt: TextOrConversation
    response_1: TextOrConversation
    response_2: TextOrConversation


@dataclass(frozen=True, slots=True)
class PairLabel:
    """How likely the first of two responses is the better one.

    Attributes:
        prob_1: Probability that response 1 is better, the orders averaged; None: unlabelled, and ``error`` says why.
        prob_1_when_first: The same when response 1 stood in the first place; None where the judge was not asked.
        prob_1_when_second: The same when it stood in the second; None where that was not asked.
        rationales: Why, in the judge's words.
        hard: The label is a verdict and no probability of the model.
        tie: Neither is better.
        flags: What was found on the way: ``identical``, ``response_1_contentless``, ``bounded`` and so on.
        label_mass: The least probability that both labels had together before they were normalised; None where no
            probabilities were read. A small one says that the judge wanted to say something else.
        usage: What the label took.
        principle: The principle of a constitution under which it was made, or None.
        error: Why there is none.
        kind: The class of the error.
    """

    prob_1: float | None
    prob_1_when_first: float | None = None
    prob_1_when_second: float | None = None
    rationales: tuple[str, ...] = ()
    hard: bool = False
    tie: bool = False
    flags: tuple[str, ...] = ()
    label_mass: float | None = None
    usage: Usage = NO_USAGE
    principle: str | None = None
    error: str | None = None
    kind: str | None = None

    @property
    def winning_place(self) -> Literal["first", "second"] | None:
        """The place that won in both orders, where the judge followed the place and not the response; None otherwise."""
        when_first, when_second = self.prob_1_when_first, self.prob_1_when_second
        if when_first is None or when_second is None or (when_first - 0.5) * (when_second - 0.5) >= 0:
            return None
        return "first" if when_first > when_second else "second"

    @property
    def flipped(self) -> bool | None:
        """Whether the two orders prefer different responses; None where one order was asked."""
        if self.prob_1_when_first is None or self.prob_1_when_second is None:
            return None
        return self.winning_place is not None

    def record(self) -> dict[str, Any]:
        """The label as a JSON-ready mapping; of a pair that is unlabelled, the error."""
        usage = self.usage.record()
        if self.prob_1 is None:
            return {"error": self.error, "kind": self.kind, "flags": list(self.flags), "usage": usage}
        return {
            "prob_1": self.prob_1,
            "prob_1_when_first": self.prob_1_when_first,
            "prob_1_when_second": self.prob_1_when_second,
            "flipped": self.flipped,
            "winning_place": self.winning_place,
            "tie": self.tie,
            "label_kind": "hard" if self.hard else "soft",
            "label_mass": self.label_mass,
            "rationales": list(self.rationales),
            "flags": list(self.flags),
            "usage": usage,
            **({"principle": self.principle} if self.principle else {}),
        }


def labelled(prob_1_by_order: Sequence[float], *, tie_margin: float = 0.0, **fields: Any) -> PairLabel:
    """The label that one or two orders make: their mean.

    Args:
        prob_1_by_order: Probability that response 1 is better when it stands first and, if asked, when it stands
            second.
        tie_margin: A mean this close to 0.5 is a tie.
        **fields: Of `PairLabel`.
    """
    mean = sum(prob_1_by_order) / len(prob_1_by_order)
    second = prob_1_by_order[1] if len(prob_1_by_order) > 1 else None
    return PairLabel(mean, prob_1_by_order[0], second, tie=abs(mean - 0.5) <= tie_margin, **fields)


def unlabelled(error: str, *, kind: str = "JudgeResponseError", **fields: Any) -> PairLabel:
    """A pair that got no label."""
    return PairLabel(None, error=error, kind=kind, **fields)


@dataclass(frozen=True, slots=True)
class _PairQuestion:
    asked: Ordered
    flags: tuple[str, ...]


class PairwiseLabeler:
    """A language model that says how likely one of two responses is the better one (Lee et al. 2023).

    Modes:

    - ``likelihood``: the softmax of the log-probabilities of the labels 1 and 2; a soft label.
    - ``verdict``: the judge explains itself and ends with its preference; a hard label, for servers that give no
      log-probabilities.

    Each pair is asked in both orders, and the two answers are averaged, since judges favour a place. Text is screened
    first (see `rlaif_sdk.judges.screening`). A response without content loses, two equal ones get 0.5, both without
    asking the judge and flagged. What goes wrong with one pair leaves it unlabelled with an error.

    Example:
        >>> from rlaif_sdk import PairwiseLabeler
        >>> from rlaif_sdk.judges import Pair, label_pairs
        >>> from rlaif_sdk.testing import ScriptedJudge
        >>> labeler = PairwiseLabeler(ScriptedJudge(lambda request: {"1": 0.8, "2": 0.2}))  # it likes the first place
        >>> (label,) = label_pairs([Pair("What is 2 + 2?", "4", "5")], labeler)
        >>> round(label.prob_1, 3), round(label.prob_1_when_first, 3), round(label.prob_1_when_second, 3)
        (0.5, 0.8, 0.2)

    Args:
        backend: The model.
        prompt: What it is asked; by default the detailed prompt for helpfulness.
        mode: ``likelihood`` or ``verdict``.
        chain_of_thought: In likelihood mode, let the judge write a rationale first, which is put back before the label
            is read.
        samples: Rationales, or replies in verdict mode, sampled for each order; their probabilities are averaged
            (self-consistency). More than one needs a temperature.
        temperature: At which they are sampled.
        orders: ``both``, or ``given`` for only the given order (half the cost, with the judge's position bias).
        tie_margin: A probability this close to 0.5 is a tie.
        ties: In verdict mode, let the judge prefer neither.
        max_chars: The most characters of a prompt, and of a response.
        overlong: What becomes of a longer one: ``error`` leaves the pair unlabelled, ``keep_start`` and ``keep_end``
            cut it and flag it.
        max_new_tokens: The longest rationale or reply.
        view: What of a response is judged: ``answer``, its last words; ``assistant``, all that the policy said;
            ``transcript``, everything, calls and results too. Of the prompt it is the transcript.
        thinking: ``keep`` shows the policy's thinking to the judge.

    Raises:
        ConfigError: An argument is out of range, or contradicts another.
    """

    def __init__(
        self,
        backend: JudgeBackend,
        prompt: PairwisePrompt | None = None,
        *,
        mode: PairMode = "likelihood",
        chain_of_thought: bool = False,
        samples: int = 1,
        temperature: float = 0.0,
        orders: Orders = "both",
        tie_margin: float = 0.0,
        ties: bool = True,
        max_chars: int = 24_000,
        overlong: Overlong = "error",
        max_new_tokens: int = 256,
        view: View = "assistant",
        thinking: Thinking = "drop",
    ) -> None:
        self.backend = backend
        self.prompt = prompt or PairwisePrompt.named()
        _check(mode, orders, samples, temperature, chain_of_thought)
        if not 0 <= tie_margin < 0.5 or max_chars < 1 or max_new_tokens < 1:
            raise ConfigError("tie_margin is from 0 to below 0.5; max_chars and max_new_tokens are at least 1")
        self.mode = mode
        self.verdict: LikelihoodPreference | WrittenPreference = (
            LikelihoodPreference(self.prompt, chain_of_thought, max_new_tokens, temperature)
            if mode == "likelihood"
            else WrittenPreference(self.prompt, ties, max_new_tokens, temperature)
        )
        self._samples = samples
        self._orders = orders
        self._tie_margin = tie_margin
        self.screening = Screening(max_chars, overlong, view, thinking)

    def __repr__(self) -> str:
        return short_repr(f"{type(self).__name__} by {type(self.backend).__name__}, {self.mode}, orders {self._orders}")

    @property
    def needs_logprobs(self) -> bool:
        """Whether the backend must give log-probabilities."""
        return self.mode == "likelihood"

    @property
    def writes(self) -> bool:
        """Whether the judge writes rationales or verdicts, which takes far longer than reading."""
        return len(self.verdict.endings) > 1 or self.verdict.hard

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything that a label depends on (the prompt, the way of asking, and the model) by name, JSON-ready."""
        verdict = self.verdict
        return {
            "prompt": [self.prompt.question("", "", "", ending, rationales=True) for ending in verdict.endings],
            "mode": [self.mode, verdict.version],
            "samples": [self._samples, verdict.temperature, verdict.max_new_tokens],
            "orders": self._orders,
            "limits": [self.screening.max_chars, self.screening.overlong, self._tie_margin],
            "view": [self.screening.view, self.screening.thinking],
            "model": self.backend.identity,
        }

    @property
    def fingerprint(self) -> str:
        """A digest of `settings`; equal where the same pairs would get labels of the same meaning."""
        return json_digest(self.settings)

    async def label(self, pairs: Sequence[Pair]) -> list[PairLabel]:
        """Label B pairs.

        Raises:
            JudgeError: A failure that concerns every pair: a refused key, an exhausted account, no log-probabilities.
        """
        rows = [self._question(pair) for pair in pairs]
        questions = [row for row in rows if isinstance(row, _PairQuestion)]
        asked = [order for question in questions for order in self._in_orders(question.asked)]
        repeated = [order for order in asked for _ in range(self._samples)]
        replies = iter(await self.verdict.ask(self.backend, repeated) if repeated else ())
        orders = 2 if self._orders == "both" else 1
        return [
            self._combined([[next(replies) for _ in range(self._samples)] for _ in range(orders)], row.flags)
            if isinstance(row, _PairQuestion)
            else row
            for row in rows
        ]

    def _in_orders(self, asked: Ordered) -> list[Ordered]:
        swapped = Ordered(asked.prompt, asked.second, asked.first)
        return [asked, swapped] if self._orders == "both" else [asked]

    def _question(self, pair: Pair) -> _PairQuestion | PairLabel:
        found: dict[str, PreparedText] = {}
        try:
            found["prompt"] = self.screening.of_text("prompt", view(pair.prompt, "transcript", role=USER))
            for name, response in (("response_1", pair.response_1), ("response_2", pair.response_2)):
                seen = self.screening.of_answer(name, response)
                if seen is None:
                    problem = f"{name} calls a tool and says nothing; view: transcript shows its calls to the judge"
                    return unlabelled(problem, kind="ConversationError")
                found[name] = seen
        except ConversationError as error:
            return unlabelled(f"cannot be read: {error}", kind="ConversationError")
        flags = tuple(flag for each in found.values() for flag in each.flags)
        prompt, first, second = found.values()
        if first.text == second.text:
            return PairLabel(0.5, hard=True, tie=True, flags=(*flags, "identical"))
        empty = [name for name in ("response_1", "response_2") if found[name].contentless]
        if empty:
            prob_1 = 0.5 if len(empty) == 2 else float(empty == ["response_2"])
            refused = [f"{name}_contentless" for name in empty]
            return PairLabel(prob_1, hard=True, tie=len(empty) == 2, flags=(*flags, *refused))
        if overlong := next((each.overlong for each in found.values() if each.overlong), None):
            return unlabelled(overlong, flags=flags)
        return _PairQuestion(Ordered(prompt.text, first.text, second.text), flags)

    def _combined(self, replies: list[list[Preference | RowError]], flags: tuple[str, ...]) -> PairLabel:
        """The label that the samples of each order make together; each order needs one verdict at least."""
        usage = sum((r.usage if isinstance(r, Preference) else usage_of(r) for own in replies for r in own), NO_USAGE)
        found = [[reply for reply in own if isinstance(reply, Preference)] for own in replies]
        for own, given in zip(replies, found, strict=True):
            if not given:
                error = next(reply for reply in own if isinstance(reply, RowError))
                return unlabelled(str(error), kind=type(error).__name__, flags=flags, usage=usage)
        given_all = [verdict for given in found for verdict in given]
        if len(given_all) < sum(map(len, replies)):
            flags = (*flags, "samples_failed")
        means = [sum(verdict.prob_first for verdict in given) / len(given) for given in found]
        masses = [verdict.label_mass for verdict in given_all if verdict.label_mass is not None]
        return labelled(
            [means[0], *(1 - mean for mean in means[1:])],
            rationales=tuple(text for verdict in given_all for text in verdict.rationales),
            flags=tuple(dict.fromkeys((*flags, *(flag for verdict in given_all for flag in verdict.flags)))),
            hard=self.verdict.hard,
            tie_margin=self._tie_margin,
            label_mass=min(masses) if masses else None,
            usage=usage,
        )


def _check(mode: str, orders: str, samples: int, temperature: float, chain_of_thought: bool) -> None:  # noqa: FBT001
    if mode not in ("likelihood", "verdict"):
        raise ConfigError(f"unknown mode {mode!r} for a labeler", hint="use likelihood or verdict")
    if orders not in ("both", "given"):
        raise ConfigError(f"unknown orders {orders!r} for a labeler", hint="use both or given")
    if samples < 1 or not 0 <= temperature < float("inf"):
        raise ConfigError("samples is at least 1 and temperature at least 0")
    writes = chain_of_thought or mode == "verdict"
    if samples > 1 and not (writes and temperature > 0):
        raise ConfigError(
            f"{samples} samples would be equal",
            key="samples",
            hint="sample with a temperature above 0, and with chain_of_thought or in verdict mode",
        )
    if chain_of_thought and mode == "verdict":
        raise ConfigError(
            "a verdict in words has its own explanation", key="chain_of_thought", hint="leave chain_of_thought out"
        )
