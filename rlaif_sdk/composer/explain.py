"""The waterfall: how one row's total came about, step by step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlaif_sdk.composer.column import RewardColumn, Status
from rlaif_sdk.composer.composition import Composition

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.padding import Padding
    from rich.table import Table

_BAR = 20
_WIDE = 1000
_TEXT = 14
"""Letters of a name or a reason that the table has room for, or it is not shown."""


@dataclass(frozen=True, slots=True)
class Step:
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
    steps: tuple[Step, ...]
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
            bar = ("+" if step.weighted >= 0 else "-") * max(1, round(_BAR * abs(step.weighted) / scale))
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


def explain(composition: Composition, row: int) -> Explanation:
    """Lay out one row of a composition. See `Composition.explain`."""
    if not -len(composition) <= row < len(composition):
        raise IndexError(f"row {row} of a composition of {len(composition)} rows")
    row %= len(composition)
    running = 0.0
    steps = []
    for column in composition.rewards.values():
        weighted = float(column.weighted[row])
        running += 0.0 if math.isnan(weighted) else weighted
        steps.append(_step(column, row, weighted, running))
    gates = []
    for gate, closed in composition.gates:
        raw = composition.rewards[gate.reward].raw[row]
        verdict = f"does not pass: at most {gate.floor:g}" if closed[row] else "passes"
        if math.isnan(raw):
            status = composition.rewards[gate.reward].status(row)
            unscored = status != "default" and gate.on_missing == "unscored"
            gates.append(f"{gate}: {status}, {'so the row is unscored' if unscored else verdict}")
        else:
            gates.append(f"{gate}: {raw:.4g} {verdict}")
    constraints = tuple(
        f"{part.constraint}: multiplier {part.multiplier:.4g}"
        + ("  no score" if math.isnan(part.penalty[row]) else f"  adds {-part.penalty[row]:+.4f}")
        for part in composition.constraints
    )
    total = float(composition.totals[row])
    note = _note(composition, row) if math.isnan(total) else ""
    return Explanation(row, tuple(steps), tuple(gates), total, note, constraints, _scaling(steps))


def _scaling(steps: Sequence[Step]) -> str:
    """What an aggregator that scales weights did, read off the shares: one factor on all that took part."""
    absent = [step.reward for step in steps if math.isnan(step.weighted) and step.weight]
    weighed = [(step.weighted, step.weight * step.normalized) for step in steps if not math.isnan(step.weighted)]
    factors = [share / product for share, product in weighed if product]
    if not absent or not factors or not all(math.isclose(factor, factors[0]) for factor in factors):
        return ""
    return "" if math.isclose(factors[0], 1.0) else f"weights x {factors[0]:.4g}: {', '.join(absent)} took no part"


def _step(column: RewardColumn, row: int, weighted: float, running: float) -> Step:
    on_tokens_T = column.on_tokens(row)
    return Step(
        reward=column.name,
        raw=float(column.raw[row]),
        normalized=float(column.normalized[row]),
        weight=column.weight,
        weighted=weighted,
        running=running,
        status=column.status(row),
        reason=column.reason(row),
        on_tokens=math.nan if on_tokens_T is None or math.isnan(weighted) else float(on_tokens_T.sum()),
    )


def _note(composition: Composition, row: int) -> str:
    if composition.dropped[row]:
        failed = [name for name, column in composition.rewards.items() if row in column.failures]
        return f"dropped: {', '.join(failed)} failed"
    if any(math.isnan(part.penalty[row]) for part in composition.constraints):
        return "a constraint's reward has no score"
    if math.isnan(composition.before_gates[row]):
        shares = [column.weighted[row] for column in composition.rewards.values()]
        return "the sum overflows" if any(map(math.isinf, shares)) else "no reward with a weight has a score"
    return "a gate's reward has no score"


def _show(raw: float, status: Status) -> str:
    return f"{'default':>9}" if status == "default" else f"{raw:9.4f}"
