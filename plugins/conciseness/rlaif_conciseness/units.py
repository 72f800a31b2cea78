"""Cutting texts into words or tokens."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif_sdk import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # kana and Chinese characters
_WORD = re.compile(r"[^\W_]\S*")
_WORD_OR_CHARACTER = re.compile(rf"[{_UNSPACED}]|[^\W_][^\s{_UNSPACED}]*")
_PIECE = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")

has_word = re.compile(r"[^\W_]").search
"""Whether a text has a letter or a digit at all."""


def words(text: str) -> list[str]:
    """The words of a text: what stands between spaces and has a letter or a digit.

    Chinese characters and kana, which are written without spaces, count as one word each.
    """
    return (_WORD if text.isascii() else _WORD_OR_CHARACTER).findall(text)


def plain_words(text: str) -> list[str]:
    """The words of a text without case and punctuation, so that ``Yes, yes!`` is the same word twice."""
    return _PIECE.findall(text.casefold())


class TokenCounter:
    """Counts tokens with a tokenizer from a file, a folder or the model hub.

    Args:
        source: A ``tokenizer.json``, a folder that holds one, or a model's name on the hub.
    """

    def __init__(self, source: str) -> None:
        self._source = source

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, loaded at the first use, without truncation or padding.

        Raises:
            MissingExtraError: ``tokenizers`` is not installed.
            ConfigError: There is no such tokenizer, or it cannot be read.
        """
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise MissingExtraError("tokenizers", extra="tokens", package="rlaif-conciseness") from None
        path = Path(self._source).expanduser()
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            tokenizer = Tokenizer.from_file(str(file)) if path.exists() else Tokenizer.from_pretrained(self._source)
        except Exception as error:  # tokenizers raises bare Exception, the hub client its own tree
            raise ConfigError(
                f"the tokenizer {self._source!r} cannot be loaded: {error}",
                key="tokenizer",
                hint="name a tokenizer.json, a folder that holds one, or a model on the hub",
            ) from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, without special tokens."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]
