"""A judge that says which of two answers is better: the AI labeler of RLAIF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlaif_sdk.conversations import USER, Thinking, View, view
from rlaif_sdk.exceptions import ConfigError, ConversationError
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.judges.backends import JudgeBackend, RowError, usage_of
from rlaif_sdk.judges.pairwise_labels import Pair, PairLabel, labelled, unlabelled
from rlaif_sdk.judges.pairwise_prompt import PairwisePrompt
from rlaif_sdk.judges.pointwise import Overlong
from rlaif_sdk.judges.preference import LikelihoodPreference, Ordered, Preference, WrittenPreference
from rlaif_sdk.judges.screening import contentless, screen
from rlaif_sdk.judges.usage import NOTHING

PairMode = Literal["likelihood", "verdict"]
Orders = Literal["both", "given"]


@dataclass(frozen=True, slots=True)
class _Question:
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
        orders: ``both``, or ``given`` for the given order alone (half the cost, with the judge's position bias).
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
        self._max_chars = max_chars
        self._overlong = overlong
        self._view: View = view
        self._thinking: Thinking = thinking

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
            "limits": [self._max_chars, self._overlong, self._tie_margin],
            "view": [self._view, self._thinking],
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
        questions = [row for row in rows if isinstance(row, _Question)]
        asked = [order for question in questions for order in self._in_orders(question.asked)]
        repeated = [order for order in asked for _ in range(self._samples)]
        replies = iter(await self.verdict.ask(self.backend, repeated) if repeated else ())
        orders = 2 if self._orders == "both" else 1
        return [
            self._combined([[next(replies) for _ in range(self._samples)] for _ in range(orders)], row.flags)
            if isinstance(row, _Question)
            else row
            for row in rows
        ]

    def _in_orders(self, asked: Ordered) -> list[Ordered]:
        turned = Ordered(asked.prompt, asked.second, asked.first)
        return [asked, turned] if self._orders == "both" else [asked]

    def _question(self, pair: Pair) -> _Question | PairLabel:
        try:
            shown = {
                "prompt": view(pair.prompt, "transcript", role=USER),
                "response_1": view(pair.response_1, self._view, thinking=self._thinking),
                "response_2": view(pair.response_2, self._view, thinking=self._thinking),
            }
        except ConversationError as error:
            return unlabelled(f"cannot be read: {error}", kind="ConversationError")
        texts, flags = {}, []
        for name, text in shown.items():
            if text is None:
                problem = f"{name} calls a tool and says nothing; view: transcript shows its calls to the judge"
                return unlabelled(problem, kind="ConversationError")
            screened = screen(text)
            texts[name] = screened.text
            flags += [f"{name}_{flag}" for flag in screened.flags]
        first, second = texts["response_1"], texts["response_2"]
        if first == second:
            return PairLabel(0.5, hard=True, tie=True, flags=(*flags, "identical"))
        empty = [bool(contentless(text)) for text in (first, second)]
        if any(empty):
            prob_1 = 0.5 + 0.5 * (empty[1] - empty[0])
            refused = [
                f"{name}_contentless" for name, no in zip(("response_1", "response_2"), empty, strict=True) if no
            ]
            return PairLabel(prob_1, hard=True, tie=all(empty), flags=(*flags, *refused))
        for name, text in texts.items():
            if len(text) <= self._max_chars:
                continue
            if self._overlong == "error":
                problem = f"the {name} has {len(text)} characters and the judge's max_chars is {self._max_chars}"
                return unlabelled(problem, flags=tuple(flags))
            keep = slice(self._max_chars) if self._overlong == "keep_start" else slice(-self._max_chars, None)
            texts[name] = text[keep]
            flags.append(f"{name}_truncated")
        return _Question(Ordered(texts["prompt"], texts["response_1"], texts["response_2"]), tuple(flags))

    def _combined(self, replies: list[list[Preference | RowError]], flags: tuple[str, ...]) -> PairLabel:
        """The label that the samples of each order make together; each order needs one verdict at least."""
        usage = sum((r.usage if isinstance(r, Preference) else usage_of(r) for own in replies for r in own), NOTHING)
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
