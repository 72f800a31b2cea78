"""Text to token ids, cut where the completion stays whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

TruncationSide: TypeAlias = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class TemplatedText:
    """A conversation as a chat template renders it: its special tokens count as such, and none are added."""

    text: str


@dataclass(frozen=True, slots=True)
class JoinedText:
    """A prompt and its completion, one after the other: special tokens in them are ordinary text."""

    text: str


EncoderInput: TypeAlias = str | tuple[str, str] | TemplatedText | JoinedText


@dataclass(frozen=True, slots=True)
class TokenArrays:
    """N token sequences padded on the right to a common length T; all arrays are int64, shape (N, T)."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]


class TextEncoder:
    """Tokenizes texts and pairs, and cuts those longer than ``max_length`` tokens, special tokens included.

    A special token spelled out in a text is read as ordinary text: a completion cannot close its own segment by
    writing ``</s>``. Only in a `TemplatedText` special tokens act.

    What ends with a completion (`TemplatedText`, `JoinedText`) is cut on the left, so that a long prompt never costs the
    completion. Of a pair the longer part is cut first.

    Args:
        tokenizer: A copy of it is kept.
        max_length: Longest sequence that the model takes, in tokens.
        truncation_side: Where an over-long text or pair is cut.
        pad_id: Fills up shorter rows.

    Attributes:
        max_length: As the argument, with ``truncation_side`` and ``pad_id``.
        special_tokens: Those that act in a `TemplatedText`.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, max_length: int, truncation_side: TruncationSide = "right", pad_id: int = 0
    ) -> None:
        serialized = tokenizer.to_str()
        self._whole, self._cut, self._templated = (type(tokenizer).from_str(serialized) for _ in range(3))
        for copy in (self._whole, self._cut, self._templated):
            copy.encode_special_tokens = copy is not self._templated
            copy.no_padding()
            copy.no_truncation()
        self.max_length = max_length
        self.special_tokens = tuple(
            token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special
        )
        self.truncation_side = truncation_side
        self.pad_id = pad_id

    def encode(self, inputs: Sequence[EncoderInput]) -> tuple[list[Encoding], list[bool]]:
        """The encodings of N inputs, none longer than the maximum, and for each whether it was cut."""
        if any(isinstance(single, TemplatedText) for single in inputs):
            encodings = [self._encode_whole(single) for single in inputs]
        else:
            encodings = self._whole.encode_batch([_plain(single) for single in inputs])
        was_cut = [len(encoding) > self.max_length for encoding in encodings]
        for row, cut in enumerate(was_cut):
            if cut:
                encodings[row] = self._encode_cut(inputs[row])
        return encodings, was_cut

    def _encode_whole(self, single: EncoderInput) -> Encoding:
        if isinstance(single, TemplatedText):
            return self._templated.encode(single.text, add_special_tokens=False)
        plain = _plain(single)
        return self._whole.encode(plain) if isinstance(plain, str) else self._whole.encode(*plain)

    def _encode_cut(self, single: EncoderInput) -> Encoding:
        if isinstance(single, TemplatedText):
            encoding = self._encode_whole(single)
            encoding.truncate(self.max_length, direction="left")
            return encoding
        side = "left" if isinstance(single, JoinedText) else self.truncation_side
        self._cut.enable_truncation(self.max_length, strategy="longest_first", direction=side)
        plain = _plain(single)
        return self._cut.encode(plain) if isinstance(plain, str) else self._cut.encode(*plain)

    def pad(self, encodings: Sequence[Encoding]) -> TokenArrays:
        """Encodings as arrays, as wide as the longest of them and at least 1."""
        shape = (len(encodings), max(1, *map(len, encodings)) if encodings else 1)
        arrays = TokenArrays(
            input_ids=np.full(shape, self.pad_id, dtype=np.int64),
            attention_mask=np.zeros(shape, dtype=np.int64),
            token_type_ids=np.zeros(shape, dtype=np.int64),
        )
        for row, encoding in enumerate(encodings):
            arrays.input_ids[row, : len(encoding)] = encoding.ids
            arrays.attention_mask[row, : len(encoding)] = 1
            arrays.token_type_ids[row, : len(encoding)] = encoding.type_ids
        return arrays


def _plain(single: EncoderInput) -> str | tuple[str, str]:
    return single.text if isinstance(single, JoinedText | TemplatedText) else single
