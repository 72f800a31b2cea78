"""How a composer, a composition and an explanation show themselves: one table, in text, a terminal and a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlaif_sdk.io.text import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.padding import Padding
    from rich.table import Table

_WIDE = 1000
_TEXT = 14
"""Letters of a name or a reason that a table has room for, or it is not shown as one."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A table of text, with lines below it.

    Attributes:
        title: What it shows.
        headings: Of the columns.
        rows: The cells of each row. The first and the last column are words, those between are numbers.
        total: The cells of a last row that is set apart, or none.
        notes: Lines below the table.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: Sequence[str] = ()
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        shown = [[*self.headings], *([_line(cell) for cell in row] for row in self._all_rows)]
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        last = len(widths) - 1
        lines = [_line(self.title)]
        for cells in shown:
            padded = [
                cell.ljust(width) if place in {0, last} else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            lines.append("  " + "  ".join(padded).rstrip())
        return "\n".join([*lines, *(f"  {_line(note)}" for note in self.notes)])

    def _repr_html_(self) -> str:
        """The same for a notebook. Whatever it says is escaped: reasons and texts are other people's."""
        last = len(self.headings) - 1
        parts = [f"<table><caption>{_escaped(self.title)}</caption><thead><tr>"]
        parts += [f"<th>{_escaped(heading)}</th>" for heading in self.headings]
        parts.append("</tr></thead><tbody>")
        for cells in self._all_rows:
            parts.append("<tr>")
            for place, cell in enumerate(cells):
                side = "left" if place in {0, last} else "right"
                parts.append(f'<td style="text-align: {side}">{_escaped(cell)}</td>')
            parts.append("</tr>")
        parts.append("</tbody></table>")
        if self.notes:
            parts.append(f"<ul>{''.join(f'<li>{_escaped(note)}</li>' for note in self.notes)}</ul>")
        return "".join(parts)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Padding]:
        from rich.measure import Measurement
        from rich.padding import Padding
        from rich.text import Text

        narrowest = self._table(text_width=_TEXT)
        fits = Measurement.get(console, options.update(max_width=_WIDE), narrowest).minimum <= options.max_width
        if fits:
            yield self._table()
        for number, line in enumerate(self.notes if fits else self._lines()):
            yield Padding(Text(_line(line)), (0, 0, 0, 2 if number or fits else 0))

    def _lines(self) -> Iterator[str]:
        """The same where the table's numbers do not fit."""
        yield self.title
        for name, *cells in self._all_rows:
            said = [f"{heading} {cell}" for heading, cell in zip(self.headings[1:], cells, strict=True) if cell]
            yield f"{name}: {', '.join(said)}"
        yield from self.notes

    @property
    def _all_rows(self) -> Sequence[Sequence[str]]:
        return [*self.rows, self.total] if self.total else self.rows

    def _table(self, text_width: int | None = None) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(_line(self.title)), title_justify="left")
        last = len(self.headings) - 1
        for place, heading in enumerate(self.headings):
            if place in {0, last}:
                table.add_column(heading, overflow="fold", max_width=text_width)
            else:
                table.add_column(heading, justify="right", no_wrap=True)
        for cells in self.rows:
            table.add_row(*(Text(_line(cell)) for cell in cells))
        if self.total:
            table.add_section()
            table.add_row(*(Text(_line(cell)) for cell in self.total))
        return table


def ends_in_words(ends: tuple[str, str] | None) -> str:
    """What a reward's low and high end mean; empty where that is not said."""
    return f"low is {ends[0]}, high is {ends[1]}" if ends else ""


def ends_notes(ends: Mapping[str, tuple[str, str] | None]) -> list[str]:
    """A line for each reward that says what its ends mean, to stand below a table of scores."""
    return [f"{name}: {ends_in_words(said)}" for name, said in ends.items() if said]


def _line(text: str) -> str:
    return " ".join(printable(text).split())


def _escaped(text: str) -> str:
    return html.escape(_line(text))
