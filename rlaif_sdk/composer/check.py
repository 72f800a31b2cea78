"""What is known of a command's work before it begins: what it reads, and what each reward gives for one row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import RewardError, RlaifError

if TYPE_CHECKING:
    from rlaif_sdk.composer.composer import Composer
    from rlaif_sdk.composer.composition import Composition
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
    """

    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[RlaifError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    scored: dict[str, Composition] = field(default_factory=dict)
    judged: dict[str, Mapping[str, Any]] = field(default_factory=dict)

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

    def score(self, key: str, composer: Composer, batch: RewardBatch, place: str) -> None:
        """Have every reward score one row; each that fails on it is a problem, whatever its failure policy.

        Args:
            key: Of the composition in the config.
            composer: The rewards.
            batch: The row.
            place: What it is called in errors.
        """
        with self.noting():
            composition = composer.compose(batch)
            self.scored[key] = composition
            for name, column in composition.rewards.items():
                if (reason := column.failures.get(0)) is not None:
                    self.problems.append(RewardError(f"reward {name!r} fails on {place}: {reason}"))
