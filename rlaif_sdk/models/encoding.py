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
    """N token sequences padded on the right to a common length T; all arrays are int64, shape (N, T)."""

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
        inert = [self._inert(single) for single in inputs]
        if any(map(_is_broken, inert)):
            encodings = [self._encode_whole(single) for single in inert]
        else:
            encodings = self._whole.encode_batch([_plain(single) for single in inert])
        was_cut = [len(encoding) > self.max_length for encoding in encodings]
        for row, cut in enumerate(was_cut):
            if cut:
                encodings[row] = self._encode_cut(inert[row])
        return encodings, was_cut

    def _inert(self, single: EncoderInput) -> EncoderInput:
        if isinstance(single, TemplatedText):
            return single
        inert = self.special.inert
        if isinstance(single, JoinedText):
            return JoinedText(inert(single.text))
        return inert(single) if isinstance(single, str) else (inert(single[0]), inert(single[1]))

    def _encode_whole(self, single: EncoderInput) -> Encoding:
        if isinstance(single, TemplatedText):
            return _in_parts(self._templated, single.text)
        return _encoded(self._whole, _plain(single))

    def _encode_cut(self, single: EncoderInput) -> Encoding:
        if isinstance(single, TemplatedText):
            encoding = self._encode_whole(single)
            encoding.truncate(self.max_length, direction="left")
            return encoding
        side = "left" if isinstance(single, JoinedText) else self.truncation_side
        self._cut.enable_truncation(self.max_length, strategy="longest_first", direction=side)
        return _encoded(self._cut, _plain(single))

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


def _is_broken(single: EncoderInput) -> bool:
    if isinstance(single, TemplatedText):
        return True
    plain = _plain(single)
    return BREAK in plain if isinstance(plain, str) else BREAK in plain[0] or BREAK in plain[1]


def _encoded(tokenizer: Tokenizer, single: str | tuple[str, str]) -> Encoding:
    if not _is_broken(single):
        return tokenizer.encode(single) if isinstance(single, str) else tokenizer.encode(*single)
    if isinstance(single, str):
        return tokenizer.post_process(_in_parts(tokenizer, single))
    first, second = single
    return tokenizer.post_process(_in_parts(tokenizer, first), _in_parts(tokenizer, second))


def _in_parts(tokenizer: Tokenizer, text: str) -> Encoding:
    """The encoding of a text whose parts are encoded apart, without what the tokenizer adds."""
    from tokenizers import Encoding

    parts = [tokenizer.encode(part, add_special_tokens=False) for part in text.split(BREAK)]
    return parts[0] if len(parts) == 1 else Encoding.merge(parts, growing_offsets=True)
