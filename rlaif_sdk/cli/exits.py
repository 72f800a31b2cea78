"""What a command's exit code says, and how one ends that is interrupted or leaves rows out.

| code | says |
|---|---|
| 0 | all is done |
| 1 | the command worked, and what it was asked to look at is not in order: a check, a probe, a threshold |
| 2 | an input is refused, or a fault ended the run |
| 3 | results are written, and rows are unscored or pairs unlabelled |
| 130 | interrupted by Ctrl-C |
| 141 | nobody reads the output any more, as of ``rlaif … | head``: 128 and the number of SIGPIPE |
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum

import typer


class ExitCode(IntEnum):
    """The exit codes of ``rlaif``; see the table of this module."""

    DONE = 0
    NOT_IN_ORDER = 1
    REFUSED = 2
    ROWS_LEFT_OUT = 3
    INTERRUPTED = 130
    OUTPUT_CLOSED = 141


@contextmanager
def interruptible(what_is_left: Callable[[], str], *, resume: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Where Ctrl-C ends a command, say what is left of its work and which command resumes it.

    Args:
        what_is_left: Says what was kept; called only when interrupted.
        resume: Whether the command must be given ``--resume`` to take up what was kept.

    Raises:
        typer.Exit: It was interrupted; with `ExitCode.INTERRUPTED`.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        arguments = [argument for argument in sys.argv[1:] if argument != "--resume"]
        again = shlex.join(["rlaif", *arguments, *(["--resume"] if resume() else [])])
        lines = (f"\nstopped: {what_is_left()}", *getattr(error, "__notes__", ()), f"to continue: {again}")
        typer.echo("\n".join(lines), err=True)
        raise typer.Exit(ExitCode.INTERRUPTED) from error
