"""Conversations as text, by the chat template that a model was trained with."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from rlaif_sdk.classifiers.encoding import TemplatedText
from rlaif_sdk.conversations import read
from rlaif_sdk.exceptions import BatchError, ConfigError, MissingExtraError
from rlaif_sdk.types import Conversation, Message, TextOrConversation


class ChatTemplate:
    """Renders conversations as ``apply_chat_template`` of transformers does, without transformers.

    The template runs in jinja's sandbox. A special token spelled out in a message is broken up by a space, so that a
    completion cannot end its own turn.

    Args:
        source: The template.
        special_tokens: Tokens by the name that the template knows them by, such as ``bos_token``.
        reserved: The tokens that act when they are read.

    Raises:
        ConfigError: The source is no template.
        MissingExtraError: jinja2 is not installed.
    """

    def __init__(self, source: str, *, special_tokens: Mapping[str, str], reserved: Collection[str] = ()) -> None:
        try:
            from jinja2 import TemplateSyntaxError
            from jinja2.ext import loopcontrols
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError as error:
            raise MissingExtraError("jinja2", extra="onnx") from error

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _as_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _now
        try:
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise ConfigError(f"the chat template cannot be read: {error}", hint="export the model again") from error
        self._special_tokens = dict(special_tokens)
        longest_first = sorted((token for token in reserved if len(token) > 1), key=len, reverse=True)
        alternatives = "|".join(map(re.escape, longest_first))
        self._reserved = re.compile(f"(?=(?:{alternatives}))(.)", re.DOTALL) if longest_first else None

    def render(self, conversation: Conversation) -> TemplatedText:
        """The text of a conversation that ends with the answer to score.

        Raises:
            BatchError: The template does not take such a conversation.
        """
        from jinja2 import TemplateError

        messages = [{"role": turn.role, "content": self._inert(turn.content)} for turn in read(conversation)]
        try:
            text = self._template.render(messages=messages, add_generation_prompt=False, **self._special_tokens)
        except (TemplateError, TypeError, ValueError, LookupError, OverflowError) as error:
            raise BatchError(f"the chat template refuses the conversation: {error}") from error
        return TemplatedText(text.encode("utf-8", "replace").decode("utf-8"))

    def _inert(self, text: str) -> str:
        return self._reserved.sub(r"\1 ", text) if self._reserved else text


def exchange(prompt: TextOrConversation, completion: TextOrConversation) -> list[Message]:
    """A prompt and its completion as one conversation; text is what a user asks, or the assistant answers."""
    asked: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if isinstance(completion, str):
        return [*asked, {"role": "assistant", "content": completion}]
    return [*asked, *completion]


def _as_json(value: Any, *, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _now(form: str) -> str:
    return dt.datetime.now(tz=dt.UTC).astimezone().strftime(form)
