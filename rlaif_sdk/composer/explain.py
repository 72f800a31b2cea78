"""The waterfall: how one row's total came about, step by step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlaif_sdk.composer.column import Status
from rlaif_sdk.composer.layout import Layout, ends_in_words
from rlaif_sdk.statistics.arrays import json_number
from rlaif_sdk.types import Credit, SubScore

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult


@dataclass(frozen=True, slots=True)
class WaterfallStep:
    """One reward's step in the waterfall. NaN means that the reward took no part.

    Attributes:
        reward: The reward's name.
        raw: What it said.
        normalized: The value that was weighed.
        weight: Its weight as configured, among its neighbours.
        effective: What its value is multiplied by: the weight times those of the groups it is in, scaled up where
            others took no part. NaN where the total is no weighted sum.
        weighted: What it adds to the total.
        running: The sum so far.
        status: Scored, abstained, failed, default, masked, not asked, or imputed.
        reason: Why, in words.
        normalizer: How ``raw`` became ``normalized``, in words, with the state of that moment; empty for no change.
        ends: What its low and its high end mean, or None.
        subscores: What ``raw`` is made of, by name.
        credit: Where ``weighted`` falls in the completion; None where all of it falls on the end.
    """

    reward: str
    raw: float
    normalized: float
    weight: float
    weighted: float
    running: float
    status: Status
    reason: str | None
    credit: Credit | None = None
    effective: float = math.nan
    normalizer: str = ""
    ends: tuple[str, str] | None = None
    subscores: Mapping[str, SubScore] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """Where it falls, and why."""
        placed = f"{math.fsum(self.credit.parts):+.4f} of it on {self.credit}" if self.credit else ""
        status = "" if self.status in {"scored", "cached"} else self.status
        return "; ".join(filter(None, (status, placed, self.reason)))

    def cells(self) -> tuple[str, ...]:
        """Its row of the table."""
        raw = _number(self.raw)
        if self.status == "default":
            raw = "default"
        elif self.status == "not asked" and not math.isnan(self.normalized):
            raw = "otherwise"
        elif self.status == "imputed":
            raw = "imputed"
        return (
            self.reward,
            raw,
            _number(self.normalized),
            f"{self.weight:.4g}",
            "" if math.isnan(self.effective) else f"{self.effective:.4g}",
            _signed(self.weighted),
            "" if math.isnan(self.weighted) else _number(self.running),
            self.note,
        )

    def subscore_cells(self) -> Iterator[tuple[str, ...]]:
        """A row of the table for each sub-score: its value, its weight in the score, and why."""
        for name, part in self.subscores.items():
            value = "" if part.value is None else _number(part.value)
            weight = "" if part.weight is None else f"{part.weight:.4g}"
            quoted = " ".join(f"\u201c{text}\u201d" for text in part.evidence)
            yield (
                f"{self.reward}/{name}",
                value,
                "",
                weight,
                "",
                "",
                "",
                ": ".join(filter(None, (part.reason, quoted))),
            )

    def legend(self) -> str:
        """What its ends mean, and how it was normalised; empty where there is nothing to say."""
        normalized = f"normalised = {self.normalizer}" if self.normalizer and not math.isnan(self.normalized) else ""
        said = "; ".join(filter(None, (ends_in_words(self.ends), normalized)))
        return f"{self.reward}: {said}" if said else ""


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What a constraint or a gate did to a row's sum.

    Attributes:
        name: ``constraint`` or ``gate``, and which.
        adds: What it added to the sum; NaN where it left the row unscored.
        running: The sum after it.
        why: What it looked at, in words.
    """

    name: str
    adds: float
    running: float
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"

    def cells(self) -> tuple[str, ...]:
        """Its row of the table."""
        return (self.name, "", "", "", "", _signed(self.adds), _number(self.running), self.why)


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a row's total came about: what the steps, the constraints and the gates add sums to it.

    Printed it is a table; a notebook shows the same table.

    Attributes:
        row: The row.
        steps: The rewards, in the order of the config.
        constraints: What each constraint took off.
        gates: What each gate did.
        total: The row's total, NaN when it is unscored.
        note: Why the row is unscored, or empty.
        scaling: By how much the weights were scaled because rewards took no part, in words, or empty.
        aggregation: How the rewards became one number, and the groups with their weights, in words; empty for the
            weighted sum of all.
        source: Where the number was recorded, or empty.
        text: The completion's transcript, stretch by stretch, each with the credit that falls on it; empty where no reward
            gives any to turns or spans of text.
        marks: The credit of turns and spans in words, the most of it first.
    """

    row: int
    steps: tuple[WaterfallStep, ...]
    gates: tuple[Adjustment, ...]
    total: float
    note: str = ""
    constraints: tuple[Adjustment, ...] = ()
    scaling: str = ""
    aggregation: tuple[str, ...] = ()
    source: str = ""
    text: tuple[tuple[str, float], ...] = ()
    marks: tuple[str, ...] = ()

    def additions(self) -> Iterator[tuple[str, float]]:
        """Whatever was added, and how much; of a row with a total these sum to it."""
        for step in self.steps:
            if not math.isnan(step.weighted):
                yield step.reward, step.weighted
        for adjustment in (*self.constraints, *self.gates):
            yield adjustment.name, adjustment.adds

    def layout(self) -> Layout:
        """The table that is printed, and shown in notebooks and reports."""
        total = "unscored" if math.isnan(self.total) else _number(self.total)
        adjusted = [part.cells() for part in (*self.constraints, *self.gates)]
        legends = [step.legend() for step in self.steps]
        return Layout(
            title=f"row {self.row}" + (f" of {self.source}" if self.source else ""),
            headings=("reward", "raw", "normalised", "weight", "effective", "adds", "running", "why"),
            rows=[*(cells for step in self.steps for cells in (step.cells(), *step.subscore_cells())), *adjusted],
            total=("total", "", "", "", "", "", total, self.note),
            notes=[note for note in (self.scaling, *self.aggregation, *legends, *self.marks) if note],
            marked=self.text,
        )

    def record(self) -> dict[str, Any]:
        """The same as JSON values, every digit of them; None for NaN."""
        return {
            "row": self.row,
            "total": json_number(self.total),
            "note": self.note,
            "rewards": {
                step.reward: {
                    "raw": json_number(step.raw),
                    "normalized": json_number(step.normalized),
                    "weight": step.weight,
                    "effective": json_number(step.effective),
                    "weighted": json_number(step.weighted),
                    "running": json_number(step.running),
                    "status": step.status,
                    "reason": step.reason,
                    "credit": step.credit.record() if step.credit else None,
                    "normalizer": step.normalizer,
                    "ends": step.ends,
                    "subscores": {name: part.record() for name, part in step.subscores.items()},
                }
                for step in self.steps
            },
            "constraints": [_adjustment(part) for part in self.constraints],
            "gates": [_adjustment(part) for part in self.gates],
            "notes": [note for note in (self.scaling, *self.aggregation) if note],
            "source": self.source,
        }

    def __str__(self) -> str:
        return str(self.layout())

    def __repr__(self) -> str:
        total = "unscored" if math.isnan(self.total) else f"{self.total:.6g}"
        return f"<Explanation of row {self.row}: {total}, of {len(self.steps)} rewards>"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        return self.layout().__rich_console__(console, options)

    def _repr_html_(self) -> str:
        return self.layout()._repr_html_()


def _adjustment(part: Adjustment) -> dict[str, Any]:
    return {"name": part.name, "adds": json_number(part.adds), "running": json_number(part.running), "why": part.why}


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"


def _signed(value: float) -> str:
    return "" if math.isnan(value) else f"{value:+.4f}"
