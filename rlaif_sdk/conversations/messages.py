"""Messages of every shape in use, read into one: `Turn`.

Read are plain text, chat messages (null or missing fields, tool calls, reasoning), content blocks of any type name,
OpenAI Responses items, Anthropic blocks, Gemini's parts, ShareGPT's ``from`` and ``value``, LangChain's ``type`` and
``data``, and what a client's objects and numpy's arrays hold of these. Nothing outside this package looks into
a message.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rlaif_sdk.conversations.images import Images
from rlaif_sdk.conversations.thinking import split_thinking
from rlaif_sdk.exceptions import ConversationError

ASSISTANT: Final = "assistant"
TOOL: Final = "tool"
USER: Final = "user"

_ROLES = {
    "ai": ASSISTANT,
    "bing": ASSISTANT,
    "bot": ASSISTANT,
    "chatbot": ASSISTANT,
    "chatgpt": ASSISTANT,
    "gpt": ASSISTANT,
    "model": ASSISTANT,
    "human": USER,
    "environment": TOOL,
    "function": TOOL,
    "function_response": TOOL,
    "ipython": TOOL,
    "observation": TOOL,
    "tool_response": TOOL,
}
_LANGCHAIN_TYPES = frozenset({"ai", "human", "system", "tool", "function"})
_KNOWN_ROLES = _ROLES | {role: role for role in ("system", "developer", USER, ASSISTANT, TOOL)}
_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
_REASONING_BLOCKS = frozenset({"thinking", "redacted_thinking", "reasoning"})
_CALL_BLOCKS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use", "tool-call"})
_RESULT_BLOCKS = frozenset({"tool_result", "tool-result", "tool_response"})
_WORDS = frozenset({"text", "output_text", "input_text", "refusal"})
_MEDIA = ("image", "audio", "video", "file", "document")
_ARGUMENTS = ("arguments", "input", "args", "action", "query", "queries")
_RESULTS = ("output", "content", "result", "results", "response")
_PARTS = {
    "functionCall": "function_call",
    "function_call": "function_call",
    "executableCode": "code_call",
    "executable_code": "code_call",
    "functionResponse": "tool_result",
    "function_response": "tool_result",
    "codeExecutionResult": "tool_result",
    "code_execution_result": "tool_result",
    "inlineData": "file",
    "inline_data": "file",
    "fileData": "file",
    "file_data": "file",
}
"""Gemini's parts that are no text, and the type of block that each stands for."""
_MAX_DEPTH = 16
_PLAIN = frozenset({dict, list, str, type(None)})


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call.

    Attributes:
        name: The tool.
        arguments: What it is given: JSON as the model wrote it, or free text.
        id: What the result refers to, or an empty text.
    """

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message in canonical form.

    Attributes:
        role: ``system``, ``developer``, ``user``, ``assistant``, ``tool``, or another as it was written. Only
            ``assistant`` is the policy.
        content: The words as they were written, with the tags of whatever thinking stands among them.
        reasoning: Thinking that stood in a field or block of its own.
        calls: The tools called.
        call_id: Of a tool's result, the id of the call, or an empty text.
        name: Who speaks: of a tool's result, the tool; or an empty text.
        media: What is no text, by kind: ``image``, ``audio``.
        images: The blocks of its images, as they were written; see `rlaif_sdk.conversations.image_block`.
    """

    role: str
    content: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    name: str = ""
    media: tuple[str, ...] = ()
    images: Images = dataclasses.field(default=(), hash=False)

    @property
    def text(self) -> str:
        """The words, without thinking."""
        return split_thinking(self.content)[0] if self.role == ASSISTANT else self.content

    @property
    def thinking(self) -> str:
        """All thinking, whether it stood in a field or in tags; paragraphs separated by blank lines."""
        if self.role != ASSISTANT:
            return self.reasoning
        return "\n\n".join(part for part in (self.reasoning, split_thinking(self.content)[1]) if part)


_WORDS_ALONE = {"role", "content"}


def read(value: Any, *, role: str = ASSISTANT) -> tuple[Turn, ...]:
    """A prompt or completion in canonical form.

    A message that mixes what several have written (Anthropic's tool results within a user's message, a server's search
    results within an assistant's) becomes several turns, in order.

    Args:
        value: Text, a message, or a sequence of messages or response items.
        role: Who wrote plain text and blocks that stand alone.

    Raises:
        ConversationError: It cannot be read: no mapping, no role, or content that is no text.
    """
    if isinstance(value, str):
        return (Turn(role, value),)
    if type(value) is not list:
        value = _opened(value)
        if isinstance(value, Mapping):
            return tuple(_read_message(value, role))
        if not isinstance(value, Sequence) or isinstance(value, (bytes, bytearray)):
            raise ConversationError(f"{_shown(value)} is neither text nor a list of messages", hint=_SHAPES)
    turns: list[Turn] = []
    for index, message in enumerate(value):
        if type(message) is Turn:
            turns.append(message)
            continue
        try:
            one = message if type(message) is dict or isinstance(message, Mapping) else _opened(message)
            if type(one) is not dict and not isinstance(one, Mapping):
                raise ConversationError(f"{_shown(message)} is no message", hint=_SHAPES)
            turns += _read_message(one, role)
        except ConversationError as error:
            error.index = index if error.index is None else error.index
            raise
    return tuple(turns)


def chat_messages(turns: Iterable[Turn]) -> list[dict[str, Any]]:
    """Turns as chat messages, in the form that chat templates and servers take: fields that say nothing are left out.

    Reading them again gives the same turns, except for media, which chat messages of text cannot carry.
    """
    return [_chat_message(turn) for turn in turns]


def plain_words(value: Any, role: str = ASSISTANT) -> str | None:
    """The words of a list of one chat message that is nothing but words by that role, without reading it; else None.

    Example:
        >>> from rlaif_sdk.conversations import plain_words
        >>> plain_words([{"role": "assistant", "content": "It is Paris."}])
        'It is Paris.'
    """
    if type(value) is not list or len(value) != 1 or type(value[0]) is not dict or value[0].keys() != _WORDS_ALONE:
        return None
    said = value[0]["content"]
    return said if type(said) is str and said and value[0]["role"] == role else None


def are_chat_messages(messages: Iterable[Any]) -> bool:
    """Whether each is a message as chat templates want them, with a role and text; `chat_messages` makes others so.

    Null content is fine beside calls, and blocks are where one of them is no text.
    """
    return all(isinstance(message, Mapping) and _is_chat_message(message) for message in messages)


def as_generated(completion: Any) -> Any:
    """A completion as TRL generates it: the content of a message that is blocks of text is that text.

    Text, messages that hold anything else than text, and what is no list of messages stay as they are.
    """
    if not isinstance(completion, (list, tuple)):
        return completion
    return [_with_text(message) if isinstance(message, dict) else message for message in completion]


def _with_text(message: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(message.get("content"), list) or _is_chat_message(message):
        return message
    turns = read([message])
    return message | _chat_message(turns[0]) if len(turns) == 1 else message


def holds_json_of_messages(value: Any) -> bool:
    """Whether a value is text, and that text is messages with roles as JSON: what a cell of CSV holds of a conversation."""
    if not isinstance(value, str) or value.lstrip()[:1] not in {"[", "{"}:
        return False
    try:
        opened = json.loads(value)
        read(opened)
    except (ValueError, RecursionError, ConversationError):
        return False
    messages = [opened] if isinstance(opened, dict) else opened
    return bool(messages) and all(
        isinstance(each, dict) and (each.get("role") or each.get("from")) for each in messages
    )


def _is_chat_message(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    if message.get("role") is None or content is None:
        return message.get("role") is not None and bool(message.get("tool_calls") or message.get("function_call"))
    return isinstance(content, str) or any(turn.media or turn.calls or turn.role == TOOL for turn in read([message]))


def _chat_message(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.reasoning:
        message["reasoning_content"] = turn.reasoning
    if turn.calls:
        message["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            | ({"id": call.id} if call.id else {})
            for call in turn.calls
        ]
    if turn.call_id:
        message["tool_call_id"] = turn.call_id
    if turn.name:
        message["name"] = turn.name
    return message


def check_speaker(turns: Sequence[Turn]) -> None:
    """Refuse a completion in which nobody is the assistant, but somebody whose role nobody knows: it may be misspelt.

    Raises:
        ConversationError: It is such a one.
    """
    unknown = None
    for index, turn in enumerate(turns):
        if turn.role == ASSISTANT:
            return
        if turn.role not in _KNOWN_ROLES:
            unknown = index
    if unknown is not None:
        raise ConversationError(
            f"nobody is the assistant, and the role {turns[unknown].role!r} is not known",
            index=unknown,
            hint=f"the policy is {ASSISTANT!r}",
        )


_SHAPES = "a prompt or completion is text, or messages such as {'role': 'user', 'content': 'Hello'}"


def _read_message(message: Mapping[str, Any], speaker: str) -> Iterable[Turn]:
    """The turns of a message; most have nothing but a role and text, and need no further look."""
    role, content = message.get("role"), message.get("content")
    if type(content) is str and type(role) is str and (known := _KNOWN_ROLES.get(role)):
        if len(message) == 2:
            return (Turn(known, content),)
        if known == TOOL:
            return (_tool_turn(message, content),)
    if type(content) is list and len(content) == 1 and _OF_WORDS.issuperset(message):
        block, known = content[0], _KNOWN_ROLES.get(role) if type(role) is str else None
        if known and known != TOOL and type(block) is dict and block.keys() - _BESIDE_WORDS == _A_TEXT:
            text = block["text"]
            if type(text) is str and block["type"] in _TEXT_BLOCKS:
                return (Turn(known, text),)
    try:
        return list(_read_fields(message, speaker))
    except ConversationError:
        raise
    except (RecursionError, ValueError):  # of a call's arguments, a result or thinking, which are JSON of any depth
        raise ConversationError("a part of a message nests too deeply, or holds itself") from None


_OF_WORDS = frozenset({"role", "content", "type", "id", "status"})
_A_TEXT = {"type", "text"}
_TEXT_BLOCKS = frozenset({"text", "input_text", "output_text"})
_BESIDE_WORDS = frozenset({"annotations", "logprobs"})


def _tool_turn(message: Mapping[str, Any], text: str, media: tuple[str, ...] = (), images: Images = ()) -> Turn:
    name, call_id = _text_field(message, "name"), _text_field(message, "tool_call_id")
    return Turn(TOOL, text, call_id=call_id, name=name, media=media, images=images)


def _read_fields(message: Mapping[str, Any], speaker: str) -> Iterator[Turn]:
    role = message.get("role")
    if role is None and (role := message.get("from")) is not None and message.get("content") is None:  # ShareGPT
        message = {**message, "content": message.get("value")}
    if role is None and isinstance(kind := message.get("type"), str) and kind in _LANGCHAIN_TYPES:
        role = kind
        message = message["data"] if isinstance(message.get("data"), Mapping) else message
    if role is None:
        yield from _read_item(message, speaker)
        return
    if not isinstance(role, str) or not role.strip():
        raise ConversationError(f"the role is {_shown(role)}", hint="roles are text: system, user, assistant, tool")
    role = role.strip().lower()
    if role == "function_call":  # ShareGPT's role of a message that is one call
        yield Turn(ASSISTANT, calls=(_read_call(_parsed(message.get("content"))),))
        return
    yield from _Reader(_ROLES.get(role, role), message).turns()


def _read_item(item: Mapping[str, Any], speaker: str) -> Iterator[Turn]:
    """What has no role: an item of OpenAI's Responses, or a content block that stands alone."""
    kind = item.get("type")
    if kind == "item_reference":
        return
    if not isinstance(kind, str) or not (_writes_itself(kind) or kind in _WORDS or _medium(kind)):
        found = ", ".join(f"{key}: {_shown(item[key])}" for key in sorted(item, key=str)) or "none"
        raise ConversationError(f"a message without a role; its fields: {found}", hint=_SHAPES)
    if kind in _REASONING_BLOCKS:
        if thinking := _reasoning_text(item):
            yield Turn(ASSISTANT, reasoning=thinking)
        return
    if kind == "input_text":
        speaker = USER
    elif _writes_itself(kind):
        speaker = ASSISTANT
    for turn in _Reader(speaker, {"content": [item]}).turns():
        if turn.content or turn.reasoning or turn.calls or turn.media or turn.role == TOOL:
            yield turn


def _writes_itself(kind: str) -> bool:
    """Whether the type of a block says who wrote it: the policy's thinking and calls, and what tools gave."""
    return kind in _REASONING_BLOCKS or _is_call(kind) or _is_result(kind)


def _is_call(kind: str) -> bool:
    return kind in _CALL_BLOCKS or kind.endswith("_call")


def _is_result(kind: str) -> bool:
    return kind in _RESULT_BLOCKS or kind.endswith(("_tool_result", "_output"))


def _medium(kind: str) -> str | None:
    return next((word for word in _MEDIA if word in kind), None)


class _Reader:
    """Reads one message; what others wrote within it ends the turn before it."""

    def __init__(self, role: str, message: Mapping[str, Any]) -> None:
        self._role = role
        self._message = message
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[ToolCall] = []
        self._media: list[str] = []
        self._images: list[Mapping[str, Any]] = []
        self._after_text = False

    def turns(self) -> Iterator[Turn]:
        message = self._message
        content = message.get("parts") if message.get("content") is None else message["content"]
        if self._role == TOOL:
            yield _tool_turn(message, *_result_text(content))
            return
        name = _text_field(message, "name")
        reasoning = next(filter(None, map(message.get, _REASONING_FIELDS)), None)
        if reasoning:
            self._reasoning.append(_reasoning_text({"text": reasoning}))
        split = False
        for block in self._blocks(content, 0):
            if self._has_content():
                yield self._turn(name)
            yield block
            split = True
        if message.get("audio"):  # an answer that was spoken: its transcript is no written word
            self._media.append("audio")
        self._say(_text_field(message, "refusal"), apart=True)
        self._read_calls(message)
        if self._has_content() or not split:
            yield self._turn(name)

    def _has_content(self) -> bool:
        return bool(self._texts or self._reasoning or self._calls or self._media)

    def _turn(self, name: str) -> Turn:
        turn = Turn(
            self._role,
            "".join(self._texts),
            "\n\n".join(filter(None, self._reasoning)),
            tuple(self._calls),
            name=name,
            media=tuple(self._media),
            images=tuple(self._images),
        )
        self._texts, self._reasoning, self._calls, self._media, self._images = [], [], [], [], []
        return turn

    def _say(self, text: str, *, apart: bool = False) -> None:
        """Add words; blocks of text that follow each other are one text, others are paragraphs."""
        if not text:
            return
        if self._texts and (apart or not self._after_text):
            self._texts.append("\n\n")
        self._texts.append(text)
        self._after_text = True

    def _blocks(self, content: Any, depth: int) -> Iterator[Turn]:
        """Take in the content; what others wrote within it is given out as a turn."""
        if content is None:
            return
        if isinstance(content, str):
            self._say(content)
        elif depth > _MAX_DEPTH:
            raise ConversationError(f"content is nested deeper than {_MAX_DEPTH}")
        elif type(content) is not list and isinstance(content, Mapping):
            yield from self._block(content, depth)
        elif type(content) is list or (isinstance(content, Sequence) and not isinstance(content, (bytes, bytearray))):
            for block in content:
                yield from self._blocks(block, depth + 1)
        elif (opened := _opened(content)) is not content:
            yield from self._blocks(opened, depth + 1)
        else:
            raise ConversationError(f"content is {_shown(content)}", hint="content is text or a list of blocks")

    def _block(self, block: Mapping[str, Any], depth: int) -> Iterator[Turn]:
        kind = block.get("type") or ""
        part = None if kind else next((name for name in _PARTS if isinstance(block.get(name), Mapping)), None)
        if part is not None:
            block, kind = block[part], _PARTS[part]
        if not isinstance(kind, str):
            raise ConversationError(f"the type of a block is {_shown(kind)}")
        if kind in _REASONING_BLOCKS or block.get("thought") is True:
            self._reasoning.append(_reasoning_text(block))
        elif _is_call(kind) or _is_result(kind):
            if _is_call(kind):
                self._calls.append(_read_call(block))
            if _is_result(kind) or any(block.get(key) is not None for key in ("output", "error")):
                yield _read_result(block)  # its own, or that of a call that the server answered itself
        elif medium := _medium(kind):
            self._media.append(medium)
            if medium == "image":
                self._images.append(block)
        else:
            yield from self._text_block(kind, block, depth)
            return
        self._after_text = False

    def _text_block(self, kind: str, block: Mapping[str, Any], depth: int) -> Iterator[Turn]:
        """A block of text, by whatever name; one of another type has its place noted."""
        for field in ("text", "refusal", "content", "value", "parts"):
            if block.get(field) is not None:
                yield from self._blocks(block[field], depth + 1)
                return
        if kind and "text" not in kind:
            self._media.append(kind)
        elif not kind and (said := [name for name in block if block[name] is not None]):
            found = ", ".join(sorted(map(str, said)))
            raise ConversationError(f"a block of content without type or text; its keys: {found}")

    def _read_calls(self, message: Mapping[str, Any]) -> None:
        calls = _parsed(message.get("tool_calls"))
        if isinstance(calls, Mapping):
            calls = [calls]
        calls = _opened(calls)
        if calls:
            if isinstance(calls, str) or not isinstance(calls, Sequence):
                raise ConversationError(f"tool_calls is {_shown(calls)}", hint="tool_calls is a list")
            self._calls += [_read_call(call) for call in calls if call is not None]
        if legacy := _parsed(message.get("function_call")):
            self._calls.append(_read_call(legacy))


def _read_call(call: Any) -> ToolCall:
    """A call of any shape: of a chat message, a Responses item, an Anthropic block."""
    call = _opened(call)
    if type(call) is not dict and not isinstance(call, Mapping):
        raise ConversationError(f"a tool call is {_shown(call)}", hint="a call is a mapping with name and arguments")
    inner = call
    for wrapper in ("function", "custom"):
        if wrapper in call and isinstance(call[wrapper], Mapping):
            inner = call[wrapper]
    name = inner.get("name") or inner.get("tool_name") or inner.get("toolName") or call.get("type") or ""
    given = next((inner[key] for key in _ARGUMENTS if inner.get(key) is not None), None)
    identity = call.get("call_id") or call.get("id") or call.get("toolCallId") or ""
    return ToolCall(str(name), "" if given is None else _as_json(given), str(identity))


def _read_result(block: Mapping[str, Any]) -> Turn:
    """A result of any shape that stands in a block or item of its own."""
    fields = (*_RESULTS, "error", "text")
    text, media, images = _result_text(next((block[key] for key in fields if block.get(key) is not None), None))
    ids = ("call_id", "tool_use_id", "tool_call_id", "toolCallId", "id")
    identity = next((block[key] for key in ids if block.get(key)), "")
    name = block.get("name") or block.get("toolName") or ""
    return Turn(TOOL, text, call_id=str(identity), name=str(name), media=media, images=images)


def _result_text(content: Any) -> tuple[str, tuple[str, ...], Images]:
    """What a tool gave: its text, or whatever it is as JSON; and what of it is no text."""
    if isinstance(content, str):
        return content, (), ()
    reader = _Reader(TOOL, {})
    try:
        inner = [turn.content for turn in reader._blocks(content, 0)]  # noqa: SLF001 - of this module
    except ConversationError:
        return _as_json(content), (), ()
    turn = reader._turn("")  # noqa: SLF001 - of this module
    if turn.calls or turn.reasoning or not (turn.content or inner or turn.media):
        return "" if content is None or content in ([], {}) else _as_json(content), (), ()
    return "\n\n".join(filter(None, [turn.content, *inner])), turn.media, turn.images


def _reasoning_text(block: Mapping[str, Any]) -> str:
    """The thinking in a block or item; what is encrypted or redacted has no text."""
    parts: list[str] = []
    for field in ("thinking", "reasoning", "summary", "content", "text"):
        value = block.get(field)
        if value is None:
            continue
        if isinstance(value, str):
            parts.append(value)
        elif isinstance(value, Mapping):
            parts.append(_reasoning_text(value))
        elif isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
            parts += [_reasoning_text({"text": each}) for each in value]
    return "\n\n".join(filter(None, parts))


def _text_field(message: Mapping[str, Any], field: str) -> str:
    value = message.get(field)
    if value is None:
        return ""
    if not isinstance(value, (str, int)):
        raise ConversationError(f"{field} is {_shown(value)}", hint=f"{field} is text")
    return str(value)


def _parsed(value: Any) -> Any:
    """The value of what may be written as JSON in a text."""
    if not isinstance(value, str) or not value.strip():
        return value or None
    try:
        return json.loads(value)
    except ValueError:
        raise ConversationError(f"a tool call is {_shown(value)}", hint="a call is a mapping or JSON") from None


def _as_json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _opened(value: Any) -> Any:
    """The mapping that a client's object stands for, and the list that an array does; all else as it is."""
    if type(value) in _PLAIN:
        return value
    for method in ("model_dump", "tolist"):
        if callable(found := getattr(value, method, None)):
            return found()
    return value


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} that nests too deeply"
    return text if len(text) <= 60 else f"{text[:57]}..."
