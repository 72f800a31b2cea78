"""The waterfall: how one row's total came about, step by step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlaif_sdk.composer.column import Status

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.padding import Padding
    from rich.table import Table

_BAR = 20
_WIDE = 1000
_TEXT = 14
"""Letters of a name or a reason that the table has room for, or it is not shown."""


@dataclass(frozen=True, slots=True)
class WaterfallStep:
    """One reward's step in the waterfall. NaN means that the reward took no part.

    Attributes:
        reward: The reward's name.
        raw: What it said.
        normalized: The value that was weighed.
        weight: Its weight as configured.
        weighted: What it adds to the total.
        running: The sum so far.
        status: Scored, abstained, failed, default or masked.
        reason: Why, in words.
        on_tokens: How much of ``weighted`` falls on single tokens, NaN without token values; the rest falls on the
            last one.
    """

    reward: str
    raw: float
    normalized: float
    weight: float
    weighted: float
    running: float
    status: Status
    reason: str | None
    on_tokens: float = math.nan

    @property
    def note(self) -> str:
        """Where it falls, and why."""
        tokens = "" if math.isnan(self.on_tokens) else f"{self.on_tokens:+.4f} of it on its tokens"
        return "; ".join(filter(None, (tokens, self.reason)))


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a row's total came about.

    Attributes:
        row: The row.
        steps: The rewards, in the order of the config.
        constraints: What each constraint took off, in words.
        gates: What each gate did, in words.
        total: The row's total, NaN when it is unscored.
        note: Why the row is unscored, or empty.
        scaling: By how much the weights were scaled because rewards took no part, in words, or empty.
    """

    row: int
    steps: tuple[WaterfallStep, ...]
    gates: tuple[str, ...]
    total: float
    note: str = ""
    constraints: tuple[str, ...] = ()
    scaling: str = ""

    def __str__(self) -> str:
        width = max((len(step.reward) for step in self.steps), default=0)
        scale = max((abs(step.weighted) for step in self.steps if not math.isnan(step.weighted)), default=0.0) or 1.0
        lines = [f"row {self.row}"]
        for step in self.steps:
            reason = f"  {step.note}" if step.note else ""
            if math.isnan(step.weighted):
                lines.append(f"  {step.reward:<{width}}  {step.status}{reason}")
                continue
            bar = ("+" if step.weighted >= 0 else "-") * max(1, round(_BAR * (abs(step.weighted) / scale)))
            lines.append(
                f"  {step.reward:<{width}}  raw {_show(step.raw, step.status)}  normalised {step.normalized:8.4f}"
                f"  weight {step.weight:6.3g}  adds {step.weighted:+8.4f}  = {step.running:8.4f}  "
                f"{bar if step.weighted else '':<{_BAR}}{reason}".rstrip()
            )
        lines += [f"  {self.scaling}"] if self.scaling else []
        lines += [f"  constraint {constraint}" for constraint in self.constraints]
        lines += [f"  gate {gate}" for gate in self.gates]
        total = "unscored" if math.isnan(self.total) else f"{self.total:.4f}"
        lines.append(f"  total {total}" + (f"  ({self.note})" if self.note else ""))
        return "\n".join(lines)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Padding]:
        from rich.measure import Measurement
        from rich.padding import Padding
        from rich.text import Text

        narrowest = self._table(text_width=_TEXT)
        if Measurement.get(console, options.update(max_width=_WIDE), narrowest).minimum <= options.max_width:
            yield self._table()
            return
        for number, line in enumerate(self._lines()):
            yield Padding(Text(line), (0, 0, 0, 2 if number else 0))

    def _lines(self) -> Iterator[str]:
        """The same for a terminal that is too narrow for the table's numbers."""
        yield f"row {self.row}"
        for step in self.steps:
            why = f"; {step.note}" if step.note else ""
            if math.isnan(step.weighted):
                yield f"{step.reward}: {step.status}, weight {step.weight:g}{why}"
            else:
                yield (
                    f"{step.reward}: adds {step.weighted:+.4f}, running {step.running:.4f} (raw "
                    f"{_show(step.raw, step.status).strip()}, normalised {step.normalized:.4f}, weight {step.weight:g})"
                    f"{why}"
                )
        yield from filter(None, (self.scaling, *self.constraints, *self.gates))
        yield "total " + ("unscored" if math.isnan(self.total) else f"{self.total:.4f}")
        yield from filter(None, (self.note,))

    def _table(self, text_width: int | None = None) -> Table:
        from rich.table import Table

        notes = (self.scaling, *self.constraints, *self.gates, self.note)
        table = Table(title=f"row {self.row}", caption="; ".join(filter(None, notes)) or None)
        table.add_column("reward", overflow="fold", max_width=text_width)
        for heading in ("raw", "normalised", "weight", "adds", "running"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("why", overflow="fold", max_width=text_width)
        for step in self.steps:
            why = step.note or ("" if step.status == "scored" else step.status)
            if math.isnan(step.weighted):
                table.add_row(step.reward, step.status, "", f"{step.weight:g}", "", "", why)
            else:
                numbers = (f"{step.normalized:.4f}", f"{step.weight:g}", f"{step.weighted:+.4f}", f"{step.running:.4f}")
                table.add_row(step.reward, _show(step.raw, step.status).strip(), *numbers, why)
        table.add_section()
        table.add_row("total", *[""] * 4, "unscored" if math.isnan(self.total) else f"{self.total:.4f}", "")
        return table


def _show(raw: float, status: Status) -> str:
    return f"{'default':>9}" if status == "default" else f"{raw:9.4f}"
