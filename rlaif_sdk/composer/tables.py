"""Scores a table of completions with a composer, chunk by chunk."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif_sdk.composer.combiner import Combiner
from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.arrow import arrow
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.text import listed
from rlaif_sdk.types import RewardBatch, group_label

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class TableLayout:
    """Which columns of a table are what.

    Attributes:
        prompt: The column of prompts, text or messages.
        completion: The column of completions, text or messages.
        group: The column that is equal for completions to the same prompt; None takes no groups. Rows of a group
            stand together in the table.
    """

    prompt: str = "prompt"
    completion: str = "completion"
    group: str | None = None

    def of_one_group(self, one: Row, other: Row) -> bool:
        """Whether two rows answer the same prompt, as far as the group's column says; null is no group's label."""
        if self.group is None:
            return False
        label = one.get(self.group)
        return label is not None and bool(label == other.get(self.group))

    def groups_of(self, rows: Iterable[Row]) -> set[int]:
        """A hash of each group that rows are of."""
        if self.group is None:
            return set()
        labels = {group_label(row.get(self.group)) for row in rows}
        return {hash(label) for label in labels - {None}}

    def check_group(self, columns: Sequence[str], file: Path) -> None:
        """Check that a table has the column that groups it.

        Raises:
            DataError: No row has it.
        """
        if self.group is not None and self.group not in columns:
            raise DataError(f"has no column {self.group!r}", file=str(file), hint=f"columns: {listed(columns)}")


def chunks(
    records: Iterable[Row], layout: TableLayout, *, rows: int, first_row: int = 1, file: str | None = None
) -> Iterator[list[Row]]:
    """Chunks of about ``rows`` records; a group is never cut.

    Args:
        records: The rows.
        layout: Which column groups them.
        rows: How many rows a chunk has, but for the last; more where a group would be cut.
        first_row: The number of the first row in the table, for errors.
        file: The table's name, for errors.

    Raises:
        DataError: A row is of a group that an earlier chunk had.
    """
    chunk: list[Row] = []
    given_out: set[int] = set()
    for row, record in enumerate(records, start=first_row):
        if len(chunk) >= rows and not layout.of_one_group(chunk[-1], record):
            given_out |= layout.groups_of(chunk)
            yield chunk
            chunk = []
        if given_out and not given_out.isdisjoint(layout.groups_of([record])):
            raise DataError(
                f"is of a group ({layout.group!r}) that has rows far above, with others between them",
                file=file,
                row=row,
                hint=f"sort the table by {layout.group!r}: rows of a group stand together",
            )
        chunk.append(record)
    if chunk:
        yield chunk


def check_groups(records: Iterable[Row], layout: TableLayout, *, rows: int, file: str) -> None:
    """Check that `chunks` would cut no group, before anything is paid for; without groups nothing is read.

    Raises:
        DataError: See `chunks`.
    """
    if layout.group is not None:
        for _ in chunks(records, layout, rows=rows, file=file):
            pass


def first_rows(records: Iterable[Row], layout: TableLayout, count: int) -> Iterator[Row]:
    """The first ``count`` rows of a table, and the rest of the group that the last of them is of."""
    last: Row = {}
    for place, record in enumerate(records):
        if place >= count and not layout.of_one_group(last, record):
            return
        yield record
        last = record


def sampled_rows(records: Iterable[Row], rows: int, count: int) -> Iterator[Row]:
    """``count`` of a table's ``rows`` rows, drawn without replacement from seed 0, in the order of the table."""
    drawn = set(random.Random(0).sample(range(rows), min(count, rows)))  # noqa: S311 - a reproducible draw
    return (record for place, record in enumerate(records) if place in drawn)


@dataclass
class Summary:
    """Counts and moments of what was scored, row by row.

    Attributes:
        rows: How many rows.
        unscored: How many without a total.
        columns: Moments by reward name, and of the total under ``total``.
        first_unscored: The first row without a total, from 1, and why: each reward that gave none, with its reason.
        ends: What the low and the high end of a reward mean, for those that say it.
    """

    rows: int = 0
    unscored: int = 0
    columns: dict[str, Moments] = field(default_factory=dict)
    first_unscored: tuple[int, str] | None = None
    ends: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add(self, composition: Composition) -> None:
        """Take in a composition."""
        totals, before = composition.to_list(), self.rows
        if self.first_unscored is None and None in totals:
            row = totals.index(None)
            self.first_unscored = (before + row + 1, _why_unscored(composition, row))
        self.rows += len(composition)
        self.unscored += totals.count(None)
        for name, column in composition.rewards.items():
            moments = self.columns.setdefault(name, Moments())
            if column.failures and moments.first_failed is None:
                row = min(column.failures)
                moments.first_failed = (before + row + 1, column.failures[row])
            moments.failed += len(column.failures)
            moments.not_asked += len(column.skipped)
            moments.seconds += column.seconds
            moments.add(column.raw.tolist())
            if column.ends:
                self.ends[name] = column.ends
        self.columns.setdefault("total", Moments()).add([math.nan if total is None else total for total in totals])


def _why_unscored(composition: Composition, row: int) -> str:
    said = [
        f"{name} {column.status(row)}" + (f" ({reason})" if (reason := column.reason(row)) else "")
        for name, column in composition.rewards.items()
        if math.isnan(column.weighted[row])
    ]
    return "; ".join(said) or composition.explain(row).note


@dataclass
class Moments:
    """Running count, mean, spread, minimum and maximum; NaN is left out.

    Attributes:
        failed: How often the reward failed.
        not_asked: How often its conditions kept a row from it.
        first_failed: The first row on which it did, from 1, and why.
        seconds: How long it took.
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    failed: int = 0
    not_asked: int = 0
    first_failed: tuple[int, str] | None = None
    seconds: float = 0.0

    def add(self, values: Iterable[float]) -> None:
        """Take in values (Welford 1962)."""
        for value in values:
            if math.isnan(value):
                continue
            self.count += 1
            delta = value - self.mean
            self.mean += delta / self.count
            self.m2 += delta * (value - self.mean)
            self.low, self.high = min(self.low, value), max(self.high, value)

    @property
    def std(self) -> float:
        """Population standard deviation, NaN without values."""
        return math.sqrt(self.m2 / self.count) if self.count else math.nan


_SUBSCORE = {"value": float, "weight": float, "reason": str, "evidence": list, "per_row": bool}
"""What `SubScore.record` may say, and of which kind."""


def typed_records(composition: Composition) -> Iterator[Row]:
    """`Composition.to_records` for a column of one type: no penalties are null; sub-scores are a list of them with their names.

    Credit differs from row to row, and is left out.
    """
    for record in composition.to_records():
        rewards = {
            name: {
                **{key: value for key, value in said.items() if key != "credit"},
                "subscores": [
                    {"name": part_name, **dict.fromkeys(_SUBSCORE), **part}
                    for part_name, part in said.get("subscores", {}).items()
                ],
            }
            for name, said in record["rewards"].items()
        }
        yield {**record, "rewards": rewards, "penalties": record["penalties"] or None}


def reward_type(combiner: Combiner) -> pa.DataType:
    """The Arrow type of what `typed_records` gives for a row, equal for all rows."""
    pa = arrow()
    numbers = [(name, pa.float64()) for name in ("raw", "normalized", "weighted")]
    types = {float: pa.float64(), str: pa.string(), bool: pa.bool_(), list: pa.list_(pa.string())}
    subscore = pa.struct([("name", pa.string()), *((name, types[kind]) for name, kind in _SUBSCORE.items())])
    said = [("status", pa.string()), ("reason", pa.string()), ("subscores", pa.list_(subscore))]
    one = pa.struct([*numbers, *said])
    penalties = [(each.constraint.key, pa.float64()) for each in combiner.multipliers]
    spreads = [(name, pa.float64()) for name in combiner.groups]
    return pa.struct(
        [
            ("total", pa.float64()),
            ("rewards", pa.struct([(name, one) for name in combiner.components])),
            ("penalties", pa.struct(penalties) if penalties else pa.null()),
            ("gates_closed", pa.list_(pa.string())),
            *([("spreads", pa.struct(spreads))] if spreads else []),
        ]
    )


def score_records(
    compose: Callable[[RewardBatch], Composition],
    records: Iterable[Row],
    layout: TableLayout,
    *,
    columns: Sequence[str] = (),
    chunk: int = 1024,
    training: bool = True,
    file: str | None = None,
) -> Iterator[tuple[list[Row], Composition]]:
    """Score table rows in chunks.

    Args:
        compose: What scores a batch: `rlaif_sdk.Composer.compose`.
        records: Rows.
        layout: Which columns are what.
        columns: Columns that the table has somewhere; a chunk without one of them has None there.
        chunk: About how many rows are composed at once; a group is never cut.
        training: Whether running statistics are updated.
        file: The table's name, for errors.

    Yields:
        The rows of a chunk and their composition, in order.

    Raises:
        DataError: A row is refused.
    """
    first_row = 1
    known = [*columns, layout.group] if layout.group else columns
    for rows in chunks(records, layout, rows=chunk, file=file):
        batch = RewardBatch.from_records(
            rows, **asdict(layout), columns=known, first_row=first_row, training=training, file=file
        )
        yield rows, compose(batch)
        first_row += len(rows)
