"""The values that pass between the rooms of the SDK: messages, batches of completions, scores.

Everything here is frozen and needs the standard library alone.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias, TypedDict

from rlaif_sdk.exceptions import BatchError, DataError


class Message(TypedDict):
    """One turn of a conversation, in the form that chat templates take."""

    role: str
    content: str | list[dict[str, Any]]


Conversation: TypeAlias = Sequence[Message]
TextOrConversation: TypeAlias = str | Conversation

_SEQUENCES = (list, tuple)
_TEXTS = {str, list, tuple}

RESERVED_COLUMNS = frozenset(
    {
        "prompts",
        "completions",
        "completion_ids",
        "group",
        "progress",
        "training",
        "trainer_state",
        "log_extra",
        "log_metric",
    }
)
"""Names that a dataset column may not have: reward functions receive something else under them."""


def message_text(message: Mapping[str, Any]) -> str:
    """The text of one message; blocks other than text (images, say) are left out."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    return "".join(block.get("text") or "" for block in content if block.get("type", "text") == "text")


def as_text(value: TextOrConversation) -> str:
    """The text of a prompt or completion.

    A string is returned as it is; a conversation of one message gives that message's text; a longer one gives
    ``role: text`` paragraphs separated by blank lines.
    """
    if isinstance(value, str):
        return value
    if len(value) == 1:
        return message_text(value[0])
    return "\n\n".join(f"{message['role']}: {message_text(message)}" for message in value)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far training is.

    Attributes:
        step: Optimiser steps done.
        total: Optimiser steps planned, or None when unknown.
    """

    step: int = 0
    total: int | None = None


@dataclass(frozen=True)
class RewardBatch:
    """Completions to score, B rows.

    Attributes:
        prompts: B prompts, text or conversations.
        completions: B completions, text or conversations (usually one assistant message).
        completion_ids: B lists of token ids, or None when the completions were not generated here.
        columns: Whatever else the dataset carries (references, labels, tests), each of length B.
        group: B labels; rows of one label answer the same prompt, and a row whose label is None is a group of its own.
            None in place of all means that nothing is known of groups.
        progress: How far training is, for schedules.
        training: False while evaluating: running statistics are then read and not updated.

    Raises:
        BatchError: The lengths differ, a column has a reserved name, or a field is no sequence.
    """

    prompts: Sequence[TextOrConversation]
    completions: Sequence[TextOrConversation]
    completion_ids: Sequence[Sequence[int]] | None = None
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    group: Sequence[Hashable] | None = None
    progress: Progress = Progress()
    training: bool = True

    def __post_init__(self) -> None:
        for name in self.columns:
            if name in RESERVED_COLUMNS:
                raise BatchError(f"the column {name!r} has a reserved name", hint="rename the column in the dataset")
        fields: dict[str, Any] = {"prompts": self.prompts, "completions": self.completions}
        if self.completion_ids is not None:
            fields["completion_ids"] = self.completion_ids
        if self.group is not None:
            fields["group"] = self.group
        for name, values in self.columns.items():
            fields[f"columns[{name!r}]"] = values
        _check_lengths(fields, of="completions")
        _check_texts("prompts", self.prompts)
        _check_texts("completions", self.completions)

    def __len__(self) -> int:
        return len(self.completions)

    @cached_property
    def prompt_texts(self) -> tuple[str, ...]:
        """The B prompts as text (see `as_text`)."""
        return tuple(as_text(prompt) for prompt in self.prompts)

    @cached_property
    def completion_texts(self) -> tuple[str, ...]:
        """The B completions as text (see `as_text`)."""
        return tuple(as_text(completion) for completion in self.completions)

    def column(self, name: str) -> Sequence[Any]:
        """The column of that name, B values.

        Raises:
            BatchError: There is no such column.
        """
        try:
            return self.columns[name]
        except KeyError:
            found = ", ".join(sorted(self.columns)) or "none"
            raise BatchError(f"the column {name!r} is missing", hint=f"columns present: {found}") from None

    def with_columns(self, renamed: Mapping[str, str]) -> RewardBatch:
        """The same rows, where each column ``renamed[name]`` is also found under ``name``."""
        if not renamed:
            return self
        return replace(self, columns={**self.columns, **{new: self.column(old) for new, old in renamed.items()}})

    def select(self, rows: Sequence[int]) -> RewardBatch:
        """The batch of the given rows, in the given order."""
        return replace(
            self,
            prompts=[self.prompts[row] for row in rows],
            completions=[self.completions[row] for row in rows],
            completion_ids=None if self.completion_ids is None else [self.completion_ids[row] for row in rows],
            columns={name: [values[row] for row in rows] for name, values in self.columns.items()},
            group=None if self.group is None else [self.group[row] for row in rows],
        )


def _check_lengths(fields: Mapping[str, Any], *, of: str) -> None:
    for name, values in fields.items():
        if type(values) not in _SEQUENCES and (
            isinstance(values, (str, bytes)) or not (hasattr(values, "__len__") and hasattr(values, "__getitem__"))
        ):
            raise BatchError(f"{name} must be a sequence with one entry a row, not {type(values).__name__}")
    rows = len(fields[of])
    for name, values in fields.items():
        if len(values) != rows:
            raise BatchError(f"{name} has {len(values)} rows where {of} has {rows}")


def _check_texts(name: str, values: Sequence[Any]) -> None:
    kinds = set(map(type, values))
    if kinds <= _TEXTS:
        return
    if odd := [kind.__name__ for kind in kinds if not issubclass(kind, tuple(_TEXTS))]:
        raise BatchError(f"each of {name} must be text or a list of messages, not {', '.join(sorted(odd))}")


@dataclass(frozen=True, slots=True)
class Score:
    """What a reward says of one completion.

    Attributes:
        value: The score in the reward's own units, or None: unscored.
        reason: Why, in words, for people.
        details: Anything else worth recording; JSON values.
        token_values: What each completion token adds to ``value``, aligned to ``completion_ids`` and mostly 0 where
            rewards are sparse, or None. They sum to ``value``; `of_tokens` sees to it.
        error: Set when the row failed rather than abstained; ``value`` is then None.
    """

    value: float | None
    reason: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    token_values: Sequence[float] | None = None
    error: str | None = None

    @classmethod
    def of_tokens(cls, token_values: Sequence[float], *, reason: str | None = None, **details: Any) -> Score:
        """A score that is the sum of what each token adds to it."""
        return cls(math.fsum(token_values), reason, details, token_values)

    @classmethod
    def failed(cls, error: str, **details: Any) -> Score:
        """A row that could not be scored: its reward's failure policy applies, where a bare None abstains."""
        return cls(value=None, error=error, details=details)


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two completions of one prompt, and how likely the first is the better one.

    Attributes:
        prompt: What both answer.
        chosen: The first completion; the better one where ``chosen_prob`` is above 0.5.
        rejected: The second.
        chosen_prob: Probability in [0, 1] that ``chosen`` is preferred; 1 is a hard label.
        source: Who says so: a composition, a judge, a person.

    Raises:
        DataError: ``chosen_prob`` is no probability.
    """

    prompt: TextOrConversation
    chosen: TextOrConversation
    rejected: TextOrConversation
    chosen_prob: float = 1.0
    source: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.chosen_prob) and 0 <= self.chosen_prob <= 1):
            raise DataError(f"chosen_prob must be a probability in [0, 1], not {self.chosen_prob!r}")

    def record(self) -> dict[str, Any]:
        """The pair as a JSON-ready row, with the columns that the trainers of preferences take."""
        return {
            "prompt": self.prompt,
            "chosen": self.chosen,
            "rejected": self.rejected,
            "chosen_prob": self.chosen_prob,
            "source": self.source,
        }
