"""Where the text of a view stands in the turns of a conversation, and where a turn's text stands in its tokens."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rlaif_sdk.conversations.messages import ASSISTANT, Turn, read
from rlaif_sdk.conversations.thinking import said_stretches
from rlaif_sdk.conversations.views import Thinking, View, spoken_turns, transcript_turns, words


class Decodes(Protocol):
    """A tokenizer, as far as it is needed here."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of tokens."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a view.

    Attributes:
        text: What it shows.
        turn: The turn that it is of, by its place in the conversation.
        offset: Where it stands in that turn's ``content``; None for what stands elsewhere, such as a call, or nowhere.
        is_said: False for what the view adds: roles, and what stands between paragraphs.
    """

    text: str
    turn: int
    offset: int | None = None
    is_said: bool = True


def view_pieces(value: Any, name: View, thinking: Thinking = "drop") -> list[Piece]:
    """A completion's view as `rlaif_sdk.view` gives it, piece by piece.

    Raises:
        ConversationError: The value cannot be read.
    """
    turns = read(value)
    if isinstance(value, str) or (name == "transcript" and len(turns) == 1 and not (turns[0].calls or turns[0].media)):
        return list(_words(0, turns[0], thinking))
    pieces: list[Piece] = []
    if name != "transcript":
        for index in spoken_turns(turns, name):
            if words(turns[index], thinking).strip():
                pieces += [*_separated(pieces, "\n\n"), *_words(index, turns[index], thinking)]
        return pieces
    for index, head, before, after in transcript_turns(turns, thinking):
        said = list(_words(index, turns[index], thinking))
        lines = [*([[Piece(line, index)] for line in before]), *([said] if said else [])]
        lines += [[Piece(line, index)] for line in after]
        pieces += [*_separated(pieces, "\n\n"), Piece(head, index, is_said=False)]
        for number, line in enumerate(lines):
            pieces += [*([Piece("\n", index, is_said=False)] if number else []), *line]
    return pieces


def _separated(pieces: Sequence[Piece], between: str) -> Iterator[Piece]:
    if pieces:
        yield Piece(between, pieces[-1].turn, is_said=False)


def _words(index: int, turn: Turn, thinking: Thinking) -> Iterator[Piece]:
    """The pieces of `rlaif_sdk.conversations.words`."""
    stretches = [(0, len(turn.content))]
    if thinking == "drop" and turn.role == ASSISTANT:
        stretches = said_stretches(turn.content)
    elif thinking == "keep" and turn.reasoning:
        yield Piece(words(Turn(turn.role, reasoning=turn.reasoning), "keep") + "\n\n" * bool(turn.content), index)
    for number, (start, end) in enumerate(stretches):
        if number:
            yield Piece("\n\n", index, is_said=False)
        if start < end:
            yield Piece(turn.content[start:end], index, start)


def mask_spans(mask: Sequence[int]) -> list[tuple[int, int]]:
    """Where the stretches of ones in a mask begin and end: the turns of a policy, where tools' tokens are masked by 0.

    Example:
        >>> from rlaif_sdk.conversations.offsets import mask_spans
        >>> mask_spans([1, 1, 0, 0, 1])
        [(0, 2), (4, 5)]
    """
    spans: list[tuple[int, int]] = []
    for place, own in enumerate(mask):
        if not own:
            continue
        if spans and spans[-1][1] == place:
            spans[-1] = (spans[-1][0], place + 1)
        else:
            spans.append((place, place + 1))
    return spans


class TurnTokens:
    """The tokens of one turn of the policy, in which the characters of its messages are found.

    What the tokens say is taken from the tokenizer, which decodes them up to where a character is first there, so it need
    not be a fast one, and the ids may be others than it would make of the text itself. No stretch is decoded twice: a text
    that repeats itself may be marked in thousands of places.

    Args:
        turns: The messages of the turn.
        ids: The tokens of all of them.
        tokenizer: What decodes tokens.
    """

    def __init__(self, turns: Sequence[Turn], ids: Sequence[int], tokenizer: Decodes) -> None:
        self._turns = turns
        self._ids = ids
        self._tokenizer = tokenizer
        self._said: dict[bool, str] = {}
        self._known: dict[tuple[bool, int], int] = {}

    def token_at(self, turn: int, end: int) -> int | None:
        """The token with the last character before ``end`` of a message's content, by its place among the ids.

        Args:
            turn: Which of the messages.
            end: The place after the character.

        Returns:
            None where the content is not what the tokens say.
        """
        for skip in (True, False):  # a stack may leave special tokens in the text
            if skip not in self._said:
                self._said[skip] = self._tokenizer.decode(self._ids, skip_special_tokens=skip)
            begin = _content_start(self._turns, turn, self._said[skip])
            if begin is not None:
                counts = range(1, len(self._ids))
                return bisect_left(counts, begin + end, key=lambda count: self._length(count, skip=skip))
        return None

    def _length(self, count: int, *, skip: bool) -> int:
        """How many characters of the whole text the first tokens say."""
        if (skip, count) not in self._known:
            said = self._said[skip]
            text = self._tokenizer.decode(self._ids[:count], skip_special_tokens=skip)
            if not said.startswith(text):  # it ends within a character
                alike = itertools.takewhile(lambda both: both[0] == both[1], zip(text, said, strict=False))
                text = text[: sum(1 for _ in alike)]
            self._known[skip, count] = len(text)
        return self._known[skip, count]


def _content_start(turns: Sequence[Turn], turn: int, said: str) -> int | None:
    """Where in a text that holds the contents of messages, one after the other, one of them begins."""
    begin = 0
    for message in turns[:turn]:
        found = said.find(message.content, begin)
        if found < 0:
            return None
        begin = found + len(message.content)
    found = said.find(turns[turn].content, begin)
    return None if found < 0 else found
