from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk.conversations import after_thinking, split_thinking, view

WRITTEN = {
    "tags": "<think>so be it</think>\n\nParis.",
    "another name": "<thinking>so be it</thinking>Paris.",
    "upper case": "<THINK>so be it</THINK> Paris.",
    "opened by the template": "so be it\n</think>\n\nParis.",
    "brackets": "[THINK]so be it[/THINK]Paris.",
    "triangles": "◁think▷so be it◁/think▷Paris.",
    "special tokens": "<|START_THINKING|>so be it<|END_THINKING|>Paris.",
    "begin and end": (
        "<|begin_of_thought|>so be it<|end_of_thought|>\n\n<|begin_of_solution|>Paris.<|end_of_solution|>"
    ),
    "begin, opened by the template": "so be it<|end_of_thought|>Paris.",
    "channels": (
        "<|channel|>analysis<|message|>so be it<|end|><|start|>assistant<|channel|>final<|message|>Paris.<|return|>"
    ),
    "channels, cut": "<|channel|>analysis<|message|>so be it<|channel|>final<|message|>Paris.",
    "channels without their tokens": "analysisso be itassistantfinalParis.",
    "after the answer": "Paris.<think>so be it",
}


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
def test_thinking_is_no_part_of_any_view_unless_it_is_kept(text: str) -> None:
    """Thinking lowered the score of the answer after it; where it is wanted it is there to the letter."""
    assert split_thinking(text) == ("Paris.", "so be it")
    message = [{"role": "assistant", "content": text}]
    for name in ("answer", "assistant", "transcript"):
        for value in (text, message):
            assert view(value, name) == "Paris."
            assert view(value, name, thinking="keep") == text


@pytest.mark.parametrize("text", [text for text in WRITTEN.values() if not text.startswith("Paris")])
def test_what_follows_thinking_is_found_in_every_form(text: str) -> None:
    """A judge of any family thinks before its verdict."""
    assert after_thinking(text) == "Paris."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("The answer has <think> in it.\nPreferred: 2", "The answer has <think> in it.\nPreferred: 2"),
        ("<think>a</think>It says <think>so</think>.\nPreferred: 2", "It says <think>so</think>.\nPreferred: 2"),
        ("analysis of both\nPreferred: 2", "analysis of both\nPreferred: 2"),
        ("<think>Preferred: 2", ""),
        ("<think>a </thinking> b</think>\nPreferred: 2", "Preferred: 2"),
    ],
)
def test_what_a_judge_quotes_of_thinking_is_no_thinking(text: str, said: str) -> None:
    """A policy that writes the tag could otherwise hide a verdict about it."""
    assert after_thinking(text) == said


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_thinking_in_a_field_is_shown_in_tags_where_it_is_kept(field: str) -> None:
    """Servers return thinking in a field; kept, it reads as it was written."""
    message = [{"role": "assistant", "content": "Paris.", field: "so be it"}]
    assert view(message, "answer") == "Paris."
    assert view(message, "answer", thinking="keep") == "<think>\nso be it\n</think>\n\nParis."


@pytest.mark.parametrize(
    "block",
    [
        {"type": "thinking", "thinking": "so be it", "signature": "x"},
        {"type": "reasoning", "text": "so be it"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "so be it"}]},
        {"type": "thinking", "thinking": [{"type": "text", "text": "so be it"}]},
    ],
)
def test_thinking_in_a_block_is_thinking(block: dict[str, object]) -> None:
    """Anthropic, Mistral and the Responses API each have their block."""
    message = [{"role": "assistant", "content": [block, {"type": "text", "text": "Paris."}]}]
    assert view(message, "assistant") == "Paris."
    assert "so be it" in (view(message, "assistant", thinking="keep") or "")
    assert "so be it" not in view(message, "transcript")


def test_redacted_thinking_says_nothing() -> None:
    """What is encrypted is neither text nor an error."""
    blocks = [{"type": "redacted_thinking", "data": "EmwKAhgB"}, {"type": "text", "text": "Paris."}]
    assert view([{"role": "assistant", "content": blocks}], "transcript", thinking="keep") == "Paris."
    assert view([{"type": "reasoning", "encrypted_content": "gAAA", "summary": []}], "assistant") == ""


def test_an_answer_that_never_leaves_its_thinking_is_empty() -> None:
    """It is scored as an empty answer: a policy that never answers is not spared by an abstention."""
    assert view("<think>on and on", "answer") == ""
    assert view([{"role": "assistant", "content": "", "reasoning_content": "on and on"}], "answer") == ""


def test_thinking_about_tags_ends_at_its_own_end() -> None:
    """A model that is told to use tags speaks of them while it thinks."""
    assert split_thinking("<think>I must use <think> here.</think>Paris.")[0] == "Paris."
    assert split_thinking("<think>I must close <think> by </think> first.</think>Paris.")[0] == "Paris."
    assert split_thinking("Put it in `<think>` and `</think>`.")[0] == "Put it in `<think>` and `</think>`."


@pytest.mark.parametrize(
    "text",
    [
        "Use this:\n```html\n<think>words</think>\n```\nPlease do.",
        "```\nnever close with </think>\n```\nParis.",
        "  ```\n[THINK]\n  ```",
        "```\na\n```\n```xml\n<|begin_of_thought|>\n```\n",
        "Use `<think>draft</think>` as the example.",
        "Write ` <think> ` and then the answer.",
        "`a` and `x [THINK]y[/THINK] z` and `b`.",
    ],
)
def test_tags_in_code_are_words(text: str) -> None:
    """Else what a policy says between them is not judged."""
    assert split_thinking(text) == (text, "")


@pytest.mark.parametrize(
    ("thought", "said"),
    [
        ("```\n<think>\n```\n", "Paris."),
        ("I write\n```python\nx\n", "Paris.\n```python\ny\n```"),
        ("a ``` b", "Paris."),
        ("is it `x", "Paris, not `y`."),
        ("`<think>` or not", "Paris."),
    ],
)
def test_code_in_thinking_keeps_nothing_open(thought: str, said: str) -> None:
    """Thinking that breaks off within a block of code ends at its closing tag all the same."""
    assert split_thinking(f"<think>{thought}</think>{said}") == (said, thought.strip())
    if "\n<think>" not in thought:
        assert split_thinking(f"{thought}\n</think>\n{said}") == (said, thought.strip())


def test_steps_of_thinking_between_answers_leave_the_answers() -> None:
    """Interleaved thinking ends where the text goes on."""
    text = "<think>one</think>First.<think>two</think>Second."
    assert split_thinking(text) == ("First.\n\nSecond.", "one\n\ntwo")


def test_a_call_in_a_channel_is_neither_said_nor_thought() -> None:
    """Harmony writes calls into the text, addressed to the tool."""
    text = (
        "<|channel|>analysis<|message|>look<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.look<|constrain|>json<|message|>{}<|call|>"
        "<|start|>assistant<|channel|>final<|message|>Found.<|return|>"
    )
    assert split_thinking(text) == ("Found.", "look")


def test_tags_of_others_are_their_words() -> None:
    """A user who writes of tags is not silenced, in text or in messages."""
    assert view("What does <think> do?", "transcript", role="user") == "What does <think> do?"
    asked = [{"role": "user", "content": "What does <think> do?"}, {"role": "assistant", "content": "It thinks."}]
    assert view(asked, "transcript") == "user: What does <think> do?\n\nassistant: It thinks."


@given(st.text(st.characters(exclude_characters="<[◁"), max_size=80).filter(lambda text: "assistantfinal" not in text))
def test_text_without_marks_is_said_as_it_is(text: str) -> None:
    """Not a space of it changes."""
    assert split_thinking(text) == (text, "")


THOUGHTS = st.lists(st.sampled_from(["a", " ", "<", ">", "<think>", "<thinking>", "[THINK]", "\n"]), max_size=8).map(
    "".join
)


@given(THOUGHTS, st.text(st.sampled_from("ab \n"), max_size=30))
def test_what_is_said_is_the_same_whatever_is_thought(thought: str, said: str) -> None:
    """A view of the answer does not depend on the thinking before it."""
    assert split_thinking(f"<think>{thought}</think>{said}")[0] == said.strip()
