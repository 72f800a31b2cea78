"""A judge that compares all responses to a prompt in one call."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rlaif_sdk.conversations import USER, Thinking, View, after_thinking, view
from rlaif_sdk.exceptions import ConfigError, ConversationError, JudgeResponseError
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.text import short_repr
from rlaif_sdk.judges.backends import (
    GeneratedText,
    JudgeBackend,
    LabelLogprobs,
    RowError,
    asks_for_schema,
    closed_object,
    generate_json,
    label_mass,
    once_each,
    one_each,
    readable_json,
    usage_of,
    whole_text,
    with_usage_of,
)
from rlaif_sdk.judges.pairwise import PairMode
from rlaif_sdk.judges.prompts import ListwisePrompt
from rlaif_sdk.judges.screening import Overlong, Screening
from rlaif_sdk.judges.usage import NO_USAGE, Usage
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.types import TextOrConversation

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_FENCE = "```"
_LABEL = re.compile(r"\s*(?:response[ _]?)?([A-Z])\s*", re.IGNORECASE)
_RANKING = re.compile(r'\{\s*"ranking"')
_LEVELS = {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}
_SCHEMA = closed_object({"reason": {"type": "string"}, "ranking": _LEVELS})


@dataclass(frozen=True, slots=True)
class ResponseList:
    """Responses to one prompt, A of them, each text or messages."""

    prompt: TextOrConversation
    responses: Sequence[TextOrConversation]


@dataclass(frozen=True, slots=True)
class ResponseRanking:
    """A judge's verdict on A responses to one prompt.

    Attributes:
        wins_AA: (A, A) the probability that the row's response is better than the column's, the orders averaged; NaN where
            the two were not compared.
        errors: Why a response was compared with none, by its place.
        contentless: The places of the responses without content, which lose without being shown.
        rationales: Why, in the judge's words.
        flags: What was found on the way: ``identical``, ``response_contentless``, ``bounded``, ``orders_failed`` and so on.
        label_mass: The least probability that all labels had together before they were normalised; None where no
            probabilities were read.
        usage: What it took.
    """

    wins_AA: Array
    errors: Mapping[int, str]
    contentless: frozenset[int] = frozenset()
    rationales: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    label_mass: float | None = None
    usage: Usage = NO_USAGE


@dataclass(frozen=True, slots=True)
class _Reply:
    """What was read of one call about K responses."""

    wins_KK: Array
    rationale: str = ""
    flags: tuple[str, ...] = ()
    label_mass: float | None = None
    usage: Usage = NO_USAGE


class _Verdict(Protocol):
    version: str

    def ending(self, labels: Sequence[str]) -> str:
        """What is asked at the end."""

    async def ask(
        self, backend: JudgeBackend, questions: Sequence[str], labels: Sequence[str]
    ) -> list[_Reply | RowError]:
        """The replies about B lists of K responses."""


class _BestLikelihood:
    """How likely each label is to be the best one's; of two responses, the likelier the better (Luce 1959)."""

    version = "1"

    def ending(self, labels: Sequence[str]) -> str:
        return f"Which response is the best? Reply with its letter and nothing else: {', '.join(labels)}."

    async def ask(
        self, backend: JudgeBackend, questions: Sequence[str], labels: Sequence[str]
    ) -> list[_Reply | RowError]:
        replies = await backend.label_logprobs(
            [[{"role": "user", "content": question}] for question in questions], labels
        )
        return [
            with_usage_of(self._read(reply, labels), reply) if isinstance(reply, LabelLogprobs) else reply
            for reply in one_each(replies, questions)
        ]

    def _read(self, reply: LabelLogprobs, labels: Sequence[str]) -> _Reply | RowError:
        try:
            mass = label_mass(reply, labels)
        except JudgeResponseError as error:
            return error
        flags = (*reply.flags, *(["bounded"] if reply.bounded else []))
        return _Reply(luce_wins(reply.logprobs), "", flags, mass, reply.usage)


class _WrittenRanking:
    """A ranking that the judge writes as JSON, for servers without log-probabilities."""

    version = "1"

    def __init__(self, max_new_tokens: int, temperature: float, *, by_schema: bool) -> None:
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.by_schema = by_schema

    def ending(self, labels: Sequence[str]) -> str:
        if self.by_schema:
            example = json.dumps(
                {"reason": "a few sentences", "ranking": [list(labels[:2]), *([one] for one in labels[2:])]}
            )
            return (
                "Reply with JSON: how the responses compare, and then the letters from the best response to the worst, each "
                f"once and equals in one list, such as {example}."
            )
        example = json.dumps({"ranking": list(labels[::-1])})
        tied = json.dumps({"ranking": [list(labels[:2]), *labels[2:]]})
        return (
            "First explain in a few sentences how the responses compare. Then end with a line of its own that is JSON, with "
            f"each letter once from the best response to the worst, such as {example}; responses that are equally good "
            f"stand in a list of their own, such as {tied}."
        )

    async def ask(
        self, backend: JudgeBackend, questions: Sequence[str], labels: Sequence[str]
    ) -> list[_Reply | RowError]:
        replies = await generate_json(
            backend,
            [[{"role": "user", "content": question}] for question in questions],
            _SCHEMA,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
        )
        return [
            with_usage_of(self._read(reply, labels), reply) if isinstance(reply, GeneratedText) else reply
            for reply in replies
        ]

    def _read(self, reply: GeneratedText, labels: Sequence[str]) -> _Reply | RowError:
        try:
            levels_K, reason = parse_ranking(whole_text(reply, self.max_new_tokens), labels)
        except JudgeResponseError as error:
            return error
        return _Reply(level_wins(levels_K), reason, reply.flags, None, reply.usage)


def luce_wins(logprobs_K: Sequence[float]) -> Array:
    """(K, K) the probability that the row's is chosen before the column's: p_row / (p_row + p_column) (Luce 1959)."""
    with np.errstate(invalid="ignore", over="ignore"):
        logs_K = np.array(logprobs_K, dtype=np.float64)
        gap_KK = logs_K[:, None] - logs_K[None, :]
        wins_KK: Array = np.where(np.isnan(gap_KK), 0.5, 1 / (1 + np.exp(-gap_KK)))
    return wins_KK


def level_wins(levels_K: Sequence[int]) -> Array:
    """(K, K) 1 where the row's level is before the column's, 0 where it is after, 0.5 where they are equal."""
    levels = np.array(levels_K)
    wins_KK: Array = (np.sign(levels[None, :] - levels[:, None]) + 1) / 2
    return wins_KK


def parse_ranking(reply: str, labels: Sequence[str]) -> tuple[list[int], str]:
    """The level of each of K labels, 0 for the best, and the reason, in a judge's reply.

    The ranking is the judge's last word: ``{"ranking": ["B", ["A", "C"]]}`` at the end of the reply, where equals stand in a
    list; or the reply is one object with the ``reason`` in it. One that the judge quotes before is part of the reason.

    Raises:
        JudgeResponseError: There is none at the end, or it has not each label once.
    """
    said = after_thinking(reply)
    body = said.removesuffix(_FENCE).rstrip()
    start = max((found.start() for found in _RANKING.finditer(body)), default=0)
    reason = body[:start].rstrip().removesuffix(f"{_FENCE}json").rstrip()
    try:
        reply_object = json.loads(readable_json(body[start:]), strict=False, object_pairs_hook=once_each)
        ranking = reply_object["ranking"]
        reason = reason or str(reply_object.get("reason", ""))
    except (ValueError, LookupError, TypeError, RecursionError):
        ranking = None
    if not isinstance(ranking, list):
        raise JudgeResponseError(f"the judge's reply does not end with a ranking as JSON: {said[-80:]!r}")
    levels: dict[str, int] = {}
    for level, entry in enumerate(ranking):
        for name in entry if isinstance(entry, list) else [entry]:
            named = _LABEL.fullmatch(name) if isinstance(name, str) else None
            label = named[1].upper() if named else ""
            if label not in tuple(labels):
                raise JudgeResponseError(f"the judge's ranking has {str(name)[:40]!r}, which is no response")
            if label in levels:
                raise JudgeResponseError(f"the judge's ranking has {label!r} twice")
            levels[label] = level
    if missing := [label for label in labels if label not in levels]:
        raise JudgeResponseError(f"the judge's ranking leaves out {', '.join(missing)}")
    return [levels[label] for label in labels], reason


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A list as the judge sees it: different texts, and which of them each response is."""

    prompt: str
    texts: tuple[str, ...]
    text_A: tuple[int | None, ...]
    contentless: frozenset[int]
    errors: dict[int, str]
    flags: tuple[str, ...]
    problem: str | None = None


class ListwiseJudge:
    """A language model that compares all responses to a prompt in one call.

    Modes:

    - ``likelihood``: the probabilities with which the judge names each response as the best; of two, the better one is the
      likelier by p / (p + q) (Luce 1959).
    - ``verdict``: the judge explains itself and ends with a ranking as JSON, ties allowed; for servers that give no
      log-probabilities. A reply that names an unknown response, leaves one out, names one twice or ends with no JSON is no
      verdict.

    The prompt and the responses are stated once. Their order is drawn from ``seed`` and the texts, whatever the order in
    which they are given, and each second call has the reverse order of the one before, since judges favour a place; what the
    calls say is averaged. Text is screened first, as in `rlaif_sdk.PairwiseLabeler`: a response without content loses to
    those with one, equal ones tie, both without being shown.

    Example:
        >>> from rlaif_sdk import ListwiseJudge
        >>> from rlaif_sdk.judges import ResponseList, rank_responses
        >>> from rlaif_sdk.testing import ScriptedJudge
        >>> judge = ListwiseJudge(ScriptedJudge(lambda request: {"A": 0.6, "B": 0.4}))  # it likes the first place
        >>> (ranking,) = rank_responses([ResponseList("What is 2 + 2?", ["4", "5"])], judge)
        >>> ranking.wins_AA.round(3).tolist()
        [[0.5, 0.5], [0.5, 0.5]]

    Args:
        backend: The model.
        prompt: What it is asked; by default for helpfulness.
        mode: ``likelihood`` or ``verdict``.
        orders: How often each list is asked about, each time in another order.
        seed: Of the orders.
        temperature: In verdict mode, at which replies are sampled.
        max_chars: The most characters of a prompt, and of a response.
        overlong: What becomes of a longer one: ``error`` compares it with none, ``keep_start`` and ``keep_end`` cut it and
            flag it.
        max_new_tokens: The longest reply in verdict mode.
        view: What of a response is judged: see `rlaif_sdk.PairwiseLabeler`.
        thinking: ``keep`` shows the policy's thinking to the judge.

    Raises:
        ConfigError: An argument is out of range.
    """

    def __init__(
        self,
        backend: JudgeBackend,
        prompt: ListwisePrompt | None = None,
        *,
        mode: PairMode = "likelihood",
        orders: int = 2,
        seed: int = 0,
        temperature: float = 0.0,
        max_chars: int = 24_000,
        overlong: Overlong = "error",
        max_new_tokens: int = 512,
        view: View = "assistant",
        thinking: Thinking = "drop",
    ) -> None:
        if mode not in ("likelihood", "verdict"):
            raise ConfigError(f"unknown mode {mode!r} for a listwise judge", hint="use likelihood or verdict")
        if min(orders, max_chars, max_new_tokens) < 1 or not 0 <= temperature < math.inf:
            raise ConfigError(
                "orders, max_chars and max_new_tokens of a judge are at least 1, and temperature at least 0"
            )
        self.backend = backend
        self.prompt = prompt or ListwisePrompt()
        self.orders = orders
        self._seed = seed
        self._verdict: _Verdict = (
            _BestLikelihood()
            if mode == "likelihood"
            else _WrittenRanking(max_new_tokens, temperature, by_schema=asks_for_schema(backend))
        )
        self._limits = [max_new_tokens, temperature]
        self.screening = Screening(max_chars, overlong, view, thinking)

    def __repr__(self) -> str:
        return short_repr(f"{type(self).__name__} by {type(self.backend).__name__}, {self.orders} orders")

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything that a ranking depends on (the prompt, the way of asking, and the model) by name, JSON-ready."""
        return {
            "prompt": self.prompt.question("", {"A": "", "B": ""}, self._verdict.ending("AB")),
            "mode": [type(self._verdict).__name__, self._verdict.version, *self._limits],
            "orders": [self.orders, self._seed],
            "limits": [self.screening.max_chars, self.screening.overlong],
            "view": [self.screening.view, self.screening.thinking],
            "model": self.backend.identity,
        }

    @property
    def fingerprint(self) -> str:
        """A digest of `settings`; equal where the same lists would get rankings of the same meaning."""
        return json_digest(self.settings)

    async def rank(self, lists: Sequence[ResponseList]) -> list[ResponseRanking]:
        """Compare the responses of B lists.

        Raises:
            JudgeError: A failure that concerns every list: a refused key, an exhausted account, no log-probabilities.
        """
        prepared = [self._prepared(each) for each in lists]
        asked: dict[int, list[tuple[int, list[int], str]]] = {}
        """By how many responses a call is about: the list, their order, and the question."""
        for place, each in enumerate(prepared):
            shown = [text for text in range(len(each.texts)) if text not in each.contentless]
            if each.problem is None and len(shown) > 1:
                for order in self._orders(each, shown):
                    labels = LETTERS[: len(order)]
                    texts = {label: each.texts[text] for label, text in zip(labels, order, strict=True)}
                    question = self.prompt.question(each.prompt, texts, self._verdict.ending(labels))
                    asked.setdefault(len(order), []).append((place, order, question))
        replies: list[list[tuple[list[int], _Reply | RowError]]] = [[] for _ in lists]
        for size, calls in asked.items():
            found = await self._verdict.ask(self.backend, [question for *_, question in calls], LETTERS[:size])
            for (place, order, _), reply in zip(calls, found, strict=True):
                replies[place].append((order, reply))
        return [_combined(each, own) for each, own in zip(prepared, replies, strict=True)]

    def _orders(self, prepared: _Prepared, shown: Sequence[int]) -> list[list[int]]:
        """The orders in which the different texts are shown, equal for equal texts."""
        canonical = sorted(shown, key=lambda text: prepared.texts[text])
        draw = random.Random(json_digest([self._seed, *(prepared.texts[text] for text in canonical)]))  # noqa: S311
        orders: list[list[int]] = []
        for number in range(self.orders):
            orders.append(orders[-1][::-1] if number % 2 else draw.sample(canonical, len(canonical)))
        return orders

    def _prepared(self, asked: ResponseList) -> _Prepared:
        errors: dict[int, str] = {}
        flags: list[str] = []
        numbers: dict[str, int] = {}
        contentless: set[int] = set()
        text_A: list[int | None] = []
        try:
            prompt = self.screening.of_text("prompt", view(asked.prompt, "transcript", role=USER))
        except ConversationError as error:
            unread = dict.fromkeys(range(len(asked.responses)), f"the prompt cannot be read: {error}")
            return _Prepared("", (), (None,) * len(asked.responses), frozenset(), unread, ())
        for place, response in enumerate(asked.responses):
            text_A.append(None)
            try:
                seen = self.screening.of_answer("response", response)
            except ConversationError as error:
                errors[place] = f"cannot be read: {error}"
                continue
            if seen is None:
                errors[place] = "it calls a tool and says nothing; view: transcript shows its calls to the judge"
                continue
            flags += seen.flags
            if seen.overlong:
                errors[place] = seen.overlong
                continue
            number = text_A[place] = numbers.setdefault(seen.text, len(numbers))
            if seen.contentless:
                contentless.add(number)
        shown = len(numbers) - len(contentless)
        problem = prompt.overlong
        if shown > len(LETTERS):
            problem = f"there are {shown} different responses, and a listwise judge compares {len(LETTERS)} at most"
        if contentless:
            flags.append("response_contentless")
        if len(numbers) + len(errors) < len(asked.responses):
            flags.append("identical")
        found = (*prompt.flags, *flags)
        return _Prepared(prompt.text, tuple(numbers), tuple(text_A), frozenset(contentless), errors, found, problem)


def _combined(prepared: _Prepared, replies: Sequence[tuple[list[int], _Reply | RowError]]) -> ResponseRanking:
    """The ranking of all A responses, of what the calls say of the T different texts."""
    answered = [(order, reply) for order, reply in replies if isinstance(reply, _Reply)]
    refused = [reply for _, reply in replies if not isinstance(reply, _Reply)]
    count, empty = len(prepared.texts), sorted(prepared.contentless)
    wins_TT = np.full((count, count), np.nan)
    np.fill_diagonal(wins_TT, 0.5)
    wins_TT[:, empty], wins_TT[empty, :] = 1.0, 0.0
    wins_TT[np.ix_(empty, empty)] = 0.5
    if answered:
        shown = np.ix_(sorted(answered[0][0]), sorted(answered[0][0]))
        summed_TT = np.zeros((count, count))
        for order, reply in answered:
            summed_TT[np.ix_(order, order)] += reply.wins_KK
        wins_TT[shown] = summed_TT[shown] / len(answered)
    places = [place for place, text in enumerate(prepared.text_A) if text is not None]
    texts = [text for text in prepared.text_A if text is not None]
    wins_AA = np.full((len(prepared.text_A),) * 2, np.nan)
    errors = dict(prepared.errors)
    if prepared.problem is None:
        wins_AA[np.ix_(places, places)] = wins_TT[np.ix_(texts, texts)]
    else:
        errors |= dict.fromkeys(places, prepared.problem)
    for place, text in zip(places, texts, strict=True):
        if refused and not answered and text not in prepared.contentless:
            errors.setdefault(place, str(refused[0]))
    masses = [reply.label_mass for _, reply in answered if reply.label_mass is not None]
    failed = ("orders_failed",) if refused and answered else ()
    return ResponseRanking(
        wins_AA,
        errors,
        frozenset(place for place, text in zip(places, texts, strict=True) if text in prepared.contentless),
        tuple(reply.rationale for _, reply in answered if reply.rationale),
        tuple(dict.fromkeys((*prepared.flags, *(flag for _, reply in answered for flag in reply.flags), *failed))),
        min(masses) if masses else None,
        sum((reply.usage for _, reply in answered), sum(map(usage_of, refused), NO_USAGE)),
    )
