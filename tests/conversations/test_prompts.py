from __future__ import annotations

from typing import Any

import pytest

from rlaif_sdk import RewardBatch
from rlaif_sdk.conversations import prompt_problem

CALL = {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
ASKED = {"role": "user", "content": "Where is it?"}


@pytest.mark.parametrize(
    "prompt",
    [
        "Where is it?",
        [ASKED],
        [{"role": "system", "content": ""}, ASKED],
        [{"role": "system", "content": None}, ASKED],
        [ASKED, {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": ""}],
        [ASKED, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "Oslo"}],
        [{"role": "user", "content": [{"type": "input_text", "text": "Where is it?"}]}],
        [ASKED, {"type": "function_call", "call_id": "1", "name": "look_up", "arguments": "{}"}],
        [{"role": "user", "content": [{"type": "image"}]}],
    ],
)
def test_a_prompt_that_says_something_is_accepted(prompt: Any) -> None:
    """An empty system prompt, and null content beside a call, ended a run at its data."""
    assert prompt_problem(prompt) is None


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ("  ", "the prompt is empty"),
        ([], "the prompt is empty"),
        ([{"role": "system", "content": ""}], "the prompt is empty"),
        ([{"role": "user", "content": None}], "the prompt is empty"),
        ([{"role": "user", "content": 42}], "the prompt cannot be read: message 1: content is 42"),
        ([ASKED, {"content": "x"}], "the prompt cannot be read: message 2: a message without a role"),
        (7, "the prompt cannot be read: 7 is neither text nor a list of messages"),
    ],
)
def test_a_prompt_that_says_nothing_is_refused(prompt: Any, problem: str) -> None:
    """What is wrong is said before anything is paid for."""
    assert (prompt_problem(prompt) or "").startswith(problem)


def test_prompts_are_transcripts() -> None:
    """A message alone is its text; more are told apart, and an earlier turn's thinking is left out."""
    prompts = ["plain", [ASKED], [ASKED, {"role": "assistant", "content": "<think>hm</think>Oslo."}, ASKED]]
    texts = RewardBatch(prompts=prompts, completions=["x"] * 3).prompt_texts
    assert texts[:2] == ("plain", "Where is it?")
    assert texts[2] == "user: Where is it?\n\nassistant: Oslo.\n\nuser: Where is it?"


def test_what_was_read_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are read once, however many rewards ask for however many views, of the batch and of parts of it."""
    import rlaif_sdk.types as types

    read, count = types.read, 0

    def counted(value: Any, *, role: str) -> Any:
        nonlocal count
        count += 1
        return read(value, role=role)

    monkeypatch.setattr(types, "read", counted)
    batch = RewardBatch(prompts=[[ASKED]] * 3, completions=[[ASKED]] * 3, columns={"a": [1, 2, 3]})
    batch.views("answer")
    batch.views("transcript", thinking="keep")
    batch.with_columns({"b": "a"}).views("assistant")
    assert batch.select([2, 0]).prompt_texts == ("Where is it?",) * 2
    assert count == 6
