"""What a command's exit code says, and how one ends that is interrupted or leaves rows out.

| code | says |
|---|---|
| 0 | all is done |
| 1 | the command worked, and what it was asked for is not in order: a check, a probe, a threshold, no row at all |
| 2 | an input is refused, or a fault ended the run |
| 3 | there are results, and rows are left out of them: unscored, unlabelled or failed |
| 130 | interrupted by Ctrl-C |
| 141 | nobody reads the output any more, as of ``rlaif … | head``: 128 and the number of SIGPIPE |
| 143 | interrupted by SIGTERM |
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from rlaif_sdk.io.forks import on_fork

if TYPE_CHECKING:
    from types import FrameType

    from rlaif_sdk.composer.check import Check

CheckOption = Annotated[
    bool,
    typer.Option(
        "--check", help="Check what is read, and have each reward score, and each judge label, one row; write nothing."
    ),
]


class ExitCode(IntEnum):
    """The exit codes of ``rlaif``; see the table of this module."""

    DONE = 0
    NOT_IN_ORDER = 1
    REFUSED = 2
    ROWS_LEFT_OUT = 3
    INTERRUPTED = 130
    OUTPUT_CLOSED = 141
    TERMINATED = 143


_SIGNALS_HEARD = 2
"""One more ends the process at once, which costs what a kill costs."""


def end_check(check: Callable[[], Check]) -> NoReturn:
    """Check, and say what was found; the program ends.

    Raises:
        typer.Exit: With `ExitCode.NOT_IN_ORDER` if something is wrong.
    """
    from rich.console import Console

    from rlaif_sdk.reporting.preflight_report import report_check

    found = check()
    report_check(found, Console())
    raise typer.Exit(ExitCode.NOT_IN_ORDER if found.problems else ExitCode.DONE)


def tell_left_out(count: int, total: int, what: str, first: tuple[int, str] | None, rest: str) -> None:
    """Say how many rows a command left out, why the first, and where the rest is.

    Args:
        count: How many.
        total: Of how many.
        what: What they are: ``rows are unscored``.
        first: The first such row, from 1, and why.
        rest: Where the others' reasons are.

    Raises:
        typer.Exit: There are some; with `ExitCode.ROWS_LEFT_OUT`.
    """
    if count:
        why = f"; first: row {first[0]}: {first[1]}" if first else ""
        typer.echo(f"{count} of {total} {what}{why}; {rest}", err=True)
        raise typer.Exit(ExitCode.ROWS_LEFT_OUT)


def tell_unmeasured(unscored: int, whole: int, what: str, reason: str | None) -> None:
    """Say how many rows of a measurement are unscored and count nowhere, and why the first.

    Args:
        unscored: How many.
        whole: Of how many.
        what: What they are: ``rows``.
        reason: Why the first is.

    Raises:
        typer.Exit: There are some; with `ExitCode.ROWS_LEFT_OUT`, or `ExitCode.NOT_IN_ORDER` where nothing was measured.
    """
    if unscored:
        typer.echo(f"{unscored} of {whole} {what} are unscored and count nowhere: {reason}", err=True)
        raise typer.Exit(ExitCode.NOT_IN_ORDER if unscored == whole else ExitCode.ROWS_LEFT_OUT)


@contextmanager
def interruptible(what_is_left: Callable[[], str], *, resume: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Where Ctrl-C or SIGTERM ends a command, say what is left of its work and which command resumes it.

    Args:
        what_is_left: Says what was kept; called only when interrupted.
        resume: Whether the command must be given ``--resume`` to take up what was kept.

    Raises:
        typer.Exit: It was interrupted; with `ExitCode.INTERRUPTED` or `ExitCode.TERMINATED`.
    """
    with _signals() as caught:
        try:
            yield
        except KeyboardInterrupt as error:
            arguments = [argument for argument in sys.argv[1:] if argument != "--resume"]
            again = shlex.join(["rlaif", *arguments, *(["--resume"] if resume() else [])])
            lines = (f"\nstopped: {what_is_left()}", *getattr(error, "__notes__", ()), f"to continue: {again}")
            typer.echo("\n".join(lines), err=True)
            by_signal = caught[:1] == [signal.SIGTERM]
            raise typer.Exit(ExitCode.TERMINATED if by_signal else ExitCode.INTERRUPTED) from error


class _Signals:
    """The signals that have come: the first interrupts, the second waits until what is done is kept, the third does not."""

    def __init__(self) -> None:
        self.caught: list[int] = []
        self._inherited = False
        on_fork(self._leave_to_parent)

    def _leave_to_parent(self) -> None:
        self._inherited = True

    def hear(self, number: int, _: FrameType | None) -> None:
        if self._inherited:  # a fork is its maker's affair
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            return
        self.caught.append(number)
        if len(self.caught) == 1:
            raise KeyboardInterrupt
        if len(self.caught) > _SIGNALS_HEARD:
            os._exit(128 + number)
        os.write(2, b"\nstopping: what is done is being kept; once more ends it at once\n")


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Let SIGTERM interrupt as Ctrl-C does.

    Yields:
        The signals that have come.
    """
    signals = _Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals.caught
        return
    heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, signals.hear) for number in heard}
    try:
        yield signals.caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
