"""The values that pass between the rooms of the SDK: messages, batches of completions, scores.

Everything here is frozen and needs little beside the standard library and `rlaif_sdk.conversations`; the rows of tables
come through `rlaif_sdk.io.tables`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypedDict, overload

from rlaif_sdk.conversations import (
    ASSISTANT,
    USER,
    Images,
    Thinking,
    Turn,
    View,
    check_speaker,
    policy_turns,
    read,
    view,
)
from rlaif_sdk.exceptions import BatchError, ConversationError, DataError
from rlaif_sdk.io.text import short_repr

if TYPE_CHECKING:
    import pandas as pd


class Message(TypedDict):
    """One message as chat templates and servers take it; `rlaif_sdk.conversations` reads this shape and others."""

    role: str
    content: str | list[dict[str, Any]]


Conversation: TypeAlias = Sequence[Message]
TextOrConversation: TypeAlias = str | Conversation

_SEQUENCES = (list, tuple)

RESERVED_COLUMNS = frozenset(
    {
        "prompts",
        "completions",
        "prompt_texts",
        "completion_texts",
        "completion_ids",
        "group",
        "progress",
        "training",
        "trainer_state",
        "log_extra",
        "log_metric",
        "environments",
    }
)
"""Names that a dataset column may not have: reward functions receive something else under them."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far training is.

    Attributes:
        step: Optimiser steps done.
        total: Optimiser steps planned, or None when unknown.
    """

    step: int = 0
    total: int | None = None


@dataclass(frozen=True, slots=True)
class TrainerArguments:
    """What a trainer of TRL's hands to a reward function beside the data, and what the function logs with it.

    Attributes:
        state: The trainer's state, of transformers' kind.
        size: How many rows the trainer's batch has.
        metrics: What was logged, names and numbers.
        extras: What was logged of each row, by column; None of rows of which nothing was.
        environments: The environment in which each of these rows was played; None where there are none.
        rows: Which rows of the trainer's batch these are; None means all.
    """

    state: Any
    size: int
    metrics: list[tuple[str, float]] = field(default_factory=list)
    extras: dict[str, list[Any]] = field(default_factory=dict)
    environments: Sequence[Any] | None = None
    rows: Sequence[int] | None = None

    def log_metric(self, name: str, value: float) -> None:
        """Log a number."""
        self.metrics.append((name, value))

    def log_extra(self, column: str, values: Sequence[Any]) -> None:
        """Log a value a row, beside the completions.

        Raises:
            BatchError: There are more or fewer than rows.
        """
        rows = range(self.size) if self.rows is None else self.rows
        if len(values) != len(rows):
            raise BatchError(f"log_extra({column!r}, ...) got {len(values)} values for {len(rows)} completions")
        kept = self.extras.setdefault(column, [None] * self.size)
        for row, value in zip(rows, values, strict=True):
            kept[row] = value

    def select(self, rows: Sequence[int]) -> TrainerArguments:
        """The same for some of the rows."""
        return replace(
            self,
            environments=self.environments and [self.environments[row] for row in rows],
            rows=rows if self.rows is None else [self.rows[row] for row in rows],
        )


_Read: TypeAlias = str | tuple[Turn, ...]


@dataclass(frozen=True)
class _Reading:
    """Prompts and completions of a batch in canonical form, why rows of it have none, and how they are shown."""

    prompts: Sequence[_Read]
    completions: Sequence[_Read]
    errors: Mapping[int, ConversationError]
    views: dict[tuple[View, Thinking], tuple[str | None, ...]] = field(default_factory=dict)

    @cached_property
    def prompt_texts(self) -> tuple[str, ...]:
        return tuple(view(value, "transcript", role=USER) for value in self.prompts)

    def select(self, rows: Sequence[int]) -> _Reading:
        return _Reading(
            [self.prompts[row] for row in rows],
            [self.completions[row] for row in rows],
            {place: self.errors[row] for place, row in enumerate(rows) if row in self.errors},
        )


def _read_all(values: Sequence[Any], role: str, part: str, errors: dict[int, ConversationError]) -> Sequence[_Read]:
    if set(map(type, values)) <= {str}:
        return values
    found: list[_Read] = []
    for row, value in enumerate(values):
        try:
            turns = value if isinstance(value, str) else read(value, role=role)
            if role == ASSISTANT and not isinstance(turns, str):
                check_speaker(turns)
            found.append(turns)
        except ConversationError as error:
            error.row, error.part = row, part
            errors.setdefault(row, error)
            found.append("")
    return found


@dataclass(frozen=True)
class RewardBatch:
    """Completions to score, B rows.

    Example:
        >>> from rlaif_sdk import RewardBatch
        >>> batch = RewardBatch(
        ...     prompts=["2 + 2?", "2 + 2?"],
        ...     completions=["4", [{"role": "assistant", "content": "<think>Hm.</think>Four."}]],
        ...     columns={"reference": ["4", "4"]},
        ...     group=["sum", "sum"],
        ... )
        >>> len(batch), batch.completion_texts
        (2, ('4', 'Four.'))

    Attributes:
        prompts: B prompts, text or messages.
        completions: B completions, text or messages: what followed the prompt, tools' results included.
        completion_ids: B lists of token ids, or None when the completions were not generated here.
        turn_spans: For each row where in its ``completion_ids`` each of its `policy_turns` stands, as (start, end); None
            when that is not known. A completion of one turn needs none.
        columns: Whatever else the dataset carries (references, labels, tests), each of length B.
        group: B labels; rows of one label answer the same prompt, and a row whose label is None is a group of its own.
            None in place of all means that nothing is known of groups.
        progress: How far training is, for schedules.
        training: False while evaluating: running statistics are then read and not updated.
        trainer: What a trainer of TRL's hands to reward functions; None elsewhere.

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
    trainer: TrainerArguments | None = field(default=None, repr=False, compare=False)
    turn_spans: Sequence[Sequence[tuple[int, int]]] | None = None

    def __post_init__(self) -> None:
        for name in self.columns:
            if name in RESERVED_COLUMNS:
                raise BatchError(f"the column {name!r} has a reserved name", hint="rename the column in the dataset")
        fields: dict[str, Any] = {"prompts": self.prompts, "completions": self.completions}
        if self.completion_ids is not None:
            fields["completion_ids"] = self.completion_ids
        if self.turn_spans is not None:
            fields["turn_spans"] = self.turn_spans
        if self.group is not None:
            fields["group"] = self.group
        for name, values in self.columns.items():
            fields[f"columns[{name!r}]"] = values
        _check_lengths(fields, of="completions")

    @classmethod
    def from_records(
        cls,
        records: Any,
        *,
        prompt: str = "prompt",
        completion: str = "completion",
        group: str | None = None,
        training: bool = True,
        columns: Sequence[str] = (),
        first_row: int = 1,
        file: str | None = None,
    ) -> Self:
        """A batch of a table's rows, read as `rlaif score` reads them.

        The columns besides prompt, completion and group become the batch's `columns` under their own names; where a
        reward knows one by another name, ``columns:`` in its config maps it. What a row lacks is None there.

        Example:
            >>> from rlaif_sdk import RewardBatch
            >>> rows = [{"question": "2 + 2?", "answer": "4", "reference": "4"}, {"question": "3 + 3?", "answer": "9"}]
            >>> batch = RewardBatch.from_records(rows, prompt="question", completion="answer")
            >>> batch.completions, batch.columns
            (['4', '9'], {'reference': ['4', None]})

        Args:
            records: The rows, mappings; or the path of a table, or whatever else `rlaif_sdk.io.tables.read_rows` takes.
            prompt: The column of prompts, text or messages.
            completion: The column of completions, text or messages.
            group: The column that is equal for completions to the same prompt; None takes no groups.
            training: Whether the rows update running statistics.
            columns: Columns that the table has in other rows than these.
            first_row: The number of the first row in the table, for errors.
            file: The table's name, for errors.

        Raises:
            DataError: A row lacks its prompt or completion, no row has the group's column, a column has a reserved name,
                or the table cannot be read; names the row. One whose messages cannot be read is a failure of its own, see
                `unreadable`.
        """
        from rlaif_sdk.io.tables import read_rows

        rows = list(read_rows(records))
        file = str(records) if file is None and isinstance(records, (str, PurePath)) else file
        for number, row in enumerate(rows, start=first_row):
            for role, name in (("prompt", prompt), ("completion", completion)):
                if name not in row:
                    raise _missing_column(name, role, row, file=file, row=number)
        names = {**dict.fromkeys(columns), **{name: None for row in rows for name in row}}
        if group is not None and rows and group not in names:
            raise _missing_column(group, "group", names, file=file)
        carried = [name for name in names if name not in {prompt, completion, group}]
        try:
            return cls(
                prompts=[row[prompt] for row in rows],
                completions=[row[completion] for row in rows],
                columns={name: [row.get(name) for row in rows] for name in carried},
                group=None if group is None else [group_label(row.get(group)) for row in rows],
                training=training,
            )
        except BatchError as error:
            raise DataError(error.message, file=file, hint=error.hint) from error

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        *,
        prompt: str = "prompt",
        completion: str = "completion",
        group: str | None = None,
        training: bool = True,
    ) -> Self:
        """A batch of the rows of a `datasets.Dataset`, or of one of its batches: a mapping of columns.

        Example:
            >>> from datasets import Dataset
            >>> from rlaif_sdk import RewardBatch
            >>> dataset = Dataset.from_dict({"prompt": ["2 + 2?", "3 + 3?"], "completion": ["4", "9"], "id": [7, 8]})
            >>> RewardBatch.from_dataset(dataset, group="id")
            <RewardBatch of 2 rows: prompts, completions, group>
            >>> RewardBatch.from_dataset(dataset[:1])
            <RewardBatch of 1 rows: prompts, completions, id>

        Args:
            dataset: The data set; of an ``IterableDataset``, which is read to its end, rather its batches:
                ``for batch in dataset.iter(64)``.
            prompt: See `from_records`, as for what follows.
            completion: See there.
            group: See there.
            training: See there.

        Raises:
            DataError: See there; or it has several splits.
        """
        return cls.from_records(dataset, prompt=prompt, completion=completion, group=group, training=training)

    @classmethod
    def from_pandas(
        cls,
        frame: pd.DataFrame,
        *,
        prompt: str = "prompt",
        completion: str = "completion",
        group: str | None = None,
        training: bool = True,
    ) -> Self:
        """A batch of the rows of a pandas DataFrame; its index is left out.

        Example:
            >>> import pandas as pd
            >>> from rlaif_sdk import RewardBatch
            >>> frame = pd.DataFrame({"prompt": ["2 + 2?"], "completion": ["4"], "reference": [4]})
            >>> RewardBatch.from_pandas(frame).columns
            {'reference': [4]}

        Args:
            frame: The rows.
            prompt: See `from_records`, as for what follows.
            completion: See there.
            group: See there.
            training: See there.

        Raises:
            DataError: See there; or two columns have one name.
        """
        return cls.from_records(frame, prompt=prompt, completion=completion, group=group, training=training)

    def __len__(self) -> int:
        return len(self.completions)

    def __repr__(self) -> str:
        optional = {"completion_ids": self.completion_ids, "group": self.group}
        names = [
            "prompts",
            "completions",
            *(name for name, values in optional.items() if values is not None),
            *self.columns,
        ]
        return short_repr(f"RewardBatch of {len(self)} rows: {', '.join(names)}")

    @overload
    def views(self, name: Literal["transcript"], *, thinking: Thinking = ...) -> tuple[str, ...]: ...
    @overload
    def views(self, name: View, *, thinking: Thinking = ...) -> tuple[str | None, ...]: ...
    def views(self, name: View, *, thinking: Thinking = "drop") -> tuple[str | None, ...]:
        """The B completions as `rlaif_sdk.conversations.view` shows them.

        An entry is empty where the policy said nothing, and None where it called a tool instead of saying anything:
        there are no words to score, so a reward that reads words abstains.

        Raises:
            ConversationError: A row cannot be read. In a composer such a row is a failure of its own, and no reward
                sees it.
        """
        reading = self._readable
        if (name, thinking) not in reading.views:
            reading.views[name, thinking] = tuple(view(value, name, thinking=thinking) for value in reading.completions)
        return reading.views[name, thinking]

    @property
    def prompt_texts(self) -> tuple[str, ...]:
        """The B prompts as transcripts, a text as it is, a message alone as its text, more as ``role: text`` paragraphs.

        Raises:
            ConversationError: A row cannot be read.
        """
        return self._readable.prompt_texts

    @cached_property
    def completion_texts(self) -> tuple[str, ...]:
        """The B completions as text, all that the policy said, without thinking; empty where it said nothing.

        Raises:
            ConversationError: A row cannot be read.
        """
        return tuple(text or "" for text in self.views("assistant"))

    @cached_property
    def policy_turns(self) -> tuple[tuple[tuple[Turn, ...], ...], ...]:
        """The turns of the policy in each of the B completions, all that it said and called since somebody else last spoke.

        `rlaif_sdk.view` gives the words of one. `Score.of_turns` takes one value for each.

        Example:
            >>> from rlaif_sdk import RewardBatch, view
            >>> call = {"name": "clock", "arguments": "{}"}
            >>> said = [
            ...     {"role": "assistant", "content": "Let me look.", "tool_calls": [{"function": call}]},
            ...     {"role": "tool", "content": "10:02"},
            ...     {"role": "assistant", "content": "It is ten."},
            ... ]
            >>> [view(turn, "assistant") for turn in RewardBatch(["How late is it?"], [said]).policy_turns[0]]
            ['Let me look.', 'It is ten.']

        Raises:
            ConversationError: A row cannot be read.
        """
        read_rows = (read(value) for value in self._readable.completions)
        return tuple(tuple(turns[start:end] for start, end in policy_turns(turns)) for turns in read_rows)

    @property
    def unreadable(self) -> Mapping[int, ConversationError]:
        """Why, for each row whose prompt or completion cannot be read."""
        return self._reading.errors

    @cached_property
    def images(self) -> Mapping[int, Images]:
        """The images of each row that has any, those of its prompt first, as blocks of content as they were written."""
        found: dict[int, Images] = {}
        reading = self._reading
        for row, values in enumerate(zip(reading.prompts, reading.completions, strict=True)):
            turns = [turn for value in values if not isinstance(value, str) for turn in value]
            if images := tuple(image for turn in turns for image in turn.images):
                found[row] = images
        return found

    @cached_property
    def _reading(self) -> _Reading:
        errors: dict[int, ConversationError] = {}
        prompts = _read_all(self.prompts, USER, "prompt", errors)
        completions = _read_all(self.completions, ASSISTANT, "completion", errors)
        return _Reading(prompts, completions, errors)

    @property
    def _readable(self) -> _Reading:
        for error in self._reading.errors.values():
            raise error
        return self._reading

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

    def references(self, name: str | None) -> list[str | Score | None]:
        """The reference answers in the column of that name, for a judge to be shown: text, a number, or messages' last words.

        Returns:
            B entries; None where there is none (null, which pandas writes as NaN, or an empty text, or no name was given), and
            a failed score where the column holds something else.

        Example:
            >>> from rlaif_sdk import RewardBatch
            >>> batch = RewardBatch(["2 + 2?"] * 3, ["4"] * 3, columns={"gold": [4, "four", None]})
            >>> batch.references("gold")
            ['4', 'four', None]

        Raises:
            BatchError: There is no such column.
        """
        return [None] * len(self) if name is None else [_reference(name, value) for value in self.column(name)]

    def groups(self) -> list[list[int]]:
        """The rows of each group, in order; a row without a label is a group of its own, and so is each without groups.

        Example:
            >>> from rlaif_sdk import RewardBatch
            >>> RewardBatch(["Hi."] * 4, ["Hello.", "Yes?", "Hey.", "What?"], group=["a", None, "a", None]).groups()
            [[0, 2], [1], [3]]

        Raises:
            BatchError: A label is not hashable.
        """
        from rlaif_sdk.statistics.arrays import encode_groups
        from rlaif_sdk.statistics.groups import rows_of_groups

        if self.group is None:
            return [[row] for row in range(len(self))]
        return rows_of_groups(encode_groups(self.group))

    def with_columns(self, renamed: Mapping[str, str]) -> RewardBatch:
        """The same rows, where each column ``renamed[name]`` is also found under ``name``."""
        if not renamed:
            return self
        return self._like(columns={**self.columns, **{new: self.column(old) for new, old in renamed.items()}})

    def private(self) -> RewardBatch:
        """The same rows in containers of their own: whoever sorts, pops or rewrites them changes nothing of these.

        Lists, tuples, dicts and sets are copied at any depth, arrays of numpy become read-only. Objects of other classes
        (tensors, images) are the same objects, wherever they are, and so is a value that nests deeper than Python's stack takes.
        What was read of the rows is not read again.
        """
        ids = self.completion_ids
        return self._like(
            prompts=_own_rows(self.prompts),
            completions=_own_rows(self.completions),
            completion_ids=ids if ids is None else [row[:] if type(row) is list else _own(row) for row in ids],
            columns={name: _own_rows(values) for name, values in self.columns.items()},
            group=self.group if self.group is None else _own_rows(self.group),
        )

    def _like(self, **fields: Any) -> RewardBatch:
        """The same rows with other fields, which fit as they are; what is read of the rows is shared."""
        batch: RewardBatch = object.__new__(type(self))
        batch.__dict__.update(self.__dict__, _reading=self._reading, **fields)
        return batch

    def select(self, rows: Sequence[int]) -> RewardBatch:
        """The batch of the given rows, in the given order."""
        chosen = replace(
            self,
            prompts=[self.prompts[row] for row in rows],
            completions=[self.completions[row] for row in rows],
            completion_ids=None if self.completion_ids is None else [self.completion_ids[row] for row in rows],
            columns={name: [values[row] for row in rows] for name, values in self.columns.items()},
            group=None if self.group is None else [self.group[row] for row in rows],
            trainer=self.trainer and self.trainer.select(rows),
            turn_spans=None if self.turn_spans is None else [self.turn_spans[row] for row in rows],
        )
        if "_reading" in self.__dict__:  # what has been read is not read again
            chosen.__dict__["_reading"] = self._reading.select(rows)
        return chosen


_UNCHANGING = frozenset({str, int, float, bool, bytes, type(None)})


def _own_rows(values: Any) -> Any:
    """Rows whose containers are their own; one that nests deeper than the stack takes is shared."""
    try:
        return _own(values)
    except RecursionError:
        return [values[0]] if len(values) == 1 else [_own_rows([value])[0] for value in values]


def _own(value: Any) -> Any:
    """A value whose containers are its own."""
    kind = type(value)
    if kind is list:
        return value[:] if _UNCHANGING.issuperset(map(type, value)) else [_own(item) for item in value]
    if kind is dict:
        return {key: _own(item) for key, item in value.items()}
    if kind in _UNCHANGING:
        return value
    if isinstance(value, tuple):
        items = [_own(item) for item in value]
        return value if all(map(operator.is_, items, value)) else tuple.__new__(kind, items)
    if isinstance(value, (list, dict, set)):
        return _own_copy(value)
    is_array = getattr(value, "ndim", 0) and hasattr(value, "setflags")
    return _own_array(value) if is_array else value


def _own_copy(container: Any) -> Any:
    """A set, or a container of a class derived from list or dict."""
    own = copy(container)
    if not isinstance(own, set):  # what a set holds does not change
        for place, item in own.items() if isinstance(own, dict) else enumerate(own):
            own[place] = _own(item)
    return own


def _own_array(array: Any) -> Any:
    """A read-only view of an array, or a read-only array of objects of its own."""
    if array.dtype == object:
        shown = array.copy()
        for place, item in enumerate(array):
            shown[place] = _own(item)
    else:
        shown = array.view()
    shown.setflags(write=False)
    return shown


def _missing_column(
    name: str, role: str, found: Iterable[str], *, file: str | None, row: int | None = None
) -> DataError:
    hint = f"columns: {', '.join(found) or 'none'}; name the one of the {role}s: {role}=, or --{role}-column"
    return DataError(f"has no column {name!r}", file=file, row=row, hint=hint)


def group_label(value: Any) -> Any:
    """A group's label, hashable; NaN is how pandas says null."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    return value if isinstance(value, (str, int, type(None))) else repr(value)


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


STD = "std"
"""The sub-score with which a reward says how unsure it is of a score: its standard deviation, in the score's units."""


@dataclass(frozen=True, slots=True)
class SubScore:
    """A part of what a score is made of, such as one criterion of a rubric; `explain`, metrics and reports show it.

    Example:
        >>> from rlaif_sdk import Score, SubScore
        >>> cites = SubScore(1.0, weight=2.0, reason="met", evidence=("see section 12",))
        >>> Score(2 / 3, subscores={"cites": cites, "brief": SubScore(0.0, weight=1.0)}).subscores["cites"].value
        1.0

    Attributes:
        value: In units of its own; None where there is none.
        weight: What it weighs in the score, or None: it weighs nothing by itself.
        reason: Why, in words, for people.
        evidence: What is quoted for it, word for word.
        per_row: True where the same name means something else in another row: metrics and reports then do not average it.
    """

    value: float | None
    weight: float | None = None
    reason: str | None = None
    evidence: tuple[str, ...] = ()
    per_row: bool = False

    def record(self) -> dict[str, Any]:
        """What is said of it, JSON-ready; what is not said is left out."""
        said: dict[str, Any] = {
            "weight": self.weight,
            "reason": self.reason,
            "evidence": list(self.evidence) or None,
            "per_row": self.per_row or None,
        }
        return {"value": self.value, **{name: value for name, value in said.items() if value is not None}}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> SubScore:
        """The sub-score that `record` made a mapping of."""
        return cls(**{**record, "evidence": tuple(record.get("evidence", ()))})


@dataclass(frozen=True, slots=True)
class CreditSpan:
    """A stretch of text, and what it adds to a score.

    Attributes:
        start: The place of its first character in the text of `Credit.view`.
        end: The place after its last character.
        value: What it adds, in the score's units.
        reason: Why, in words, for people.
    """

    start: int
    end: int
    value: float
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Credit:
    """Where in a completion a score comes from: its parts by token, by turn and by span of text, which sum to it with ``rest``.

    A part falls where it ends: a turn's on its last token, a span's on the token that its last character is in. The rest
    falls on the end of the completion, as a score without credit does.

    Example:
        >>> from rlaif_sdk import Credit, CreditSpan, Score
        >>> text = "It opened in 1912. It burned down twice."
        >>> marked = CreditSpan(19, 40, -0.5, "nothing in the source says so")
        >>> Score(0.5, credit=Credit(spans=(marked,), rest=1.0))
        <Score 0.5 of 1 span>

    Attributes:
        tokens: One value a token of the row's ``completion_ids``, or None.
        turns: One value a turn of the policy, see `RewardBatch.policy_turns`, or None.
        spans: Stretches of the text that ``view`` shows; they may overlap.
        rest: What is left over of the score.
        view: The view of the completion that spans are in, see `RewardBatch.views`.
        thinking: Whether that view shows thinking.
    """

    tokens: Sequence[float] | None = None
    turns: Sequence[float] | None = None
    spans: tuple[CreditSpan, ...] = ()
    rest: float = 0.0
    view: View = "assistant"
    thinking: Thinking = "drop"

    @property
    def parts(self) -> Iterator[float]:
        """What falls before the end, part by part."""
        yield from () if self.tokens is None else self.tokens
        yield from () if self.turns is None else self.turns
        for span in self.spans:
            yield span.value

    @property
    def has_parts(self) -> bool:
        """Whether anything has a place; where nothing has, all of the score falls on the end."""
        return bool(self.spans) or any(values is not None and len(values) for values in (self.tokens, self.turns))

    def scaled(self, factor: float, total: float) -> Credit:
        """Its parts times a factor; what these leave over of ``total`` is the rest."""
        tokens, turns = (
            None if values is None else [factor * value for value in values] for values in (self.tokens, self.turns)
        )
        spans = tuple(replace(span, value=factor * span.value) for span in self.spans)
        moved = Credit(tokens, turns, spans, 0.0, self.view, self.thinking)
        return replace(moved, rest=total - math.fsum(moved.parts))

    def without_tokens(self) -> Credit:
        """The same where tokens are not known: what falls on them is part of the rest."""
        return self if self.tokens is None else replace(self, tokens=None, rest=self.rest + math.fsum(self.tokens))

    def record(self) -> dict[str, Any]:
        """What is said of it, JSON-ready; what is not said is left out."""
        said: dict[str, Any] = {
            "tokens": None if self.tokens is None else list(self.tokens),
            "turns": None if self.turns is None else list(self.turns),
            "spans": [asdict(span) for span in self.spans] or None,
            "view": None if self.view == "assistant" else self.view,
            "thinking": None if self.thinking == "drop" else self.thinking,
        }
        return {**{name: value for name, value in said.items() if value is not None}, "rest": self.rest}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Credit:
        """The credit that `record` made a mapping of."""
        return cls(**{**record, "spans": tuple(CreditSpan(**span) for span in record.get("spans", ()))})

    def __str__(self) -> str:
        named = (("token", self.tokens), ("turn", self.turns), ("span", self.spans))
        counts = [(name, 0 if parts is None else len(parts)) for name, parts in named]
        return ", ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in counts if count)


@dataclass(frozen=True, slots=True)
class Score:
    """What a reward says of one completion.

    Example:
        >>> from rlaif_sdk import Score
        >>> Score(0.5, "half of the facts are right", {"facts": 4}).value
        0.5
        >>> Score.of_tokens([0.0, 0.25, 0.5]).value
        0.75

    Attributes:
        value: The score in the reward's own units, or None: unscored.
        reason: Why, in words, for people.
        details: Anything else worth recording; JSON values.
        credit: Where in the completion ``value`` comes from, or None: it falls on the end.
        error: Set when the row failed rather than abstained; ``value`` is then None.
        subscores: What the score is made of, by name; of a row that failed, what is known of it.
    """

    value: float | None
    reason: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    credit: Credit | None = None
    error: str | None = None
    subscores: Mapping[str, SubScore] = field(default_factory=dict)

    def __repr__(self) -> str:
        what = "failed" if self.error is not None else "None" if self.value is None else f"{self.value:.6g}"
        parts = f" of {self.credit}" if self.credit is not None and self.credit.has_parts else ""
        why = self.error or self.reason
        return short_repr(f"Score {what}{parts}" + (f": {why}" if why else ""))

    @classmethod
    def of_tokens(cls, values: Sequence[float], *, reason: str | None = None, **details: Any) -> Score:
        """A score that is the sum of what each token of ``completion_ids`` adds to it; most may add 0."""
        return cls(math.fsum(values), reason, details, Credit(tokens=values))

    @classmethod
    def of_turns(cls, values: Sequence[float], *, reason: str | None = None, **details: Any) -> Score:
        """A score that is the sum of what each turn of the policy adds to it, see `RewardBatch.policy_turns`."""
        return cls(math.fsum(values), reason, details, Credit(turns=values))

    @classmethod
    def no_words(cls) -> Score:
        """The abstention of a reward that reads words, where `RewardBatch.views` has None."""
        return cls(None, reason="the policy called a tool and said nothing, so there are no words to score")

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


def _reference(column: str, value: Any) -> str | Score | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return None if math.isnan(value) else str(value)
    try:
        return None if value is None else view(value, "answer") or None
    except ConversationError as error:
        return Score.failed(f"the column {column!r} holds no text: {error.message}")
