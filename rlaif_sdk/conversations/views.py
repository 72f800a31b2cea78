"""What a consumer sees of a conversation: its answer, all that the policy said, or all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias, overload

from rlaif_sdk.conversations.messages import ASSISTANT, TOOL, Turn, chat_messages, read
from rlaif_sdk.conversations.thinking import split_thinking
from rlaif_sdk.exceptions import ConversationError

View: TypeAlias = Literal["answer", "assistant", "transcript"]
Thinking: TypeAlias = Literal["drop", "keep"]


@overload
def view(value: Any, name: Literal["transcript"], *, thinking: Thinking = ..., role: str = ...) -> str: ...
@overload
def view(value: Any, name: View, *, thinking: Thinking = ..., role: str = ...) -> str | None: ...
def view(value: Any, name: View, *, thinking: Thinking = "drop", role: str = ASSISTANT) -> str | None:
    """One view of a prompt or completion.

    - ``answer``: the policy's last words, all that it said since anybody else last spoke.
    - ``assistant``: all that the policy said, paragraphs separated by blank lines.
    - ``transcript``: everything, calls and results too. One message without calls is its bare text; more are
      ``role: text`` paragraphs.

    What users, tools and the system wrote is in no ``answer`` and no ``assistant``, nor are calls.

    Example:
        >>> from rlaif_sdk import view
        >>> turns = [
        ...     {"role": "assistant", "content": "Let me look."},
        ...     {"role": "user", "content": "Do."},
        ...     {"role": "assistant", "content": "<think>Ten.</think>It opens at ten."},
        ... ]
        >>> view(turns, "answer")
        'It opens at ten.'
        >>> view(turns, "answer", thinking="keep")
        '<think>Ten.</think>It opens at ten.'

    Args:
        value: Text, messages of any shape that `read` knows, or turns.
        name: Which view.
        thinking: ``keep`` shows the policy's thinking in each view, ``drop`` leaves it out.
        role: Who wrote plain text: ``assistant`` for a completion, ``user`` for a prompt.

    Returns:
        The text; empty where nothing was said. None where the policy said nothing because it called a tool instead, so that
        there are no words to score.

    Raises:
        ConversationError: The value cannot be read.
    """
    if isinstance(value, str):
        return words(Turn(role, value), thinking)
    turns = read(value, role=role)
    if name == "transcript":
        return _transcript(turns, thinking)
    spoken = [turns[index] for index in spoken_turns(turns, name)]
    parts = [said for turn in spoken if (said := words(turn, thinking)).strip()]
    return "\n\n".join(parts) if parts or not any(turn.calls for turn in spoken) else None


def with_answer(value: Any, answer: str) -> Any:
    """A completion whose ``answer`` is another: thinking, calls, results and all that was said before stay.

    Example:
        >>> from rlaif_sdk.conversations import with_answer
        >>> with_answer("<think>Ten.</think>It opens at ten.", "No idea.")
        '<think>Ten.</think>No idea.'
        >>> with_answer([{"role": "assistant", "content": "It opens at ten."}], "No idea.")
        [{'role': 'assistant', 'content': 'No idea.'}]

    Args:
        value: Text, or messages of any shape that `read` knows.
        answer: What is said instead; without thinking.

    Returns:
        Text for text, and chat messages for messages.

    Raises:
        ConversationError: The value cannot be read.
    """
    if isinstance(value, str):
        return _with_words(value, answer)
    turns = read(value, role=ASSISTANT)
    spoken = [index for index in spoken_turns(turns, "answer") if words(turns[index]).strip()]
    if not spoken:
        return chat_messages([*turns, Turn(ASSISTANT, answer)])
    changed = []
    for index, turn in enumerate(turns):
        if index == spoken[-1]:
            changed.append(replace(turn, content=_with_words(turn.content, answer)))
        elif index not in spoken:
            changed.append(turn)
        elif turn.calls:
            changed.append(replace(turn, content=_with_words(turn.content, "")))
    return chat_messages(changed)


def _with_words(content: str, answer: str) -> str:
    """What a policy wrote with another answer after, or around, its thinking."""
    said = split_thinking(content)[0]
    place = content.rfind(said)
    return answer if place < 0 else content[:place] + answer + content[place + len(said) :]


def shown(value: Any, *, role: str = ASSISTANT) -> str:
    """The transcript for people to look at, in reports and records; of what cannot be read, why."""
    try:
        return view(value, "transcript", role=role)
    except ConversationError as error:
        return f"[cannot be read: {error}]"


def words(turn: Turn, thinking: Thinking = "drop") -> str:
    """What one turn says, with its thinking or without."""
    if thinking == "drop":
        return turn.text
    if not turn.reasoning:
        return turn.content
    thought = f"<think>\n{turn.reasoning}\n</think>"
    return f"{thought}\n\n{turn.content}" if turn.content else thought


def rendered(turn: Turn, thinking: Thinking = "drop") -> str:
    """All of one turn as a transcript shows it: ``[image]``, its words, and ``[calls name(arguments)]``."""
    text = words(turn, thinking)
    return "\n".join([*_media_lines(turn), *([text] if text else []), *_call_lines(turn)])


def _media_lines(turn: Turn) -> list[str]:
    return [f"[{kind}]" for kind in turn.media]


def _call_lines(turn: Turn) -> list[str]:
    return [f"[calls {call.name}({call.arguments})]" for call in turn.calls]


def policy_turns(turns: Sequence[Turn]) -> list[tuple[int, int]]:
    """Where each turn of the policy begins and ends: all that it said and called since anybody else last spoke."""
    found = []
    start = None
    for index, turn in enumerate(turns):
        if turn.role == ASSISTANT:
            start = index if start is None else start
        elif start is not None:
            found.append((start, index))
            start = None
    return found if start is None else [*found, (start, len(turns))]


def spoken_turns(turns: Sequence[Turn], name: View) -> Sequence[int]:
    """Which turns an ``answer`` or ``assistant`` view is of, by their place."""
    own = policy_turns(turns)
    stretches = own[-1:] if name == "answer" else own
    return [index for start, end in stretches for index in range(start, end)]


def transcript_turns(turns: Sequence[Turn], thinking: Thinking) -> Iterator[tuple[int, str, list[str], list[str]]]:
    """The turns that a transcript of several shows: which, what stands before the words (its head, lines), and what after."""
    tools = {call.id: call.name for turn in turns for call in turn.calls if call.id}
    for index, turn in enumerate(turns):
        name = turn.name or (tools.get(turn.call_id, "") if turn.role == TOOL else "")
        before, after = _media_lines(turn), _call_lines(turn)
        if before or after or turn.role == TOOL or words(turn, thinking):
            yield index, f"{turn.role}{f' {name}' if name else ''}: ", before, after


def _transcript(turns: Sequence[Turn], thinking: Thinking) -> str:
    if len(turns) == 1 and not (turns[0].calls or turns[0].media):
        return words(turns[0], thinking)
    shown_turns = transcript_turns(turns, thinking)
    return "\n\n".join(f"{head}{rendered(turns[index], thinking)}" for index, head, _, _ in shown_turns)
