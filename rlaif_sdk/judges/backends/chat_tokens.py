"""A conversation as token ids in which only the chat template itself has special tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from rlaif_sdk.conversations import read
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.types import Conversation

_SIGNS = ("\n", "\u241e", "|")


class ChatEncoder:
    """Encodes conversations with a tokenizer's chat template.

    The template is rendered around markers that stand for the messages, so its own text and the messages' text are
    encoded apart: a ``<|im_end|>`` inside a message becomes ordinary text. A tokenizer without a chat template gets
    ``Role:`` headings. A tokenizer that puts a space before every text it is given (Llama 2's) does so at the beginning
    alone, as it would with the whole.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, conversation: Conversation) -> list[int]:
        """The prompt's token ids, ready for the model's answer."""
        texts = [turn.content for turn in read(conversation)]
        markers = [f"\u241emessage{index}\u241e" for index in range(len(texts))]
        rendered = self._render([message["role"] for message in conversation], markers)
        pieces = re.split("|".join(map(re.escape, markers)), rendered)
        if len(pieces) != len(texts) + 1 or re.findall("\u241emessage[0-9]+\u241e", rendered) != markers:
            raise ConfigError(
                "the judge's chat template leaves out, repeats or changes messages",
                hint="use a model whose template prints each message once",
            )
        before = pieces[0].rstrip(" ")
        ids = self._encode(before)
        space = pieces[0][len(before) :]
        for text, piece in zip(texts, pieces[1:], strict=True):
            before = piece.rstrip(" ")
            # A space before a word belongs to the word's first token, whoever wrote the space.
            ids += self.encode_inert(space + text) + self._continued(before)
            space = piece[len(before) :]
        return ids + self._continued(space)

    def spellings(self, label: str) -> list[list[int]]:
        """The ids with which an answer may begin with a label: as it is, and with a space that is the tokenizer's."""
        spellings = [self.encode_inert(label)]
        if self._adds_space and (spaced := self._encode(label)) not in spellings:
            spellings.append(spaced)
        return spellings

    def encode_inert(self, text: str) -> list[int]:
        """The ids of text, as it goes on after other text, in which no special or added token acts as such."""
        ids: list[int] = []
        start = 0
        if self._added_tokens:
            for match in self._added_tokens.finditer(text):
                ids += self._continued(text[start : match.start() + 1])
                start = match.start() + 1
        return ids + self._continued(text[start:])

    @cached_property
    def _adds_space(self) -> bool:
        first = self._tokenizer.convert_ids_to_tokens(self._encode("a")[:1])
        return bool(first) and first[0].startswith(("\u2581", "\u0120"))

    def _continued(self, text: str) -> list[int]:
        """The ids of text that other text goes before: encoded after a sign that merges with nothing, then cut."""
        if not self._adds_space:
            return self._encode(text)
        for sign in _SIGNS:
            before, ids = self._encode(sign), self._encode(sign + text)
            if ids[: len(before)] == before:
                return ids[len(before) :]
        return self._encode(text)

    @cached_property
    def _added_tokens(self) -> re.Pattern[str] | None:
        contents = {str(token) for token in self._tokenizer.added_tokens_decoder.values() if len(str(token)) > 1}
        longest_first = sorted(contents, key=len, reverse=True)
        # A lookahead finds overlapping tokens as well: the text is cut inside each of them.
        return re.compile(f"(?={'|'.join(map(re.escape, longest_first))})") if longest_first else None

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        return list(ids)

    def _render(self, roles: Sequence[str], markers: Sequence[str]) -> str:
        if not getattr(self._tokenizer, "chat_template", None):
            bos = getattr(self._tokenizer, "bos_token", None) or ""
            turns = (f"{role.capitalize()}:\n{marker}\n\n" for role, marker in zip(roles, markers, strict=True))
            return f"{bos}{''.join(turns)}Assistant:\n"
        messages = [{"role": role, "content": marker} for role, marker in zip(roles, markers, strict=True)]
        # The reply begins with the verdict: templates of reasoning models are told to leave thinking out.
        rendered: str = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return rendered
