"""What a consumer sees of a conversation: its answer, all that the policy said, or all of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, overload

from rlaif_sdk.conversations.messages import ASSISTANT, TOOL, Turn, read
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
    spoken = _last_stretch(turns) if name == "answer" else [turn for turn in turns if turn.role == ASSISTANT]
    parts = [said for turn in spoken if (said := words(turn, thinking)).strip()]
    return "\n\n".join(parts) if parts or not any(turn.calls for turn in spoken) else None


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
    lines = [f"[{kind}]" for kind in turn.media]
    if text := words(turn, thinking):
        lines.append(text)
    return "\n".join([*lines, *(f"[calls {call.name}({call.arguments})]" for call in turn.calls)])


def _last_stretch(turns: Sequence[Turn]) -> Sequence[Turn]:
    end = len(turns)
    while end and turns[end - 1].role != ASSISTANT:
        end -= 1
    start = end
    while start and turns[start - 1].role == ASSISTANT:
        start -= 1
    return turns[start:end]


def _transcript(turns: Sequence[Turn], thinking: Thinking) -> str:
    if len(turns) == 1 and not (turns[0].calls or turns[0].media):
        return words(turns[0], thinking)
    tools = {call.id: call.name for turn in turns for call in turn.calls if call.id}
    paragraphs = []
    for turn in turns:
        name = turn.name or (tools.get(turn.call_id, "") if turn.role == TOOL else "")
        text = rendered(turn, thinking)
        if text or turn.role == TOOL:
            paragraphs.append(f"{turn.role}{f' {name}' if name else ''}: {text}")
    return "\n\n".join(paragraphs)
