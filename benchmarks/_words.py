"""A tokenizer of made-up words, one token each, for models with random weights."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<eos>", "<unk>"]


def word_tokenizer(vocabulary: int, roles: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """The words ``w0``, ``w1``, ... after the special tokens and the roles, ``vocabulary`` tokens in all."""
    first = [*SPECIAL, *roles]
    words = [*first, *(f"w{index}" for index in range(vocabulary - len(first)))]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
