"""Where a view's text stands in the turns, and a turn's text in its tokens."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif_sdk.conversations import ToolCall, Turn, policy_turns, view
from rlaif_sdk.conversations.offsets import TurnTokens, mask_spans, view_pieces

WORDS = st.sampled_from(
    [
        *(
            "",
            " ",
            "Yes.",
            "a\n\nb",
            "<think>hm</think>Ten.",
            "Ten.</think> So",
            "<think>cut",
            "`<think>` x",
            "Ähm 🎉 ok",
        ),
        "<|channel|>analysis<|message|>Hm.<|end|><|channel|>final<|message|>Ten.",
        "analysisHm.assistantfinalTen.",
        "<|begin_of_thought|>a<|end_of_thought|>\n<|begin_of_solution|>b<|end_of_solution|>",
    ]
)
TURNS = st.builds(
    Turn,
    role=st.sampled_from(["assistant", "assistant", "user", "tool", "system"]),
    content=WORDS,
    reasoning=st.sampled_from(["", "Let me see."]),
    calls=st.sampled_from([(), (ToolCall("clock", "{}", "c1"),), (ToolCall("a", ""), ToolCall("b", "1"))]),
    call_id=st.sampled_from(["", "c1"]),
    media=st.sampled_from([(), ("image",)]),
)


@settings(max_examples=300, deadline=None)
@given(
    value=st.one_of(WORDS, st.lists(TURNS, max_size=4)),
    name=st.sampled_from(["answer", "assistant", "transcript"]),
    thinking=st.sampled_from(["drop", "keep"]),
)
def test_the_pieces_of_a_view_are_the_view(value: Any, name: Any, thinking: Any) -> None:
    """Letter for letter, and each that has an offset stands there in its turn."""
    pieces = view_pieces(value, name, thinking)
    assert "".join(piece.text for piece in pieces) == (view(value, name, thinking=thinking) or "")
    turns = [Turn("assistant", value)] if isinstance(value, str) else value
    for piece in pieces:
        if piece.offset is not None:
            assert turns[piece.turn].content[piece.offset : piece.offset + len(piece.text)] == piece.text


def test_a_turn_of_the_policy_ends_where_somebody_else_speaks() -> None:
    """Messages of its own that follow each other are one turn."""
    roles = ["assistant", "assistant", "tool", "tool", "assistant", "user"]
    assert policy_turns([Turn(role) for role in roles]) == [(0, 2), (4, 5)]
    assert policy_turns([Turn("user")]) == policy_turns([]) == []


@pytest.mark.parametrize(
    ("mask", "spans"), [([], []), ([0, 0], []), ([1, 1], [(0, 2)]), ([0, 1, 0, 1], [(1, 2), (3, 4)])]
)
def test_a_mask_says_where_turns_stand(mask: list[int], spans: list[tuple[int, int]]) -> None:
    """Each stretch of ones is one."""
    assert mask_spans(mask) == spans


class Bytes:
    """A tokenizer with a token a byte, of which 0 is special."""

    def decode(self, token_ids: Any, *, skip_special_tokens: bool) -> str:
        return bytes(token for token in token_ids if token or not skip_special_tokens).decode(errors="replace")


@pytest.mark.parametrize(
    ("content", "end", "token"), [("Hello", 1, 0), ("Hello", 5, 4), ("Ä🎉b", 1, 1), ("Ä🎉b", 2, 5), ("Ä🎉b", 3, 6)]
)
def test_a_character_falls_on_the_token_that_completes_it(content: str, end: int, token: int) -> None:
    """Characters of several tokens too; special tokens before and after have no text."""
    ids = [0, *content.encode(), 0]
    assert TurnTokens([Turn("assistant", content)], ids, Bytes()).token_at(0, end) == token + 1


def test_the_second_of_two_messages_is_found_behind_the_first() -> None:
    """Where both say the same, too; and words that the tokens do not say are nowhere."""
    turns = [Turn("assistant", "Ten."), Turn("assistant", "Ten.")]
    ids = list(b"Ten.<next>Ten.")
    assert TurnTokens(turns, ids, Bytes()).token_at(0, 4) == 3
    assert TurnTokens(turns, ids, Bytes()).token_at(1, 4) == 13
    assert TurnTokens([Turn("assistant", "Nine.")], ids, Bytes()).token_at(0, 5) is None


def test_a_special_token_that_is_part_of_the_text_is_found() -> None:
    """A stack may leave them in, as the tags of some models' thinking are."""
    assert TurnTokens([Turn("assistant", "a\0b")], list(b"a\0b"), Bytes()).token_at(0, 3) == 2


@settings(max_examples=100)
@given(st.text(st.sampled_from("aÄ🎉\ufffd "), min_size=1, max_size=12), st.booleans())
def test_every_character_falls_on_the_first_token_with_which_it_is_there(content: str, has_special: bool) -> None:
    """As plain decoding of more and more tokens tells; and no stretch is decoded twice."""
    ids = [*([0] if has_special else []), *content.encode()]
    asked: list[tuple[int, bool]] = []

    class Counting(Bytes):
        def decode(self, token_ids: Any, *, skip_special_tokens: bool) -> str:
            asked.append((len(token_ids), skip_special_tokens))
            return super().decode(token_ids, skip_special_tokens=skip_special_tokens)

    tokens = TurnTokens([Turn("assistant", content)], ids, Counting())
    for end in range(1, len(content) + 1):
        first = next(n for n in range(len(ids)) if _said(ids[: n + 1]).startswith(content[:end]))
        assert tokens.token_at(0, end) == first
    assert len(asked) == len(set(asked))


def _said(ids: list[int]) -> str:
    return Bytes().decode(ids, skip_special_tokens=True)
