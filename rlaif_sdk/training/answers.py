"""A prompt and its answers in one form, whatever a data set calls them: all text, or all messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_QUOTED = 60
"""Characters of a message that an error shows."""


def aligned(prompt: Any, answers: Sequence[Any]) -> tuple[Any, list[Any]]:
    """A prompt and its answers in one form: all text, or all messages, of which the answers hold only what is theirs.

    Data sets mix these: a prompt as text beside conversations that begin with it (UltraFeedback), conversations that
    begin with the prompt's messages, conversations without a prompt, answers as text to a prompt of messages.

    Args:
        prompt: Text, messages, or None.
        answers: The answers to it, each text or messages; a single message is one, too.

    Returns:
        The prompt and the answers. Without a prompt it is the messages that the answers share; None where they share
        none, or are text.

    Raises:
        ValueError: The answers begin with messages that are not the prompt's; says which.
    """
    if isinstance(prompt, Mapping):
        prompt = [prompt]
    if all(isinstance(answer, str) for answer in answers) and (prompt is None or isinstance(prompt, str)):
        return prompt, list(answers)
    said = [_messages(answer) for answer in answers]
    shared = _shared(said)
    if prompt is None:
        return (said[0][:shared], [answer[shared:] for answer in said]) if shared else (None, said)
    if isinstance(prompt, str):
        if all(answer[0].get("role") == "assistant" for answer in said):
            return [{"role": "user", "content": prompt}], said
        if any(_content(message) == prompt.strip() for message in said[0][:shared]):
            return said[0][:shared], [answer[shared:] for answer in said]
    else:
        asked = list(prompt)
        begins = [_same(answer[: len(asked)], asked) and len(answer) > len(asked) for answer in said]
        if all(begins):
            said = [answer[len(asked) :] for answer in said]
        if all(answer[0].get("role") not in {"user", "system", "developer"} for answer in said):
            return asked, said
    first = next(answer[0] for answer in said if answer[0].get("role") != "assistant" or answer is said[-1])
    raise ValueError(
        f"the answers begin with a message of the role {first.get('role')!r}, {_shown(_content(first))}, which is not the "
        f"prompt, {_shown(prompt if isinstance(prompt, str) else _content(prompt[-1]))}"
    )


def _messages(answer: Any) -> list[Mapping[str, Any]]:
    if isinstance(answer, str):
        return [{"role": "assistant", "content": answer}]
    return [answer] if isinstance(answer, Mapping) else list(answer)


def _shared(answers: Sequence[Sequence[Mapping[str, Any]]]) -> int:
    """How many messages all answers begin with, each keeping one; of a single answer those up to its last question."""
    if len(answers) == 1:
        asked = [place for place, message in enumerate(answers[0]) if message.get("role") == "user"]
        return min(asked[-1] + 1 if asked else 0, len(answers[0]) - 1)
    most = min(map(len, answers)) - 1
    return next((place for place in range(most) if not _same(*([answer[place]] for answer in answers))), most)


def _same(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> bool:
    """Whether messages are the same, but for fields that are null."""
    return [_fields(message) for message in first] == [_fields(message) for message in second]


def _fields(message: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if value is not None}


def _content(message: Mapping[str, Any]) -> str:
    """The text of a message."""
    content = message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = "".join(str(block.get("text") or "") for block in content if isinstance(block, Mapping))
    return str(content or "").strip()


def _shown(text: str) -> str:
    return repr(text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…")
