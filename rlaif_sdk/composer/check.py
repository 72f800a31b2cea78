"""What is known of a command's work before it begins: what it reads, and what each reward gives for one row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from rlaif_sdk.composer.build import without_ledger
from rlaif_sdk.composer.composer import Composer
from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.composer.tables import TableLayout, first_rows
from rlaif_sdk.config.documents import Document
from rlaif_sdk.exceptions import RewardError, RlaifError
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.types import RewardBatch


@dataclass
class Check:
    """What ``--check`` has found.

    Attributes:
        data: For each table its rows and columns, JSON-ready.
        problems: What keeps the work from being done.
        warnings: What may.
        scored: What each reward gave for one row, by the key of its composition.
        judged: What a judge said of one pair, by the key of the judge; JSON-ready.
        model_calls: By the key of a composition how many completions the first prompt has, and the most calls of a model
            that each reward which says so makes for them.
    """

    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[RlaifError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    scored: dict[str, Composition] = field(default_factory=dict)
    judged: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    model_calls: dict[str, tuple[int, dict[str, int]]] = field(default_factory=dict)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Keep what is wrong among the problems, and continue."""
        try:
            yield
        except RlaifError as error:
            self.problems.append(error)

    def raise_problems(self) -> None:
        """Raise the first problem, with the others as its notes."""
        if self.problems:
            first, *others = self.problems
            for other in others:
                first.add_note(f"and: {other}")
            raise first

    def count_calls(self, key: str, composer: Composer, completions: int) -> None:
        """Note how many calls of a model each reward makes at most for a prompt, where it says so.

        Args:
            key: Of the composition in the config.
            composer: The rewards.
            completions: How many completions a prompt has.
        """
        calls = {name: part.reward.model_calls(completions) for name, part in composer.components.items()}
        if told := {name: count for name, count in calls.items() if count is not None}:
            self.model_calls[key] = (completions, told)

    def score(self, key: str, composer: Composer, batch: RewardBatch, place: str) -> None:
        """Have every reward score the first row; each that fails on it is a problem, whatever its failure policy.

        One that is not asked, because the row does not meet its conditions, is only made ready, and a warning says so.

        Args:
            key: Of the composition in the config.
            composer: The rewards.
            batch: The row, and the others of its group.
            place: What the row is called in errors.
        """
        group = batch.groups()[0]
        self.count_calls(key, composer, len(group))
        with self.noting():
            compares = any(part.reward.scope == "group" for part in composer.components.values())
            composition = composer.compose(batch.select(group[:2] if compares else [0]))
            self.scored[key] = composition
            not_asked = []
            for name, column in composition.rewards.items():
                if (reason := column.failures.get(0)) is not None:
                    self.problems.append(RewardError(f"reward {name!r} fails on {place}: {reason}"))
                if column.not_asked:
                    not_asked.append(name)
                    self.warnings.append(
                        f"reward {name!r} was only made ready, and not asked about {place}: {column.not_asked[0]}"
                    )
            if not_asked:
                composer.set_up()


def check_table(
    composition: Document, records: Iterable[Row], layout: TableLayout, *, columns: Sequence[str], rows: int, file: str
) -> Check:
    """Have every reward of a composition score the first row of a table; nothing is written.

    Args:
        composition: The composition.
        records: The table's rows; the first is read, and the others of its group.
        layout: Which columns are what.
        columns: Columns that the table has somewhere.
        rows: How many there are, to say it.
        file: The table's name, for errors.

    Returns:
        What was found; what is wrong is among its problems.
    """
    found = Check({"rows": {"rows": rows, "columns": columns}})
    with found.noting(), Composer.from_config(without_ledger(composition)) as composer:
        first = [*first_rows(records, layout, 1)]
        batch = RewardBatch.from_records(first, **asdict(layout), columns=columns, file=file)
        found.score("the composition", composer, batch, f"row 1 of {file}")
    return found
