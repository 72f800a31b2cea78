"""A judge that rates one answer at a time, as a reward."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from rlaif_sdk.conversations import Images, Thinking, View, policy_turns, read, view
from rlaif_sdk.exceptions import ConfigError, JudgeResponseError
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
    reads_images,
    usage_of,
    whole_text,
    with_usage_of,
)
from rlaif_sdk.judges.prompts import JudgePrompt, Scale, free_tag
from rlaif_sdk.judges.screening import Overlong, PreparedRow, Screening
from rlaif_sdk.rewards import Reward
from rlaif_sdk.types import STD, Conversation, Credit, RewardBatch, Score, SubScore, TextOrConversation

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_VERDICT = re.compile(
    r"[\s>#*_`-]*(?:final\s+)?rating[\s*_`]*:[\s*_`]*(-?[0-9]{1,3}(?:\.[0-9]{1,2})?)[\s*_`]*(?:\.[\s*_`]*)?",
    re.IGNORECASE,
)
_BLAME = re.compile(
    r"[\s>#*_`-]*blame[\s*_`]*:[\s*_`]*(?:turn[\s_]*)?(none|[0-9]{1,4})[\s*_`]*(?:\.[\s*_`]*)?", re.IGNORECASE
)
Mode = Literal["likelihood", "rating"]
Labels = Literal["letters", "numbers"]


class LikelihoodVerdict:
    """Reads how likely each of the K scores is, and takes the expected one.

    Args:
        scale: The scores.
        labels: ``letters`` (A is the lowest score; each is a single token) or ``numbers`` (scored as whole
            continuations, since "10" is not one token everywhere; local models only).
    """

    version = "1"

    def __init__(self, scale: Scale, labels: Literal["letters", "numbers"] = "letters") -> None:
        self._scale = scale
        self._labels_K = tuple(
            _LETTERS[index] if labels == "letters" else str(point) for index, point in enumerate(scale.points)
        )
        by = f"from {scale.low} (worst) to {scale.high} (best)"
        legend = ", ".join(f"{label} = {point}" for label, point in zip(self._labels_K, scale.points, strict=True))
        self.instruction = (
            f"Rate the answer on a scale {by}. Reply with one letter and nothing else: {legend}."
            if labels == "letters"
            else f"Rate the answer with a whole number {by}. Reply with the number and nothing else."
        )

    async def ask(self, backend: JudgeBackend, requests: Sequence[Conversation]) -> list[Score | RowError]:
        """The scores of B requests, each in [-1, 1] with the distribution in its details, and its spread as `STD`."""
        replies = await backend.label_logprobs(requests, self._labels_K)
        return [
            with_usage_of(self._score(reply), reply) if isinstance(reply, LabelLogprobs) else reply
            for reply in one_each(replies, requests)
        ]

    def _score(self, reply: LabelLogprobs) -> Score | RowError:
        try:
            mass = label_mass(reply, self._labels_K)
        except JudgeResponseError as error:
            return error
        distribution_K, expected = expected_score(reply.logprobs, self._scale.points)
        points = dict(zip(self._labels_K, self._scale.points, strict=True))
        variance = math.fsum(
            probability * (point - expected) ** 2
            for point, probability in zip(self._scale.points, distribution_K, strict=True)
        )
        std = math.sqrt(variance) * 2 / (self._scale.high - self._scale.low)
        return Score(
            value=self._scale.to_unit(expected),
            details={
                "expected": expected,
                "distribution": {
                    str(point): probability
                    for point, probability in zip(self._scale.points, distribution_K, strict=True)
                },
                "label_mass": mass,
                "bounded": [points[label] for label in reply.bounded],
                "flags": [*reply.flags, *(["bounded"] if reply.bounded else [])],
                "usage": reply.usage.record(),
            },
            subscores={STD: SubScore(std)},
        )


def expected_score(logprobs_K: Sequence[float], points_K: Sequence[float]) -> tuple[list[float], float]:
    """The normalised distribution over K scores, and its mean s = sum_i i P(i).

    Args:
        logprobs_K: Log-probabilities, at least one of them finite; they need not sum to one.
        points_K: The scores.
    """
    greatest = max(logprobs_K)
    weights_K = [math.exp(logprob - greatest) for logprob in logprobs_K]
    total = math.fsum(weights_K)
    distribution_K = [weight / total for weight in weights_K]
    mean = math.fsum(point * probability for point, probability in zip(points_K, distribution_K, strict=True))
    return distribution_K, min(max(mean, min(points_K)), max(points_K))


class RatingVerdict:
    """Asks for a justification and a rating, and reads the rating strictly.

    Args:
        scale: The least and greatest rating.
        max_new_tokens: The longest reply; one that is cut off there is no verdict.
        blame: Ask which turn of the answer takes most from the rating, too.
    """

    version = "1"

    def __init__(self, scale: Scale, max_new_tokens: int = 256, *, blame: bool = False) -> None:
        self._scale = scale
        self._max_new_tokens = max_new_tokens
        self._blame = blame
        asked = (
            " Then say on a line of its own which turn takes most from the rating: 'Blame: ' and the number of the turn, 1 "
            "where the turns are not numbered, or 'Blame: none' where nothing is at fault."
        )
        self.instruction = (
            f"First justify your verdict in one or two sentences.{asked if blame else ''} Then end with a line of its own: "
            f"'Rating: ' and a number with two decimals from {scale.low:.2f} (worst) to {scale.high:.2f} (best)."
        )

    async def ask(self, backend: JudgeBackend, requests: Sequence[Conversation]) -> list[Score | RowError]:
        """The scores of B requests, each in [-1, 1] with the justification as its reason."""
        replies = await backend.generate(requests, max_new_tokens=self._max_new_tokens)
        return [
            with_usage_of(self._score(reply), reply) if isinstance(reply, GeneratedText) else reply
            for reply in one_each(replies, requests)
        ]

    def _score(self, reply: GeneratedText) -> Score | RowError:
        try:
            rating, justification = parse_rating(whole_text(reply, self._max_new_tokens), self._scale)
        except JudgeResponseError as error:
            return error
        details: dict[str, Any] = {"rating": rating, "flags": list(reply.flags), "usage": reply.usage.record()}
        if self._blame:
            blamed, justification = parse_blame(justification)
            details["blamed"] = blamed if isinstance(blamed, int) else None
            details["flags"] += ["no_blame_line"] if blamed is None else []
        return Score(value=self._scale.to_unit(rating), reason=justification or None, details=details)


def parse_rating(reply: str, scale: Scale) -> tuple[float, str]:
    """The rating and the justification in a judge's reply.

    The rating is the judge's last word: the last line that is not empty, ``Rating: 3.50`` and nothing more, with
    ASCII digits. A rating that the judge quotes before is part of the justification.

    Raises:
        JudgeResponseError: The last line is no rating, or lies outside the scale.
    """
    last, reason = closing_line(reply)
    match = _VERDICT.fullmatch(last)
    if not match:
        raise JudgeResponseError(f"the judge's last line is no rating: {last[:80]!r}")
    rating = float(match[1])
    if not scale.low <= rating <= scale.high:
        raise JudgeResponseError(f"the judge's rating {match[1]} is not from {scale.low} to {scale.high}")
    return rating, reason


def parse_blame(justification: str) -> tuple[int | Literal["none"] | None, str]:
    """Which turn a judge blames, and what it says beside that.

    The blame is the last line that is nothing else: ``Blame: 2`` or ``Blame: none``, with ASCII digits.

    Returns:
        The number, ``none``, or None where there is no such line; and the justification without the line.
    """
    lines = justification.splitlines()
    for place in reversed(range(len(lines))):
        if match := _BLAME.fullmatch(lines[place]):
            rest = "\n".join([*lines[:place], *lines[place + 1 :]]).strip()
            return ("none" if match[1].lower() == "none" else int(match[1])), rest
    return None, justification


def blamed(score: Score, turns: int) -> Score:
    """A score in [-1, 1], what it lacks of 1 as credit on the turn that the judge blames.

    A turn that is not there gets none, and the flags say so: ``blames_turn_7_of_3``.

    Args:
        score: The score, with the number of the turn as ``blamed`` in its details, or None.
        turns: How many turns the policy has.
    """
    number = score.details.get("blamed")
    if number is None or score.value is None:
        return score
    if not 1 <= number <= turns:
        flags = [*score.details["flags"], f"blames_turn_{number}_of_{turns}"]
        return replace(score, details={**score.details, "flags": flags, "blamed": None})
    lacks = [score.value - 1.0 if turn == number else 0.0 for turn in range(1, turns + 1)]
    return replace(score, credit=Credit(turns=lacks, rest=1.0))


class Verdict(Protocol):
    """The way in which a judge's answer becomes a score."""

    version: str
    instruction: str

    async def ask(self, backend: JudgeBackend, requests: Sequence[Conversation]) -> list[Score | RowError]:
        """The scores of B requests, each in [-1, 1]."""


@dataclass(frozen=True, slots=True)
class _Question:
    request: Conversation
    flags: tuple[str, ...]
    row: int


class PointwiseJudge(Reward):
    """A language model that rates answers; the score is in [-1, 1].

    Modes:

    - ``likelihood``: the likelihoods of the scale's scores, normalised; the score is their mean s = sum i P(i)
      (Lee et al. 2023, "direct RLAIF"), mapped linearly to [-1, 1]. The distribution is in the details, and its standard
      deviation, in the score's units, is the sub-score ``std``, by which a panel can weigh how sure the judge is.
    - ``rating``: the judge writes a justification and a rating with two decimals; the justification is the reason.

    Text is screened first (see `rlaif_sdk.judges.screening`), and what was changed is flagged in the reason and the
    details. An answer without content gets -1 without asking the judge, ``refused`` in its details: it is the policy's
    doing, and leaving it unscored would not discourage it. Where the policy called a tool and said nothing, the judge
    abstains. Whatever else goes wrong leaves the row unscored with an
    error; a refused key, an exhausted account or a server without log-probabilities raises. What a row took is under
    ``usage`` in its details.

    Example:
        >>> from rlaif_sdk import Composer, JudgePrompt, PointwiseJudge, RewardBatch
        >>> from rlaif_sdk.testing import ScriptedJudge
        >>> backend = ScriptedJudge(lambda request: {"J": 1.0})  # a model that is sure of the best of ten scores
        >>> with Composer({"judge": PointwiseJudge(backend, JudgePrompt())}) as composer:
        ...     composer.compose(RewardBatch(["What is 2 + 2?"], ["4"])).to_list()
        [1.0]

    Args:
        backend: The model.
        prompt: What it is asked.
        mode: ``likelihood`` or ``rating``.
        scale: By default 1 to 10 in likelihood mode, 1 to 5 in rating mode.
        labels: ``letters`` or ``numbers``, in likelihood mode.
        max_chars: The most characters of a prompt, and of an answer.
        overlong: What becomes of a longer one: ``error`` leaves the row unscored, ``keep_start`` and ``keep_end``
            cut it and flag it.
        max_new_tokens: The longest reply in rating mode.
        blame: In rating mode, let the judge name the turn that takes most from the rating, the policy's turns being numbered
            where there are several. What the score lacks of 1 is then credit on that turn. One that names no turn, or one
            that is not there, gives no credit, which is flagged.
        view: What of a completion is judged: ``answer``, its last words; ``assistant``, all that the policy said;
            ``transcript``, everything, calls and results too. Of the prompt it is the transcript.
        thinking: ``keep`` shows the policy's thinking to the judge.
        reference_column: The column with a row's reference answer, which the judge sees; a row without one is judged
            without it.
        name: The reward's name.

    Raises:
        ConfigError: An argument is out of range, or the template has no place for the reference.
    """

    range = (-1.0, 1.0)
    ends = ("bad", "good")

    def __init__(
        self,
        backend: JudgeBackend,
        prompt: JudgePrompt | None = None,
        *,
        mode: Mode = "likelihood",
        scale: Scale | None = None,
        labels: Labels = "letters",
        max_chars: int = 24_000,
        overlong: Overlong = "error",
        max_new_tokens: int = 256,
        blame: bool = False,
        view: View = "assistant",
        thinking: Thinking = "drop",
        reference_column: str | None = None,
        name: str = "judge",
    ) -> None:
        if max_chars < 1 or max_new_tokens < 1:
            raise ConfigError("max_chars and max_new_tokens of a judge are at least 1")
        if blame and mode != "rating":
            raise ConfigError(f"a judge names no turn in mode {mode!r}", key="blame", hint="use mode: rating")
        if blame and view == "answer":
            raise ConfigError(
                "the judge sees the last turn only, and may blame no other",
                key="blame",
                hint="view: assistant, or transcript",
            )
        self.name = name
        self.backend = backend
        self.reads_images = reads_images(backend)
        self.prompt = prompt or JudgePrompt()
        if reference_column is not None and not self.prompt.shows_reference:
            raise ConfigError("the judge's template lacks {reference}", hint="reference_column has it shown there")
        self._reference_column = reference_column
        self.inputs = self.columns = () if reference_column is None else (reference_column,)
        self._blames = blame
        self.verdict: Verdict = _verdict(mode, scale, labels, max_new_tokens, blame=blame)
        self.screening = Screening(max_chars, overlong, view, thinking)
        self.version = self._fingerprint(max_new_tokens)

    def __repr__(self) -> str:
        return short_repr(f"PointwiseJudge {self.name!r} by {type(self.backend).__name__}")

    def setup(self) -> None:
        """Load the model, or check the server's settings."""
        self.backend.setup()

    def close(self) -> None:
        """Release the model or the connections."""
        self.backend.close()

    def model_calls(self, rows: int) -> int:
        """One for each completion."""
        return rows

    async def score(self, batch: RewardBatch) -> list[Score]:
        """Rate B completions. See the class for what each score means and which errors are raised."""
        answers: Sequence[str | None] = batch.views(self.screening.view, thinking=self.screening.thinking)
        images = batch.images if self.reads_images else {}
        asked = zip(batch.prompt_texts, answers, batch.references(self._reference_column), strict=True)
        rows = [self._question(batch, place, *row, images.get(place, ())) for place, row in enumerate(asked)]
        questions = [row for row in rows if isinstance(row, _Question)]
        if not questions:
            return [row for row in rows if isinstance(row, Score)]
        verdicts = await self.verdict.ask(self.backend, [question.request for question in questions])
        if self._blames:
            turns = [len(batch.policy_turns[question.row]) for question in questions]
            verdicts = [
                blamed(verdict, count) if isinstance(verdict, Score) else verdict
                for verdict, count in zip(verdicts, turns, strict=True)
            ]
        said = iter(verdicts)
        return [scored(next(said), row.flags) if isinstance(row, _Question) else row for row in rows]

    def _question(
        self,
        batch: RewardBatch,
        place: int,
        prompt: str,
        answer: str | None,
        reference: str | Score | None,
        images: Images,
    ) -> _Question | Score:
        row = self.screening.of_row(prompt, answer, reference, images)
        if self._blames and isinstance(row, PreparedRow) and not row.contentless:
            row = self.screening.of_row(prompt, self._numbered(batch.completions[place], answer), reference, images)
        if isinstance(row, Score):
            return row
        if row.contentless:
            flags = [flag.removeprefix("answer_") for flag in row.flags if flag.startswith("answer_")]
            return Score(
                value=self.range[0],
                reason=f"refused before judging: {row.contentless}",
                details={"refused": "contentless", "flags": flags},
            )
        request = self.prompt.render(row.prompt, row.answer, self.verdict.instruction, row.reference, row.images)
        return _Question(request, row.flags, place)

    def _numbered(self, completion: TextOrConversation, answer: str | None) -> str | None:
        """An answer of several turns, each between tags that have its number and occur in none of them."""
        turns = read(completion)
        spans = policy_turns(turns)
        if len(spans) < 2:
            return answer
        seen, thinking = self.screening.view, self.screening.thinking
        after = [start for start, _ in spans[1:]] + [len(turns)] if seen == "transcript" else [end for _, end in spans]
        texts = [
            view(turns[start:end], seen, thinking=thinking) or "" for (start, _), end in zip(spans, after, strict=True)
        ]
        names = [f"turn_{number}" for number in range(1, len(texts) + 1)]
        tag = free_tag(names, texts)
        return "\n\n".join(f"<{name}{tag}>\n{text}\n</{name}{tag}>" for name, text in zip(names, texts, strict=True))

    def _fingerprint(self, max_new_tokens: int) -> str:
        parts: dict[str, Any] = {
            "asked": self.prompt.render(
                "", "", self.verdict.instruction, None if self._reference_column is None else ""
            ),
            "verdict": [type(self.verdict).__name__, self.verdict.version, max_new_tokens],
            "limits": [self.screening.max_chars, self.screening.overlong],
            "view": [self.screening.view, self.screening.thinking],
            "backend": self.backend.identity,
        }
        return json_digest(parts)


def _verdict(mode: str, scale: Scale | None, labels: Labels, max_new_tokens: int, *, blame: bool) -> Verdict:
    if labels not in ("letters", "numbers"):
        raise ConfigError(f"unknown labels {labels!r} for a judge", hint="use letters or numbers")
    if mode == "likelihood":
        return LikelihoodVerdict(scale or Scale(1, 10), labels)
    if mode == "rating":
        return RatingVerdict(scale or Scale(1, 5), max_new_tokens, blame=blame)
    raise ConfigError(f"unknown mode {mode!r} for a judge", hint="use likelihood or rating")


def scored(verdict: Score | RowError, flags: tuple[str, ...]) -> Score:
    """The score of a verdict, or the failure, with what was done to the texts before."""
    if not isinstance(verdict, Score):
        usage = usage_of(verdict).record()
        return Score.failed(str(verdict), kind=type(verdict).__name__, flags=list(flags), usage=usage)
    found = [*flags, *verdict.details["flags"]]
    told = f"flagged: {', '.join(found)}"
    reason = verdict.reason if not found else f"{verdict.reason} ({told})" if verdict.reason else told
    return replace(verdict, reason=reason, details={**verdict.details, "flags": found})
