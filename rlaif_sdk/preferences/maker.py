"""What makes data: the steps that it takes for a row, and what they come to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.judges.backends import GeneratedText, RowError
from rlaif_sdk.preferences.card import Card

Results = Sequence[Any]
"""A JSON-ready mapping each, or None for a step that is not done."""


@dataclass(frozen=True, slots=True)
class Task:
    """A row of the job.

    Attributes:
        number: Its place in the job, from 0.
        item: The row as it was read.
        results: What each step before this one came to.
    """

    number: int
    item: Row
    results: Results = ()


@dataclass(frozen=True, slots=True)
class Made:
    """What a row comes to.

    Attributes:
        rows: Rows by table.
        left_out: Why something is not in a table, counted.
        noted: Other figures, counted.
    """

    rows: Mapping[str, Sequence[Row]]
    left_out: Mapping[str, int] = field(default_factory=dict)
    noted: Mapping[str, int] = field(default_factory=dict)


class Maker(Protocol):
    """Makes rows in steps, each of which is kept as soon as it is done.

    Attributes:
        tables: The tables that it makes, each with one line that says what it holds.
        steps: The steps of a row.
        chained: A step needs what the step before it came to; where that failed, it is not taken.
        concurrency: How many calls its models answer at once; None for a local model.
    """

    tables: Mapping[str, str]
    steps: int
    chained: bool
    concurrency: int | None

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything that a result depends on, by name, JSON-ready."""

    def items(self) -> Iterator[Row]:
        """The rows, checked; read more than once.

        Raises:
            DataError: A row is refused.
        """

    async def take(self, step: int, tasks: Sequence[Task]) -> Sequence[Mapping[str, Any] | RowError]:
        """Take a step for several rows: a JSON-ready mapping each, or an error in its place."""

    def made(self, task: Task) -> Made:
        """What a row comes to: ``results`` has all steps, or where not `chained` those that are done."""

    def card(self) -> Card:
        """The card, without files and counts."""

    def close(self) -> None:
        """Release models."""


def reply_record(reply: GeneratedText | RowError) -> Mapping[str, Any] | RowError:
    """An answer as the result of a step; an error stays one."""
    if isinstance(reply, RowError):
        return reply
    flags = {"flags": list(reply.flags)} if reply.flags else {}
    return {"text": reply.text, "truncated": reply.truncated, **flags, "usage": reply.usage.record()}
