"""Text to token ids, with truncation on the declared side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

TruncationSide: TypeAlias = Literal["left", "right"]
TextOrPair: TypeAlias = str | tuple[str, str]


@dataclass(frozen=True, slots=True)
class TokenArrays:
    """N token sequences padded on the right to a common length T; all arrays are int64, shape (N, T)."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]


class TextEncoder:
    """Tokenizes texts and pairs, and cuts those longer than ``max_length`` tokens, special tokens included.

    A special token spelled out in a text is read as ordinary text: a completion cannot close its own segment by
    writing ``</s>``.

    Args:
        tokenizer: A copy of it is kept.
        max_length: Longest sequence that the model takes, in tokens.
        truncation_side: Where an over-long text is cut; of a pair, the longer part is cut first.
        pad_id: Fills up shorter rows.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, max_length: int, truncation_side: TruncationSide = "right", pad_id: int = 0
    ) -> None:
        serialized = tokenizer.to_str()
        self._whole = type(tokenizer).from_str(serialized)
        self._cut = type(tokenizer).from_str(serialized)
        for copy in (self._whole, self._cut):
            copy.encode_special_tokens = True
            copy.no_padding()
        self._whole.no_truncation()
        self._cut.enable_truncation(max_length, strategy="longest_first", direction=truncation_side)
        self._max_length = max_length
        self._pad_id = pad_id

    def encode(self, inputs: Sequence[TextOrPair]) -> tuple[list[Encoding], list[bool]]:
        """The encodings of N inputs, none longer than the maximum, and for each whether it was cut."""
        encodings = self._whole.encode_batch(list(inputs))
        was_cut = [len(encoding) > self._max_length for encoding in encodings]
        for row, cut in enumerate(was_cut):
            if cut:
                single = inputs[row]
                encodings[row] = self._cut.encode(single) if isinstance(single, str) else self._cut.encode(*single)
        return encodings, was_cut

    def pad(self, encodings: Sequence[Encoding]) -> TokenArrays:
        """Encodings as arrays, as wide as the longest of them and at least 1."""
        shape = (len(encodings), max(1, *map(len, encodings)) if encodings else 1)
        arrays = TokenArrays(
            input_ids=np.full(shape, self._pad_id, dtype=np.int64),
            attention_mask=np.zeros(shape, dtype=np.int64),
            token_type_ids=np.zeros(shape, dtype=np.int64),
        )
        for row, encoding in enumerate(encodings):
            arrays.input_ids[row, : len(encoding)] = encoding.ids
            arrays.attention_mask[row, : len(encoding)] = 1
            arrays.token_type_ids[row, : len(encoding)] = encoding.type_ids
        return arrays
