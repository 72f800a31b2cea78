"""Turns of a response that a stack hands over as tokens: which words are the policy's, and which a tool answered."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from rlaif_sdk.conversations import ASSISTANT, TOOL
from rlaif_sdk.conversations.special_tokens import without_any, without_end
from rlaif_sdk.conversations.templates import ChatTemplate
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.types import Message

_SAID = "\ue000"


class ResponseReader:
    """Reads the tokens of responses with the tokenizer that they were made with.

    Args:
        tokenizer: Of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._decode = _decoder(tokenizer)

    def text(self, tokens: Sequence[int]) -> str:
        """What one turn says, without the special tokens that end it."""
        return without_end(self._decode(tokens, skip_special_tokens=False))

    def by_mask(self, tokens: Sequence[int], mask: Sequence[int]) -> list[Message]:
        """The turns of a response, where ``mask`` is 1 on what the policy wrote and 0 on what others answered."""
        turns: list[Message] = []
        place = 0
        for written, run in itertools.groupby(mask):
            length = sum(1 for _ in run)
            part = tokens[place : place + length]
            said = self.text(part) if written else self._decode(part, skip_special_tokens=True)
            turns.append({"role": ASSISTANT if written else TOOL, "content": said})
            place += length
        return turns

    def by_template(self, tokens: Sequence[int]) -> list[Message]:
        """The turns of a response, where only the chat template tells them apart.

        The policy's words go up to the token that ends its turn; the next begin after the template's generation prompt.

        Raises:
            DataError: The tokenizer has no chat template, or its generation prompt is not in the response.
        """
        end, begin = self._frame
        text = self._decode(tokens, skip_special_tokens=False)
        if not begin or begin not in text:
            raise DataError(
                "the response has several turns, and the chat template's generation prompt is not in it",
                hint="have the rollout pass a response mask, or use the chat template that it generated with",
            )
        turns: list[Message] = []
        for part in text.split(begin):
            said, _, answered = part.partition(end) if end else (part, "", "")
            turns.append({"role": ASSISTANT, "content": without_end(said)})
            if answered := without_any(answered).strip():
                turns.append({"role": TOOL, "content": answered})
        return turns

    @cached_property
    def _frame(self) -> tuple[str, str]:
        """What ends the assistant's turn in the chat template, and what begins its next one."""
        template = ChatTemplate.of(self._tokenizer)
        if template is None:
            return "", ""
        asked = [{"role": "user", "content": _SAID}]
        answered = template.render([*asked, {"role": ASSISTANT, "content": _SAID}])
        without, begun = template.render(asked), template.render(asked, add_generation_prompt=True)
        return answered[answered.rindex(_SAID) + len(_SAID) :].strip(), begun.removeprefix(without)


def _decoder(tokenizer: Any) -> Callable[..., str]:
    """What decodes its tokens: what is behind transformers' own fast tokenizers, which look at each token first, in Python.

    Not of one that tidies spaces up, or decodes in a way of its own.
    """
    backend, kind = getattr(tokenizer, "backend_tokenizer", None), type(tokenizer)
    if backend is None or getattr(tokenizer, "clean_up_tokenization_spaces", False):
        return tokenizer.decode  # type: ignore[no-any-return]
    ways = {kind.decode.__module__, kind._decode.__module__}  # noqa: SLF001 - the one that calls the backend
    is_their_own = all(way.startswith("transformers.tokenization_utils") for way in ways)
    return backend.decode if is_their_own else tokenizer.decode  # type: ignore[no-any-return]
