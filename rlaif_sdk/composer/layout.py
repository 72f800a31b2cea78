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
    from rich.text import Text

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
        marked: A text below them, stretch by stretch, each with a number: coloured green where that is positive, red where
            it is negative, the more so the greater it is; in brackets with the number where there are no colours.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: Sequence[str] = ()
    notes: Sequence[str] = ()
    marked: Sequence[tuple[str, float]] = ()

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
        lines += [f"  {_line(note)}" for note in self.notes]
        return "\n".join([*lines, *(f"  {line}".rstrip() for line in self._bracketed().splitlines())])

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
        return "".join([*parts, self.marked_html()])

    def marked_html(self) -> str:
        """The marked text, coloured; empty where there is none."""
        parts = []
        for text, value, strength in self._strengths():
            shown = html.escape(printable(text))
            colour = f"rgba({'0, 150, 80' if value > 0 else '215, 50, 45'}, {0.15 + 0.45 * strength:.2f})"
            parts.append(f'<span style="background: {colour}" title="{value:+.4f}">{shown}</span>' if value else shown)
        return f'<p style="white-space: pre-wrap">{"".join(parts)}</p>' if parts else ""

    def _strengths(self) -> Iterator[tuple[str, float, float]]:
        """The marked text, each stretch with its number and how great that is, in (0, 1]."""
        most = max((abs(value) for _, value in self.marked), default=0.0) or 1.0
        for text, value in self.marked:
            yield text, value, abs(value) / most

    def _bracketed(self) -> str:
        return "".join(f"[{printable(text)} {value:+.4f}]" if value else printable(text) for text, value in self.marked)

    def _coloured(self) -> Text:
        from rich.text import Text

        line = Text()
        for text, value, strength in self._strengths():
            red, green, blue = (60, 200, 120) if value > 0 else (240, 90, 80)
            faint = [round(255 - (255 - part) * (0.35 + 0.65 * strength)) for part in (red, green, blue)]
            line.append(printable(text), style=f"black on rgb({faint[0]},{faint[1]},{faint[2]})" if value else "")
        return line

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
        if self.marked:
            has_colours = console.is_terminal and not console.no_color
            yield Padding(self._coloured() if has_colours else Text(self._bracketed()), (1, 0, 0, 2))

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
