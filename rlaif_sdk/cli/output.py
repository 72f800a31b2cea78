"""What commands print: tables, and how far they are."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from rlaif_sdk.io.text import printable

if TYPE_CHECKING:
    from rich.text import Text

_SECONDS_BETWEEN = 10.0
"""Between two lines of progress where standard error is no terminal."""


def print_table(
    headings: Sequence[str], rows: Iterable[Sequence[str | Text]], *, numbers: bool = False, err: bool = False
) -> None:
    """Print rows.

    Args:
        headings: Of the columns; none prints none.
        rows: Their cells, text as it is: it is no markup, and no control character in it acts.
        numbers: Whether all columns but the first are numbers, which stand on the right.
        err: Whether they go to standard error.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=bool(headings))
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if numbers and place else "left")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row))
    Console(stderr=err).print(table)


def print_lines(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a line a row, the cells under each other; a terminal gets as much of the last one as it has room for.

    Args:
        headings: Of the columns, one or more.
        rows: Their cells; no control character in them acts.
    """
    lines = [headings, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)][:-1]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    shown = []
    for *cells, last in lines:
        start = "".join(f"{cell:{width}}  " for cell, width in zip(cells, widths, strict=True))
        left = len(last) if room is None else max(room - len(start), 1)
        shown.append(start + (last if len(last) <= left else f"{last[: left - 1]}…"))
    typer.echo("\n".join(shown))


@contextmanager
def progress_bar(doing: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show progress on standard error: a bar on a terminal, else a line every ten seconds.

    Args:
        doing: What is done, before the bar.
        quiet: Whether nothing is shown.

    Yields:
        Takes how many are done, and of how many.
    """
    if quiet:
        yield lambda _done, _total: None
        return
    if not sys.stderr.isatty():
        yield _Lines(doing)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.1f}/s")

    console = Console(stderr=True)
    console.file = console.file  # rich's own while it is live: see PrintableStream
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, transient=True, console=console) as shown:
        task = shown.add_task(doing, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


class _Lines:
    """Progress in lines, the first after ten seconds; the rate is that since the first call."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._begun: tuple[float, int] | None = None
        self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._begun is None:
            self._begun = now, done
        if now - self._last < _SECONDS_BETWEEN:
            return
        self._last = now
        begun, first = self._begun
        rate = (done - first) / (now - begun) if now > begun else 0.0
        left = f", {rate:.1f}/s, {(total - done) / rate:.0f} s left" if rate else ""
        sys.stderr.write(f"{self._doing}: {done} of {total}{left}\n")
        sys.stderr.flush()
