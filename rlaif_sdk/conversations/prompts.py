"""Prompts: whether one says something, and where it ends and the answers to it begin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlaif_sdk.conversations.messages import ASSISTANT, USER, are_chat_messages, chat_messages, read
from rlaif_sdk.conversations.views import view
from rlaif_sdk.exceptions import ConversationError

_QUOTED = 60
"""Characters of a message that an error shows."""


def prompt_problem(prompt: Any) -> str | None:
    """What is wrong with a prompt, or None: it must be text or messages, and say something."""
    if isinstance(prompt, str):
        return None if prompt.strip() else "the prompt is empty"
    try:
        turns = read(prompt, role=USER)
    except ConversationError as error:
        return f"the prompt cannot be read: {error}"
    return None if any(turn.content.strip() or turn.media or turn.calls for turn in turns) else "the prompt is empty"


def aligned(prompt: Any, answers: Sequence[Any]) -> tuple[Any, list[Any]]:
    """A prompt and its answers in one form: all text, or all messages, of which the answers hold only what is theirs.

    Data sets mix these: a prompt as text beside conversations that begin with it (UltraFeedback), conversations that
    begin with the prompt's messages, conversations without a prompt, answers as text to a prompt of messages. Messages
    stay as they are written, but for those that no chat template knows: without a role (ShareGPT's, response items), without
    content, or whose content is blocks of text.

    Args:
        prompt: Text, messages, or None.
        answers: The answers to it, each text or messages; a single message is one, too.

    Returns:
        The prompt and the answers. Without a prompt it is the messages that the answers share; None where they share
        none, or are text.

    Raises:
        ValueError: The answers begin with messages that are not the prompt's, or one cannot be read; says which.
    """
    if all(isinstance(answer, str) for answer in answers) and (prompt is None or isinstance(prompt, str)):
        return prompt, list(answers)
    said = [_messages(answer, ASSISTANT) for answer in answers]
    shared = _shared(said)
    if prompt is None:
        return (said[0][:shared], [answer[shared:] for answer in said]) if shared else (None, said)
    if isinstance(prompt, str):
        if all(_role(answer[0]) == ASSISTANT for answer in said):
            return [{"role": "user", "content": prompt}], said
        if any(_text(message) == prompt.strip() for message in said[0][:shared]):
            return said[0][:shared], [answer[shared:] for answer in said]
    else:
        asked = _messages(prompt, USER)
        begins = [_same(answer[: len(asked)], asked) and len(answer) > len(asked) for answer in said]
        if all(begins):
            said = [answer[len(asked) :] for answer in said]
        if all(_role(answer[0]) not in {USER, "system", "developer"} for answer in said):
            return asked, said
    first = next(answer[0] for answer in said if _role(answer[0]) != ASSISTANT or answer is said[-1])
    raise ValueError(
        f"the answers begin with a message of the role {_role(first)!r}, {_shown(_text(first))}, which is not the "
        f"prompt, {_shown(prompt if isinstance(prompt, str) else _text(asked[-1]))}"
    )


def _messages(value: Any, role: str) -> list[Mapping[str, Any]]:
    """Messages as they are written where a chat template knows them; text is one of the role."""
    messages = [value] if isinstance(value, Mapping) else value
    if not isinstance(messages, str) and are_chat_messages(messages):
        return list(messages)
    if not (turns := read(value, role=role)):
        raise ValueError("an answer holds no message")
    return [*chat_messages(turns)]


def _shared(answers: Sequence[Sequence[Mapping[str, Any]]]) -> int:
    """How many messages all answers begin with, each keeping one; of a single answer those up to its last question."""
    if len(answers) == 1:
        asked = [place for place, message in enumerate(answers[0]) if _role(message) == USER]
        return min(asked[-1] + 1 if asked else 0, len(answers[0]) - 1)
    most = min(map(len, answers)) - 1
    return next((place for place in range(most) if not _same(*([answer[place]] for answer in answers))), most)


def _same(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> bool:
    """Whether messages say the same, however it is written."""
    return read(first) == read(second)


def _role(message: Mapping[str, Any]) -> str:
    """Who wrote a message: of one that mixes what several wrote, the first of them."""
    return read(message)[0].role


def _text(message: Mapping[str, Any]) -> str:
    """What a message says."""
    return view(message, "transcript").strip()


def _shown(text: str) -> str:
    return repr(text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…")
