"""The bar that counts what a command has done, and is gone when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def progress_bar(doing: str, console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a console, standard output's by default.

    Args:
        doing: What is done, before the bar.
        console: Where the bar is shown.

    Yields:
        Takes how many are done, and of how many.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True, console=console) as shown:
        task = shown.add_task(doing, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
