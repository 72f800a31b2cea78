"""Scoring in batches of similar length: padding is the first cost of a classifier, so little of it is made."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rlaif_sdk.conversations.messages import Turn
from rlaif_sdk.conversations.templates import ChatTemplate
from rlaif_sdk.exceptions import BatchError, ConversationError, RewardError
from rlaif_sdk.io.text import short_repr
from rlaif_sdk.io.token_batches import token_batches
from rlaif_sdk.models.classifier import ProblemType
from rlaif_sdk.models.encoding import EncoderInput, JoinedText, TemplatedText, TextEncoder, TokenArrays
from rlaif_sdk.models.scoring_config import ScoringConfig
from rlaif_sdk.types import Conversation

logger = logging.getLogger(__name__)

InT = TypeVar("InT")
OutT = TypeVar("OutT")

_CHARACTERS_PER_TOKEN = 4
_BATCHES_AHEAD = 4
"""About so many batches' worth of text are tokenized at once, while those before them are scored."""


@dataclass(frozen=True, slots=True)
class ChatSource:
    """How a model's own files render messages.

    Attributes:
        template: Jinja source; None where the model has none.
        special_tokens: Tokens by the name that the template knows them by, such as ``bos_token``.
    """

    template: str | None = None
    special_tokens: Mapping[str, str] = field(default_factory=dict)


class BatchedClassifier(ABC):
    """A `Classifier` less its forward pass: scores duplicates once, sorts by length, restores the order.

    Texts are tokenized in windows of similar length, each while the window before it is scored.

    Safe to call from several threads; the calls wait for each other.

    Args:
        name: What the user called the model, for errors.
        reading: How the model is read.
        chat: How it renders messages.
        revision: As `Classifier.revision`.
        encoder: Makes token arrays of texts.
        tokens_per_batch: Most tokens, padding included, in one forward pass.

    Attributes:
        tokens_per_batch: As the argument; may be set at any time. The others are as the arguments.
    """

    def __init__(
        self,
        *,
        name: str,
        reading: ScoringConfig,
        chat: ChatSource,
        revision: str,
        encoder: TextEncoder,
        tokens_per_batch: int,
    ) -> None:
        self.name = name
        self.reading = reading
        self.chat = chat
        self.revision = revision
        self.truncated = 0
        self.tokens_per_batch = tokens_per_batch
        self.encoder = encoder
        self._lock = threading.Lock()
        self._closed = False
        self._template: ChatTemplate | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The L label names, in the order of the logits."""
        return self.reading.labels

    @property
    def problem_type(self) -> ProblemType:
        """As `Classifier.problem_type`."""
        return self.reading.problem_type

    def rendered(self, conversation: Conversation | Sequence[Turn]) -> TemplatedText:
        """A conversation that ends with the answer to score, in the model's chat template.

        Raises:
            BatchError: The template refuses it, or the model has none.
        """
        if self._template is None:
            if self.chat.template is None:
                raise BatchError(
                    f"{self.name} has no chat template, and the row is of messages",
                    hint="give texts, or pairs of prompt and completion",
                )
            self._template = ChatTemplate(
                self.chat.template, special_tokens=self.chat.special_tokens, inert=self.encoder.special.inert
            )
        try:
            return TemplatedText(self._template.render(conversation))
        except ConversationError as error:
            raise BatchError(error.message, hint=error.hint) from error

    def __repr__(self) -> str:
        return short_repr(f"{type(self).__name__} {self.name!r} labels={self.labels}")

    @abstractmethod
    def forward(self, tokens: TokenArrays) -> NDArray[np.float32]:
        """The logits (N, L) of one padded batch."""

    @abstractmethod
    def _release(self) -> None:
        """Drop the model."""

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> NDArray[np.float32]:
        """The raw logits, shape (N, L), in input order (see `Classifier.logits`).

        An input without a single token has NaN, there is nothing to read, and one with a token that the model does not
        know, which a tokenizer has where tokens were added to it alone.

        Raises:
            BatchError: An entry is no string, or ``pairs`` has another length than ``texts``.
            RewardError: The classifier is closed, or its model gives another number of logits than it has labels.
        """
        first = checked_texts("texts", texts)
        if pairs is None:
            return self.logits_of(first)
        second = checked_texts("pairs", pairs)
        if len(first) != len(second):
            raise BatchError(f"pairs has {len(second)} entries where texts has {len(first)}")
        return self.logits_of(list(zip(first, second, strict=True)))

    def logits_of(self, inputs: Sequence[EncoderInput]) -> NDArray[np.float32]:
        """`logits` of texts, pairs and rendered conversations, mixed as they come."""
        with self._lock:
            if self._closed:
                raise RewardError(f"the classifier {self.name!r} is closed")
            return self._score(inputs)

    def _score(self, inputs: Sequence[EncoderInput]) -> NDArray[np.float32]:
        unique = sorted(dict.fromkeys(inputs), key=_characters, reverse=True)
        position = {single: row for row, single in enumerate(unique)}
        scored_UL = np.empty((len(unique), len(self.labels)), dtype=np.float32)
        was_cut: list[bool] = []
        for encodings, cut in _one_ahead(self.encoder.encode, self._windows(unique)):
            first = len(was_cut)
            was_cut += cut
            lengths = [len(encoding) for encoding in encodings]
            for rows in token_batches(lengths, self.tokens_per_batch, unpadded=self.reading.unpadded):
                batch_NL = self._checked_forward(self.encoder.pad([encodings[row] for row in rows]))
                scored_UL[[first + row for row in rows]] = batch_NL
        rows_of_input = [position[single] for single in inputs]
        self._count_cut(sum(was_cut[row] for row in rows_of_input))
        return scored_UL[rows_of_input]

    def _count_cut(self, cut: int) -> None:
        """Count inputs that were cut, and say so the first time: whoever reads scores alone would never know."""
        if cut and not self.truncated:
            logger.warning(
                "%s reads %d tokens of an input at most; longer ones are cut on the %s: %d so far, later ones are only counted",
                self.name,
                self.encoder.max_length,
                self.encoder.truncation_side,
                cut,
            )
        self.truncated += cut

    def _windows(self, inputs: Sequence[EncoderInput]) -> Iterator[list[EncoderInput]]:
        room = _BATCHES_AHEAD * self.tokens_per_batch * _CHARACTERS_PER_TOKEN
        window: list[EncoderInput] = []
        filled = 0
        for single in inputs:
            window.append(single)
            filled += _characters(single)
            if filled >= room:
                yield window
                window, filled = [], 0
        if window:
            yield window

    def _checked_forward(self, tokens: TokenArrays) -> NDArray[np.float32]:
        read_N = tokens.attention_mask.any(axis=1)
        if self.reading.vocabulary is not None:
            known_NT = tokens.input_ids < self.reading.vocabulary
            if not known_NT.all():  # such a row is not read, and takes no other with it
                read_N &= known_NT.all(axis=1)
                tokens = replace(tokens, input_ids=np.where(known_NT, tokens.input_ids, self.reading.fill_id))
        batch_NL = np.array(self.forward(tokens))
        expected = (len(tokens.input_ids), len(self.labels))
        if batch_NL.shape != expected:
            raise RewardError(
                f"the classifier {self.name!r} gave logits of shape {batch_NL.shape} for {expected[0]} texts and "
                f"{expected[1]} labels",
                hint="its config.json must list one label a logit, under id2label",
            )
        batch_NL[~read_N] = np.nan
        return batch_NL

    def close(self) -> None:
        """Release the model (see `Classifier.close`)."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._release()


def _one_ahead(function: Callable[[InT], OutT], items: Iterable[InT]) -> Iterator[OutT]:
    """``map(function, items)``, where each result but the first is made in a thread while the last one is used."""
    remaining = iter(items)
    first_two = list(islice(remaining, 2))
    if len(first_two) < 2:
        yield from map(function, first_two)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="rlaif-tokenize") as pool:
        ahead = [pool.submit(function, item) for item in first_two]
        while ahead:
            yield ahead.pop(0).result()
            ahead += [pool.submit(function, item) for item in islice(remaining, 1)]


def _characters(single: EncoderInput) -> int:
    if isinstance(single, TemplatedText | JoinedText):
        return len(single.text)
    return len(single) if isinstance(single, str) else sum(map(len, single))


def checked_texts(field: str, values: Sequence[str]) -> list[str]:
    """The texts, with what cannot be encoded in UTF-8 replaced.

    Raises:
        BatchError: An entry is no string; the message names ``field`` and the row.
    """
    if isinstance(values, str):
        raise BatchError(f"{field} must be a sequence of strings, not one string")
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise BatchError(f"{field}[{row}] must be a string, not {type(value).__name__}")
    return [value.encode("utf-8", "replace").decode("utf-8") for value in values]
