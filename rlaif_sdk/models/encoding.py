"""Text to token ids, cut where the completion stays whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlaif_sdk.conversations.special_tokens import BREAK, SpecialTokens

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

TruncationSide: TypeAlias = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class TemplatedText:
    """A conversation as `rlaif_sdk.conversations.templates.ChatTemplate` renders it.

    Its special tokens count as such, but none is read across a `rlaif_sdk.conversations.special_tokens.BREAK`, and none
    are added.
    """

    text: str


@dataclass(frozen=True, slots=True)
class JoinedText:
    """A prompt and its completion, one after the other: special tokens in them are ordinary text."""

    text: str


EncoderInput: TypeAlias = str | tuple[str, str] | TemplatedText | JoinedText


@dataclass(frozen=True, slots=True)
class TokenArrays:
    """N token sequences padded to a common length T; all arrays are int64, shape (N, T)."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]


class TextEncoder:
    """Tokenizes texts and pairs, and cuts those longer than ``max_length`` tokens, special tokens included.

    A special token spelled out in a text, in whatever way the tokenizer's normaliser knows, is read as ordinary text: a
    completion cannot close its own segment by writing ``</s>``. Only in a `TemplatedText` special tokens act.

    What ends with a completion (`TemplatedText`, `JoinedText`) is cut on the left, so that a long prompt never costs the
    completion. Of a pair the longer part is cut first.

    Args:
        tokenizer: A copy of it is kept.
        max_length: Longest sequence that the model takes, in tokens.
        truncation_side: Where an over-long text or pair is cut.
        pad_id: Fills up shorter rows.

    Attributes:
        max_length: As the argument, with ``truncation_side`` and ``pad_id``.
        special: Those that act in a `TemplatedText`.
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
        self.special = SpecialTokens.of(tokenizer)
        self.truncation_side = truncation_side
        self.pad_id = pad_id

    def encode(self, inputs: Sequence[EncoderInput]) -> tuple[list[Encoding], list[bool]]:
        """The encodings of N inputs, none longer than the maximum, and for each whether it was cut."""
        texts = [self._texts(single) for single in inputs]
        if any(isinstance(single, TemplatedText) for single in inputs) or any(map(_is_broken, texts)):
            encodings = [self._encode_whole(*given) for given in zip(inputs, texts, strict=True)]
        else:
            encodings = self._whole.encode_batch_fast([parts if len(parts) > 1 else parts[0] for parts in texts])
        was_cut = [len(encoding) > self.max_length for encoding in encodings]
        for row, cut in enumerate(was_cut):
            if cut:
                encodings[row] = self._encode_cut(inputs[row], texts[row])
        return encodings, was_cut

    def _texts(self, single: EncoderInput) -> tuple[str, ...]:
        """The text or the pair; where they are not templated, with their special tokens broken up."""
        if isinstance(single, TemplatedText):
            return (single.text,)
        parts = (single.text,) if isinstance(single, JoinedText) else (single,) if isinstance(single, str) else single
        return tuple(map(self.special.inert, parts))

    def _encode_whole(self, single: EncoderInput, parts: tuple[str, ...]) -> Encoding:
        if isinstance(single, TemplatedText):
            return _in_parts(self._templated, single.text)
        return _encoded(self._whole, parts)

    def _encode_cut(self, single: EncoderInput, parts: tuple[str, ...]) -> Encoding:
        if isinstance(single, TemplatedText):
            encoding = self._encode_whole(single, parts)
            encoding.truncate(self.max_length, direction="left")
            return encoding
        side = "left" if isinstance(single, JoinedText) else self.truncation_side
        self._cut.enable_truncation(self.max_length, strategy="longest_first", direction=side)
        return _encoded(self._cut, parts)

    def pad(self, encodings: Sequence[Encoding]) -> TokenArrays:
        """Encodings as arrays, as wide as the longest of them and at least 1."""
        return padded([one.ids for one in encodings], [one.type_ids for one in encodings], pad_id=self.pad_id)


def padded(
    ids: Sequence[Sequence[int]],
    types: Sequence[Sequence[int]],
    *,
    pad_id: int,
    side: TruncationSide = "right",
    spare: int = 0,
) -> TokenArrays:
    """N rows of token ids and types, filled up to the longest (at least 1) and ``spare`` columns more on one side."""
    width = max([1, *map(len, ids)]) + spare
    shape = (len(ids), width)
    ids_NT, mask_NT, types_NT = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, one in enumerate(ids):
        columns = slice(0, len(one)) if side == "right" else slice(width - len(one), width)
        ids_NT[row, columns], mask_NT[row, columns], types_NT[row, columns] = one, 1, types[row]
    return TokenArrays(ids_NT, mask_NT, types_NT)


def _is_broken(parts: tuple[str, ...]) -> bool:
    return any(BREAK in part for part in parts)


def _encoded(tokenizer: Tokenizer, parts: tuple[str, ...]) -> Encoding:
    if not _is_broken(parts):
        return tokenizer.encode(parts[0], parts[1] if len(parts) > 1 else None)
    first, *pair = (_in_parts(tokenizer, part) for part in parts)
    return tokenizer.post_process(first, pair[0] if pair else None)


def _in_parts(tokenizer: Tokenizer, text: str) -> Encoding:
    """The encoding of a text whose parts are encoded apart, without what the tokenizer adds."""
    from tokenizers import Encoding

    parts = [tokenizer.encode(part, add_special_tokens=False) for part in text.split(BREAK)]
    return parts[0] if len(parts) == 1 else Encoding.merge(parts, growing_offsets=True)
