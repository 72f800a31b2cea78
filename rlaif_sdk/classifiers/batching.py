"""Scoring in batches of similar length: padding is the first cost of a classifier, so little of it is made."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rlaif_sdk.classifiers.encoding import TextEncoder, TextOrPair, TokenArrays
from rlaif_sdk.exceptions import BatchError, RewardError


def token_batches(lengths: Sequence[int], tokens_per_batch: int) -> Iterator[list[int]]:
    """Rows in batches, longest first, each of at most ``tokens_per_batch`` tokens after padding, or of one row."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens_per_batch:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


class BatchedClassifier(ABC):
    """A `Classifier` less its forward pass: scores duplicates once, sorts by length, restores the order.

    Safe to call from several threads; the calls wait for each other.

    Args:
        name: What the user called the model, for errors.
        labels: The L label names.
        multi_label: As `Classifier.multi_label`.
        revision: As `Classifier.revision`.
        encoder: Makes token arrays of texts.
        tokens_per_batch: Most tokens, padding included, in one forward pass.
    """

    def __init__(
        self,
        *,
        name: str,
        labels: tuple[str, ...],
        multi_label: bool,
        revision: str,
        encoder: TextEncoder,
        tokens_per_batch: int,
    ) -> None:
        self.name = name
        self.labels = labels
        self.multi_label = multi_label
        self.revision = revision
        self.truncated = 0
        self._encoder = encoder
        self._tokens_per_batch = tokens_per_batch
        self._lock = threading.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} labels={self.labels}>"

    @abstractmethod
    def _forward(self, tokens: TokenArrays) -> NDArray[np.float32]:
        """The logits (N, L) of one padded batch."""

    @abstractmethod
    def _release(self) -> None:
        """Drop the model."""

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> NDArray[np.float32]:
        """The raw logits, shape (N, L), in input order (see `Classifier.logits`).

        Raises:
            BatchError: An entry is no string, or ``pairs`` has another length than ``texts``.
            RewardError: The classifier is closed, or its model gives another number of logits than it has labels.
        """
        inputs = _checked_inputs(texts, pairs)
        with self._lock:
            if self._closed:
                raise RewardError(f"the classifier {self.name!r} is closed")
            return self._score(inputs)

    def _score(self, inputs: list[TextOrPair]) -> NDArray[np.float32]:
        unique = list(dict.fromkeys(inputs))
        position = {text: row for row, text in enumerate(unique)}
        encodings, was_cut = self._encoder.encode(unique)
        scored_UL = np.empty((len(unique), len(self.labels)), dtype=np.float32)
        for rows in token_batches([len(encoding) for encoding in encodings], self._tokens_per_batch):
            batch_NL = self._forward(self._encoder.pad([encodings[row] for row in rows]))
            if batch_NL.shape != (len(rows), len(self.labels)):
                raise RewardError(
                    f"the classifier {self.name!r} gave logits of shape {batch_NL.shape} for {len(rows)} texts and "
                    f"{len(self.labels)} labels",
                    hint="its config.json must list one label a logit, under id2label",
                )
            scored_UL[rows] = batch_NL
        rows_of_input = [position[text] for text in inputs]
        self.truncated += sum(was_cut[row] for row in rows_of_input)
        return scored_UL[rows_of_input]

    def close(self) -> None:
        """Release the model (see `Classifier.close`)."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._release()


def _checked_inputs(texts: Sequence[str], pairs: Sequence[str] | None) -> list[TextOrPair]:
    first = _checked_texts("texts", texts)
    if pairs is None:
        return list(first)
    second = _checked_texts("pairs", pairs)
    if len(first) != len(second):
        raise BatchError(f"pairs has {len(second)} entries where texts has {len(first)}")
    return list(zip(first, second, strict=True))


def _checked_texts(field: str, values: Sequence[str]) -> list[str]:
    if isinstance(values, str):
        raise BatchError(f"{field} must be a sequence of strings, not one string")
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise BatchError(f"{field}[{row}] must be a string, not {type(value).__name__}")
    return [value.encode("utf-8", "replace").decode("utf-8") for value in values]
