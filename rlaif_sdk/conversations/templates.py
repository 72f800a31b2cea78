"""Chat templates: conversations as the text and the token ids that a model reads, with or without transformers.

Nothing else in the project renders a template.
"""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn, Self

from rlaif_sdk.conversations.messages import ASSISTANT, TOOL, USER, Turn, chat_messages, read
from rlaif_sdk.conversations.special_tokens import InertEncoder
from rlaif_sdk.conversations.views import Thinking, view
from rlaif_sdk.exceptions import ConfigError, ConversationError, needs_extra

SYSTEM: Final = "system"
DEVELOPER: Final = "developer"

_ROLES = frozenset({SYSTEM, USER, ASSISTANT, TOOL})
_PREFILL_ENDS = "\ufdd1"
_OPENS_THINKING = re.compile(
    r"(?:<(?:think|thinking|thought|reasoning|seed:think)>|\[THINK\]|◁think▷|<\|START_THINKING\|>|<\|begin_of_thought\|>)\s*\Z",
    re.IGNORECASE,
)
_REFUSALS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""What a template raises besides jinja's own errors, where a message is not as it expects."""


class ChatTemplate:
    """Renders conversations as transformers does, without transformers.

    The template runs in jinja's sandbox and sees canonical messages: no null fields, no blocks, and roles of a closed
    set: ``system``, ``developer`` (``system``, if the template does not name it), ``user``, ``assistant``, ``tool``, and
    what else the template names. Tool calls and results that it refuses or leaves out stand in it as in a transcript.

    Args:
        source: The template.
        special_tokens: Tokens by the name that the template knows them by, such as ``bos_token``.
        inert: What is done to every text of a conversation, whatever field it stands in: `SpecialTokens.inert`, so
            that nobody ends their own turn. By default special tokens that are spelled out act.

    Raises:
        ConfigError: The source is no template.
        MissingExtraError: jinja2 is not installed.
    """

    def __init__(self, source: str, *, special_tokens: Mapping[str, str], inert: Callable[[str], str] = str) -> None:
        self._template, self._names = _compiled(source)
        self._special_tokens = dict(special_tokens)
        self._inert = inert

    @classmethod
    def of(cls, tokenizer: Any, *, inert: Callable[[str], str] = str) -> Self | None:
        """A transformers tokenizer's template, of several by name the default one; None where it has none."""
        source = default_template(tokenizer.chat_template)
        if source is None:
            return None
        special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        return cls(source, special_tokens=special, inert=inert)

    def render(
        self,
        conversation: Any,
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tools: Sequence[Any] | None = None,
        **arguments: Any,
    ) -> str:
        """The text of a conversation; where ``inert`` has cut it, it holds a `BREAK`.

        It begins with the template's own token for the beginning, so nothing is to be added when it is encoded.

        Args:
            conversation: Messages of any shape that `rlaif_sdk.conversations.read` knows; text is the user's.
            add_generation_prompt: End with what goes before the assistant's answer. Without it, the text ends with the
                last message: what a reward model scores.
            continue_final_message: End within the last message, the assistant's, which the model is to continue.
            tools: Schemas of the tools that the assistant may call.
            **arguments: Whatever else the template takes, such as ``enable_thinking``.

        Raises:
            ConversationError: It cannot be read, or the template refuses it.
        """
        turns = [self._turn(turn) for turn in read(conversation, role=USER)]
        if not turns:
            raise ConversationError("there are no messages")
        if continue_final_message:
            if turns[-1].role != ASSISTANT or turns[-1].calls:
                raise ConversationError("the last message is not the assistant's words, and cannot be continued")
            turns[-1] = replace(turns[-1], content=turns[-1].content + _PREFILL_ENDS)

        rendered = functools.partial(
            self._filled, add_generation_prompt=add_generation_prompt, tools=tools, arguments=arguments
        )
        _, text = self._taken(turns, rendered)
        if not continue_final_message:
            return text
        if _PREFILL_ENDS in text:
            return text[: text.rindex(_PREFILL_ENDS)]
        raise ConversationError("the chat template leaves out the last message, so it cannot be continued")

    def messages(self, conversation: Any, **arguments: Any) -> list[dict[str, Any]]:
        """The messages of a conversation that an answer is to follow, in the form that the template takes.

        It is what a trainer that renders them itself is to be given.

        Args:
            conversation: See `render`.
            **arguments: See there.

        Raises:
            ConversationError: See there.
        """
        turns = [self._turn(turn) for turn in read(conversation, role=USER)]

        rendered = functools.partial(self._filled, add_generation_prompt=True, tools=None, arguments=arguments)
        return self._taken(turns, rendered)[0]

    def _filled(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool,
        tools: Sequence[Any] | None,
        arguments: Mapping[str, Any],
    ) -> str:
        text: str = self._template.render(
            messages=messages,
            tools=self._all_inert(tools) if tools else None,
            add_generation_prompt=add_generation_prompt,
            **self._special_tokens,
            **{"documents": None, **arguments},
        )
        return text.encode("utf-8", "replace").decode("utf-8")

    def _taken(
        self, turns: Sequence[Turn], rendered: Callable[[Sequence[Mapping[str, Any]]], str]
    ) -> tuple[list[dict[str, Any]], str]:
        """The first form of the messages that the template takes, and the text that it makes of them.

        Raises:
            ConversationError: It takes none.
        """
        from jinja2 import TemplateError

        refusal: Exception | None = None
        for messages, whole in self._ways(turns):
            try:
                text = rendered(messages)
            except (TemplateError, *_REFUSALS) as error:
                refusal = refusal or error
                continue
            if whole(text):
                return messages, text
        hint = _next_step(turns, lambda others: rendered(self._messages(others)))
        raise ConversationError(f"the chat template refuses the conversation: {refusal}", hint=hint) from refusal

    def _turn(self, turn: Turn) -> Turn:
        """A turn as the template is to see it.

        Raises:
            ConversationError: Its role is none of the closed set.
        """
        role = turn.role
        if role == DEVELOPER and DEVELOPER not in self._names:
            role = SYSTEM
        if role not in _ROLES and role not in self._names:
            raise ConversationError(
                f"the chat template refuses the conversation: the role {turn.role!r} is unknown",
                hint="roles are system, developer, user, assistant and tool",
            )
        return turn if role == turn.role else replace(turn, role=role)

    def _ways(self, turns: Sequence[Turn]) -> Iterator[tuple[list[dict[str, Any]], Callable[[str], bool]]]:
        """The messages in each form to try, and whether a text that was rendered of it has all that was called.

        Templates differ in what they want of tool calls: content that is null or empty, arguments as a mapping or as
        text, results with the tool's name.
        """
        if not any(turn.calls or turn.role == TOOL for turn in turns):
            yield self._messages(turns), lambda _: True
            return
        said = [call.name for turn in turns for call in turn.calls]
        said += [turn.content.strip() for turn in turns if turn.role == TOOL]

        def whole(text: str) -> bool:
            return all(stands_in(self._inert(each), text) for each in said)

        if "tool_calls" in self._names or not any(turn.calls for turn in turns):
            named = _with_names(turns)
            yield self._messages(turns), whole
            yield self._messages(named), whole
            yield self._messages(named, null_content=True), whole
            yield self._messages(named, arguments_as_text=True), whole
            yield self._messages(named, null_content=True, arguments_as_text=True), whole
        yield self._messages(_in_words(turns)), lambda _: True

    def _messages(
        self, turns: Sequence[Turn], *, null_content: bool = False, arguments_as_text: bool = False
    ) -> list[dict[str, Any]]:
        messages = chat_messages(turns)
        for message in messages:
            for call in message.get("tool_calls", ()):
                if not arguments_as_text:
                    call["function"]["arguments"] = _mapping(call["function"]["arguments"])
            if null_content and "tool_calls" in message and not message["content"]:
                message["content"] = None
        return [
            {name: value if name == "role" else self._all_inert(value) for name, value in message.items()}
            for message in messages
        ]

    def _all_inert(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._inert(value)
        if isinstance(value, Mapping):
            return {self._all_inert(key): self._all_inert(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._all_inert(each) for each in value]
        return value


class ChatEncoder:
    """Encodes conversations for a causal model, with its tokenizer's chat template, in which nothing but the template acts.

    A ``<|im_end|>`` that a message spells out, in whatever field, becomes ordinary text, and the text is kept. A
    tokenizer without a chat template gets ``Role:`` headings.

    Args:
        tokenizer: Of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._inert = InertEncoder(tokenizer)
        self._template = ChatTemplate.of(tokenizer, inert=self._inert.special.inert)

    def __call__(self, conversation: Any) -> list[int]:
        """The prompt's token ids, ready for the model's answer.

        Raises:
            ConfigError: The template leaves a message out: the model would not be asked what it is to be asked.
            ConversationError: The conversation cannot be read, or the template refuses it.
        """
        return self._inert.encode(self._prompt(conversation))

    def opens_thinking(self, conversation: Any) -> bool:
        """Whether the template has the model think before it answers."""
        return opens_thinking(self._prompt(conversation))

    def encode_inert(self, text: str) -> list[int]:
        """The ids of text, as it goes on after other text, in which no special token acts."""
        return self._inert.encode_inert(text)

    def spellings(self, label: str) -> list[list[int]]:
        """The ids with which an answer may begin with a label: as it is, and with a space that is the tokenizer's."""
        spellings = [self.encode_inert(label)]
        if self._inert.adds_space and (spaced := self._inert.encode(label)) not in spellings:
            spellings.append(spaced)
        return spellings

    def _prompt(self, conversation: Any) -> str:
        inert = self._inert.special.inert
        turns = read(conversation, role=USER)
        if self._template is None:
            bos = getattr(self._tokenizer, "bos_token", None) or ""
            headed = (f"{inert(turn.role.capitalize())}:\n{inert(view([turn], 'transcript'))}\n\n" for turn in turns)
            return f"{bos}{''.join(headed)}Assistant:\n"
        # The reply begins with the verdict: templates of reasoning models are told to leave thinking out.
        text = self._template.render(turns, add_generation_prompt=True, enable_thinking=False)
        at = 0
        for turn in turns:
            said = inert(turn.text.strip())
            at = text.find(said, at) + len(said)
            if at < len(said):
                raise ConfigError(
                    "the chat template leaves out or changes messages",
                    hint="use a model whose template prints each message",
                )
        return text


def chat_ids(conversation: Any, tokenizer: Any, **options: Any) -> list[int]:
    """The token ids of a conversation as TRL's trainers encode it: special tokens that a message spells out act.

    Args:
        conversation: See `ChatTemplate.render`.
        tokenizer: Of transformers, with a chat template.
        **options: Of `ChatTemplate.render`.

    Raises:
        ConfigError: The tokenizer has no chat template.
        ConversationError: The template refuses the conversation.
    """
    template = ChatTemplate.of(tokenizer)
    if template is None:
        raise ConfigError("the tokenizer has no chat template", hint="name an instruct model, or give text")
    text = template.render(conversation, **options)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def exchange(prompt: Any, completion: Any, *, thinking: Thinking = "drop") -> tuple[Turn, ...]:
    """A prompt and its completion as one conversation; text is what a user asks, or the assistant answers.

    Args:
        prompt: Text, or messages of any shape that `rlaif_sdk.conversations.read` knows.
        completion: Likewise.
        thinking: ``drop`` leaves the assistant's thinking out.

    Raises:
        ConversationError: One of them cannot be read.
    """
    turns = (*read(prompt, role=USER), *read(completion, role=ASSISTANT))
    if thinking == "keep":
        return turns
    return tuple(replace(turn, content=turn.text, reasoning="") if turn.role == ASSISTANT else turn for turn in turns)


def default_template(source: Any) -> str | None:
    """The source of a tokenizer's chat template; of several, by name, the default one."""
    if isinstance(source, Mapping):
        source = source.get("default")
    return source or None


def opens_thinking(prompt: str) -> bool:
    """Whether a rendered prompt ends with an opening tag, so that the model's reply begins with thinking."""
    return _OPENS_THINKING.search(prompt[-64:]) is not None


def _next_step(turns: Sequence[Turn], rendered: Callable[[Sequence[Turn]], str]) -> str:
    """What may be done about a conversation that a template refuses."""
    from jinja2 import TemplateError

    others = [turn for turn in turns if turn.role != SYSTEM]
    if others and len(others) < len(turns):
        try:
            rendered(others)
        except (TemplateError, *_REFUSALS):
            pass
        else:
            return (
                "it has no place for a system message: put its text at the beginning of the first user message, or name a "
                "model whose template has a system role"
            )
    roles = [turn.role for turn in others]
    if roles[:1] == [ASSISTANT] or any(one == other != TOOL for one, other in itertools.pairwise(roles)):
        return "many templates want user and assistant to take turns, the user first: join messages of one role"
    return "change the messages, or name a model whose template takes them"


def _with_names(turns: Sequence[Turn]) -> list[Turn]:
    """The turns, where a tool's result names the tool if its call is known."""
    tools = {call.id: call.name for turn in turns for call in turn.calls if call.id}
    return [
        replace(turn, name=tools.get(turn.call_id, "")) if turn.role == TOOL and not turn.name else turn
        for turn in turns
    ]


def _in_words(turns: Sequence[Turn]) -> list[Turn]:
    """The turns without calls and results: those stand as text, calls with the assistant, results with the user."""
    found: list[Turn] = []
    for turn in _with_names(turns):
        if turn.calls:
            text = view([replace(turn, name="")], "transcript", thinking="keep").removeprefix(f"{turn.role}: ")
            found.append(Turn(turn.role, text))
        elif turn.role != TOOL:
            found.append(turn)
        else:
            text = f"{turn.role}{f' {turn.name}' if turn.name else ''}: {turn.content}"
            if found and found[-1].role == USER:
                text = f"{found.pop().content}\n\n{text}"
            found.append(Turn(USER, text))
    return found


def stands_in(said: str, text: str) -> bool:
    """Whether a rendered text has what somebody said, as it is or as JSON."""
    return said in text or json.dumps(said, ensure_ascii=False)[1:-1] in text


def _mapping(arguments: str) -> Any:
    """A call's arguments as a mapping, if they are one."""
    try:
        parsed = json.loads(arguments or "{}")
    except ValueError:
        return arguments
    return parsed if isinstance(parsed, dict) else arguments


@functools.lru_cache(maxsize=64)
def _compiled(source: str) -> tuple[Any, frozenset[str]]:
    """A template, and every name and text in it."""
    with needs_extra("onnx"):
        from jinja2 import TemplateSyntaxError, nodes
        from jinja2.ext import Extension, loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}`` marks what the assistant wrote; it says nothing of the text."""

        tags = {"generation"}  # noqa: RUF012 - as jinja declares it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation]
    )
    environment.filters["tojson"] = _as_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    try:
        tree = environment.parse(source)
        template = environment.from_string(source)
    except TemplateSyntaxError as error:
        raise ConfigError(
            f"the chat template cannot be read: {error}", hint="save or export the model again"
        ) from error
    texts = {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
    return template, frozenset({*texts, *(node.attr for node in tree.find_all(nodes.Getattr))})


def _as_json(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - as transformers declares it
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _now(form: str) -> str:
    return dt.datetime.now(tz=dt.UTC).astimezone().strftime(form)
