from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif_sdk import Composer, ConversationError, RewardBatch
from rlaif_sdk.conversations import ToolCall, Turn, chat_messages, read, view

DATA = Path(os.environ.get("RLAIF_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / "trajectories"


def recorded(name: str) -> Iterator[dict[str, Any]]:
    if not (DATA / name).exists():
        pytest.skip(f"no {DATA / name}; set RLAIF_DATA to the development data")
    with (DATA / name).open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def said_in(messages: list[dict[str, Any]]) -> list[str]:
    """The texts of a chat's assistant messages, by hand."""
    return [message["content"] for message in messages if message["role"] == "assistant" and message.get("content")]


def test_recorded_chats_are_read_whole() -> None:
    """Every message, call and result of real OpenAI chats arrives, and the assistant's words are its own alone."""
    for row in recorded("openai_chat.jsonl"):
        messages = row["messages"]
        turns = read(messages)
        assert [turn.role for turn in turns] == [message["role"] for message in messages]
        asked = [call["id"] for message in messages for call in message.get("tool_calls") or ()]
        assert [call.id for turn in turns for call in turn.calls] == asked
        assert view(messages, "assistant") == ("\n\n".join(said_in(messages)) or None)
        for message in messages:
            if isinstance(message.get("content"), str):
                assert message["content"] in view(messages, "transcript", thinking="keep")


def test_recorded_responses_are_read_whole() -> None:
    """Reasoning, calls and outputs of real Responses items have their places, and the final message is the answer."""
    for row in recorded("openai_responses.jsonl"):
        items = [*row["input"], *row["output"]]
        turns = read(items)
        calls = [item for item in items if item.get("type") == "function_call"]
        assert [(call.name, call.id) for turn in turns for call in turn.calls] == [
            (item["name"], item["call_id"]) for item in calls
        ]
        outputs = [item["output"] for item in items if item.get("type") == "function_call_output"]
        assert [turn.content for turn in turns if turn.role == "tool"] == outputs
        final = [block["text"] for item in row["output"] if item["type"] == "message" for block in item["content"]]
        assert view(items, "answer") == ("".join(final) or None)
        assert view(row["input"], "assistant") is None  # calls, and not a word


def test_recorded_anthropic_messages_are_read_whole() -> None:
    """Tool results inside users' messages are no user's words, and thinking blocks are no answer."""
    for row in recorded("anthropic_messages.jsonl"):
        blocks = [
            (message["role"], block)
            for message in row["messages"]
            for block in (message["content"] if isinstance(message["content"], list) else [])
        ]
        turns = read(row["messages"])
        of_type = {
            kind: [b for _, b in blocks if b["type"] == kind] for kind in ("tool_use", "tool_result", "thinking")
        }
        assert [call.id for turn in turns for call in turn.calls] == [block["id"] for block in of_type["tool_use"]]
        assert [turn.call_id for turn in turns if turn.role == "tool"] == [
            block["tool_use_id"] for block in of_type["tool_result"]
        ]
        thoughts = [turn.thinking for turn in turns if turn.thinking]
        assert thoughts == [block["thinking"] for block in of_type["thinking"]]
        assistant = view(row["messages"], "assistant") or ""
        for role, block in blocks:
            if block["type"] == "text" and block["text"].strip():
                assert (block["text"] in assistant) == (role == "assistant")
        assert not any(thought in view(row["messages"], "transcript") for thought in thoughts)


def test_recorded_rollouts_are_read_whole() -> None:
    """The outputs of real NeMo Gym rollouts are completions as they are."""
    files = ("example_session_state_mgmt", "example_single_tool_call", "example_tool_call_multireward")
    for row in (row for name in files for row in recorded(f"nemo_gym_{name}_rollouts.jsonl")):
        prompt, output = row["responses_create_params"]["input"], row["response"]["output"]
        last = [item for item in output if item["type"] == "message"][-1]
        assert view(output, "answer") == "".join(block["text"] for block in last["content"])
        assert view(prompt, "assistant") == ""
        for item in prompt:
            assert item["content"] in view(prompt, "transcript", role="user")


CALL = {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": '{"key": "start"}'}}
SHAPES_OF_A_CALL: dict[str, Any] = {
    "chat": {"role": "assistant", "content": None, "tool_calls": [CALL]},
    "flat": {"role": "assistant", "tool_calls": [{"id": "1", "name": "look_up", "arguments": {"key": "start"}}]},
    "as JSON": {"role": "assistant", "tool_calls": json.dumps([CALL])},
    "legacy": {"role": "assistant", "function_call": CALL["function"]},
    "custom": {
        "role": "assistant",
        "tool_calls": [{"type": "custom", "custom": {"name": "look_up", "input": "start"}}],
    },
    "Responses": {"type": "function_call", "call_id": "1", "name": "look_up", "arguments": '{"key": "start"}'},
    "Responses, custom": {"type": "custom_tool_call", "call_id": "1", "name": "look_up", "input": "start"},
    "Anthropic": {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "1", "name": "look_up", "input": {"key": "start"}}],
    },
    "AI SDK": {
        "role": "assistant",
        "content": [{"type": "tool-call", "toolCallId": "1", "toolName": "look_up", "input": {"key": "start"}}],
    },
    "ShareGPT": {"from": "function_call", "value": '{"name": "look_up", "arguments": {"key": "start"}}'},
}


@pytest.mark.parametrize("message", SHAPES_OF_A_CALL.values(), ids=SHAPES_OF_A_CALL)
def test_a_call_of_any_shape_is_a_call_and_not_a_word(message: dict[str, Any]) -> None:
    """A lone call is told apart from an empty answer: there are no words, and the transcript names it."""
    (turn,) = read([message])
    (call,) = turn.calls
    assert (turn.role, turn.content, call.name) == ("assistant", "", "look_up")
    assert "start" in call.arguments
    assert view([message], "answer") is None
    assert view([message], "assistant") is None
    assert view([message], "transcript").startswith("assistant: [calls look_up(")


SHAPES_OF_A_RESULT: dict[str, Any] = {
    "chat": {"role": "tool", "tool_call_id": "1", "content": "a page"},
    "chat, blocks": {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "a page"}]},
    "legacy": {"role": "function", "name": "look_up", "content": "a page"},
    "Llama": {"role": "ipython", "content": "a page"},
    "Responses": {"type": "function_call_output", "call_id": "1", "output": "a page"},
    "Responses, blocks": {
        "type": "function_call_output",
        "call_id": "1",
        "output": [{"type": "input_text", "text": "a page"}],
    },
    "Responses, custom": {"type": "custom_tool_call_output", "call_id": "1", "output": "a page"},
    "Anthropic": {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "a page"}]},
    "AI SDK": {
        "role": "tool",
        "content": [{"type": "tool-result", "toolCallId": "1", "output": {"type": "text", "value": "a page"}}],
    },
    "ShareGPT": {"from": "observation", "value": "a page"},
}


@pytest.mark.parametrize("message", SHAPES_OF_A_RESULT.values(), ids=SHAPES_OF_A_RESULT)
def test_a_result_of_any_shape_is_what_a_tool_wrote(message: dict[str, Any]) -> None:
    """A tool's page is in the transcript alone, and an answer after it is the answer."""
    (turn,) = read([message])
    assert (turn.role, turn.content) == ("tool", "a page")
    conversation = [SHAPES_OF_A_CALL["chat"], message, {"role": "assistant", "content": "Found."}]
    assert view(conversation, "answer") == view(conversation, "assistant") == "Found."
    assert "a page" in view(conversation, "transcript")


CONTENTS: dict[str, Any] = {
    "text": "Hello there",
    "text block": [{"type": "text", "text": "Hello there"}],
    "output_text": [{"type": "output_text", "text": "Hello there", "annotations": []}],
    "a type of tomorrow": [{"type": "answer_text_v9", "text": "Hello there"}],
    "no type": [{"text": "Hello there"}],
    "by content": [{"type": "paragraph", "content": "Hello there"}],
    "nested": [{"type": "text", "text": {"value": "Hello there", "annotations": []}}],
    "strings": ["Hello ", "there"],
    "one mapping": {"type": "text", "text": "Hello there"},
    "parts": {"content_type": "text", "parts": ["Hello there"]},
    "beside an image": [{"type": "image_url", "image_url": {"url": "data:"}}, {"type": "text", "text": "Hello there"}],
    "beside null": [None, {"type": "text", "text": None}, {"type": "text", "text": "Hello there"}],
    "two halves": [{"type": "text", "text": "Hello "}, {"type": "text", "text": "there"}],
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_content_of_any_shape_has_the_same_words(content: object) -> None:
    """Blocks of other types were dropped and the answer scored as empty."""
    for name in ("answer", "assistant"):
        assert view([{"role": "assistant", "content": content}], name) == "Hello there"


@dataclass
class Dumped:
    """An object as clients built on pydantic give them."""

    dumped: Any

    def model_dump(self) -> Any:
        return self.dumped


SAYS = {"role": "assistant", "content": "Hello there"}
MESSAGES: dict[str, Any] = {
    "Gemini": [{"role": "model", "parts": [{"text": "Hello "}, {"text": "there"}]}],
    "Gemini, thinking": [{"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": "Hello there"}]}],
    "Gemini, calls": [
        {"role": "model", "parts": [{"text": "Let me see."}, {"functionCall": {"name": "look", "args": {"a": 1}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "look", "response": {"result": "a page"}}}]},
        {
            "role": "model",
            "content": None,
            "parts": [{"text": "Hello there"}, {"inlineData": {"mimeType": "image/png"}}],
        },
    ],
    "AI SDK": [{"id": "1", "role": "assistant", "parts": [{"type": "text", "text": "Hello there", "state": "done"}]}],
    "LangChain": [{"type": "human", "content": "Hello?"}, {"type": "ai", "content": "Hello there", "tool_calls": []}],
    "LangChain, data": [{"type": "ai", "data": {"content": "Hello there", "type": "ai", "name": None}}],
    "LangChain, tools": [
        {"type": "ai", "content": "", "tool_calls": [{"name": "look", "args": {}, "id": "1", "type": "tool_call"}]},
        {"type": "tool", "content": "a page", "tool_call_id": "1"},
        {"type": "ai", "content": [{"type": "text", "text": "Hello there"}]},
    ],
    "objects": [Dumped(SAYS)],
    "one object": Dumped(SAYS),
    "objects as blocks": [{"role": "assistant", "content": [Dumped({"type": "text", "text": "Hello there"})]}],
    "objects as calls": [
        {"role": "assistant", "content": None, "tool_calls": [Dumped({"id": "1", "function": {"name": "look"}})]},
        {"role": "tool", "content": "a page"},
        SAYS,
    ],
    "an array": np.array([SAYS], dtype=object),
    "an array of blocks": np.array(
        [{"role": "assistant", "content": np.array([{"type": "text", "text": "Hello there"}], dtype=object)}],
        dtype=object,
    ),
}


@pytest.mark.parametrize("messages", MESSAGES.values(), ids=MESSAGES)
def test_messages_of_every_library_have_the_same_words(messages: Any) -> None:
    """Some were scored as empty answers and some left unscored; calls and results are no words."""
    assert view(messages, "answer") == "Hello there"
    calls = [call.name for turn in read(messages) for call in turn.calls]
    assert calls == (["look"] if any("a page" in turn.content for turn in read(messages)) else [])
    assert "a page" not in (view(messages, "assistant") or "")


def test_an_array_without_messages_says_nothing() -> None:
    """Nor is its truth value asked for; one of numbers is no conversation."""
    assert read(np.array([])) == ()
    with pytest.raises(ConversationError):
        read(np.array([1.5]))
    with pytest.raises(ConversationError):
        read(np.array(1.5))


def test_a_refusal_is_what_the_policy_said() -> None:
    """A refusal stands in a field or block of its own, with null content."""
    assert view([{"role": "assistant", "content": None, "refusal": "I can't."}], "answer") == "I can't."
    block = [{"type": "refusal", "refusal": "I can't."}]
    assert view([{"type": "message", "role": "assistant", "content": block}], "answer") == "I can't."


@pytest.mark.parametrize("kind", ["image", "input_image", "image_url", "input_audio", "output_audio", "video", "file"])
def test_what_is_no_text_is_named_in_the_transcript_alone(kind: str) -> None:
    """Nobody judges without knowing of an image, and no transcript of a sound passes for written words."""
    blocks = [{"type": kind, kind: {"transcript": "spoken", "url": "data:"}, "text": "spoken"}]
    message = [{"role": "assistant", "content": blocks}]
    assert view(message, "assistant") == ""
    shown = view(message, "transcript")
    assert shown.startswith("assistant: [")
    assert "spoken" not in shown


def test_a_spoken_answer_is_no_empty_one() -> None:
    """OpenAI's answers in sound have null content: whoever reads the transcript sees that there was one."""
    spoken = [{"role": "assistant", "content": None, "audio": {"id": "a", "transcript": "spoken"}}]
    assert view(spoken, "transcript") == "assistant: [audio]"
    assert view(spoken, "assistant") == ""


@pytest.mark.parametrize(
    "value",
    [
        42,
        None,
        b"bytes",
        [42],
        ["a text that is no message"],
        [{"content": "who says so?"}],
        [{"role": None, "content": "who says so?"}],
        [{"role": 7, "content": "who says so?"}],
        [{"role": " ", "content": "who says so?"}],
        [{"type": "message", "content": "who says so?"}],
        [{"type": "person", "content": "a type that is no block"}],
        [{"type": ["ai"], "content": "a type that is no text"}],
        [{"role": "assistant", "content": 42}],
        [{"role": "assistant", "content": [42]}],
        [{"role": "assistant", "content": [{"colour": "red"}]}],
        [{"role": "assistant", "content": [{"type": 3, "text": "x"}]}],
        [{"role": "assistant", "content": None, "tool_calls": 42}],
        [{"role": "assistant", "content": None, "tool_calls": "{not JSON"}],
        [{"role": "assistant", "content": None, "tool_calls": ["look_up"]}],
    ],
)
def test_what_cannot_be_read_is_an_error_of_its_own(value: object) -> None:
    """Nothing is guessed: the error says what was found, and where."""
    with pytest.raises(ConversationError) as caught:
        read(value)
    if isinstance(value, list):
        assert str(caught.value).startswith("message 1: ")


def test_content_nested_without_end_is_refused() -> None:
    """A row that is too deep fails alone, and not with a RecursionError."""
    content: Any = "deep"
    for _ in range(5_000):
        content = {"content": content}
    with pytest.raises(ConversationError, match="deeper"):
        read([{"role": "assistant", "content": content}])


def nested(depth: int = 50_000) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def holding_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": nested()}}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": holding_itself()}}]},
        {"role": "assistant", "tool_calls": "[" * 50_000},
        {"role": "assistant", "function_call": '{"a":' * 50_000},
        {"role": "assistant", "content": "b", "reasoning_content": nested()},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": nested()}]},
        {"role": "assistant", "content": "b", "refusal": nested()},
        {"role": "tool", "content": nested()},
        {"type": "function_call_output", "output": nested()},
        {"role": nested(), "content": "b"},
        nested(),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "list",
)
def test_a_part_of_any_depth_fails_its_row_alone(message: Any) -> None:
    """Calls, results, thinking and names may be JSON of any depth, which a policy writes as text too."""
    with pytest.raises(ConversationError):
        read([{"role": "user", "content": "a"}, message])
    batch = RewardBatch(["p"] * 3, ["a", [message], "c"])
    assert Composer({"a": lambda completion_texts: [1.0 for _ in completion_texts]}).compose(batch).to_list() == [
        1.0,
        None,
        1.0,
    ]


def test_chat_messages_say_what_the_turns_do() -> None:
    """Canonical messages are what templates and servers take; fields that say nothing are left out."""
    turns = (
        Turn("user", "Where?"),
        Turn("assistant", reasoning="Look it up.", calls=(ToolCall("look_up", "{}", "7"),)),
        Turn("tool", "Oslo", call_id="7", name="look_up"),
        Turn("assistant", "In Oslo."),
    )
    assert chat_messages(turns) == [
        {"role": "user", "content": "Where?"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "Look it up.",
            "tool_calls": [{"type": "function", "function": {"name": "look_up", "arguments": "{}"}, "id": "7"}],
        },
        {"role": "tool", "content": "Oslo", "tool_call_id": "7", "name": "look_up"},
        {"role": "assistant", "content": "In Oslo."},
    ]
    assert read(chat_messages(turns)) == turns


TEXTS = st.text(st.sampled_from("ab <>/\n`") | st.characters(), max_size=12) | st.sampled_from(
    ["<think>x</think>y", "</think>", "<tool_call>", "a page"]
)
BLOCKS = st.builds(lambda kind, text: {"type": kind, "text": text}, st.sampled_from(["text", "output_text"]), TEXTS)
CONTENT = st.none() | TEXTS | st.lists(BLOCKS | TEXTS, max_size=3)
CALLS = st.none() | st.lists(
    st.builds(
        lambda name, arguments: {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}},
        TEXTS.filter(bool),
        TEXTS,
    ),
    max_size=2,
)
POLICY = st.fixed_dictionaries(
    {"role": st.sampled_from(["assistant", "model", "gpt"]), "content": CONTENT},
    optional={"tool_calls": CALLS, "reasoning_content": st.none() | TEXTS, "refusal": st.none() | TEXTS},
)
OTHERS = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "tool", "system", "developer", "function"]), "content": CONTENT},
    optional={"name": st.none() | TEXTS, "tool_call_id": st.none() | TEXTS},
)
NULLS = ("name", "tool_calls", "function_call", "tool_call_id", "reasoning_content", "reasoning", "refusal", "audio")


@settings(max_examples=300, deadline=None)
@given(st.lists(POLICY | OTHERS, max_size=5), st.data())
def test_the_words_of_the_policy_do_not_depend_on_those_of_others(messages: list[Any], data: st.DataObject) -> None:
    """Whatever users, tools and the system write, no view of the policy's words changes."""
    replaced = [
        message if message["role"] in {"assistant", "model", "gpt"} else {**message, **data.draw(OTHERS)}
        for message in messages
    ]
    for name in ("answer", "assistant"):
        for thinking in ("drop", "keep"):
            assert view(messages, name, thinking=thinking) == view(replaced, name, thinking=thinking)


@settings(max_examples=300, deadline=None)
@given(st.lists(POLICY | OTHERS, max_size=4), st.data())
def test_null_fields_make_no_difference(messages: list[dict[str, Any]], data: st.DataObject) -> None:
    """A client's dump, or a table of Parquet, has every field in every message, null where it says nothing."""
    fields = data.draw(st.sets(st.sampled_from(NULLS)))
    padded = [{**dict.fromkeys(fields), **message} for message in messages]
    bare = [{name: value for name, value in message.items() if value is not None} for message in messages]
    assert read(padded) == read(messages) == read(bare)


@settings(max_examples=300, deadline=None)
@given(st.lists(POLICY | OTHERS, max_size=4))
def test_reading_what_was_read_changes_nothing(messages: list[dict[str, Any]]) -> None:
    """Canonical turns, and the chat messages of them, are read as what they are."""
    turns = read(messages)
    assert read(turns) == turns
    assert read(chat_messages(turns)) == turns


@pytest.mark.parametrize("reasoning", [[True, "Look it up."], [7, {"text": "Look it up."}], [[None, ["Look it up."]]]])
def test_thinking_is_the_text_among_what_else_stands_there(reasoning: list[Any]) -> None:
    """As where a dump keeps marks beside the words."""
    message = {"role": "assistant", "reasoning_content": reasoning, "content": "Paris."}
    assert [(turn.reasoning, turn.content) for turn in read([message])] == [("Look it up.", "Paris.")]


KEYS = st.sampled_from(
    [
        "role",
        "content",
        "type",
        "text",
        "name",
        "tool_calls",
        "function",
        "arguments",
        "output",
        "thinking",
        "from",
        "value",
    ]
)
WORDS = st.sampled_from(
    [
        "user",
        "assistant",
        "tool",
        "text",
        "thinking",
        "tool_use",
        "tool_result",
        "function_call",
        "image",
        "{}",
        "[",
        "",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=1000, deadline=None)
@given(JSON)
def test_whatever_a_row_holds_it_is_read_or_refused(value: Any) -> None:
    """No JSON ends in another error, which would take the rows around it along."""
    try:
        turns = read(value)
    except ConversationError:
        return
    assert read(turns) == turns
    for name in ("answer", "assistant", "transcript"):
        assert isinstance(view(value, name), (str, type(None)))
