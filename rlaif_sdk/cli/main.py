"""The ``rlaif`` program: its commands, and how errors and warnings look."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, NoReturn, TextIO

import typer

from rlaif_sdk import __version__
from rlaif_sdk.cli.attack import attack_app
from rlaif_sdk.cli.cache import cache_app
from rlaif_sdk.cli.difficulty import difficulty
from rlaif_sdk.cli.distill import distill
from rlaif_sdk.cli.doctor import doctor
from rlaif_sdk.cli.evaluate import eval_app
from rlaif_sdk.cli.explain import explain
from rlaif_sdk.cli.export import export
from rlaif_sdk.cli.init import init_app
from rlaif_sdk.cli.iterate import iterate
from rlaif_sdk.cli.judge import judge_app
from rlaif_sdk.cli.label import label
from rlaif_sdk.cli.make import make_app
from rlaif_sdk.cli.quickstart import quickstart
from rlaif_sdk.cli.report import report
from rlaif_sdk.cli.review import review
from rlaif_sdk.cli.rewards import rewards_app
from rlaif_sdk.cli.runs import runs_app
from rlaif_sdk.cli.schema import schema
from rlaif_sdk.cli.score import score
from rlaif_sdk.cli.serve import serve
from rlaif_sdk.cli.sweep import sweep
from rlaif_sdk.cli.train import train_app
from rlaif_sdk.cli.what_if import what_if
from rlaif_sdk.exceptions import RlaifError
from rlaif_sdk.io import retries
from rlaif_sdk.io.files import refusal
from rlaif_sdk.io.text import printable

if TYPE_CHECKING:
    from stamina.instrumentation import RetryDetails

_SECONDS_BETWEEN = 10.0
"""Many requests are in flight at once, and an outage makes all of them try again."""


class RetryNotes:
    """Says why a request is made again, and after how long, at most once in ten seconds: a hook of stamina's."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def __call__(self, details: RetryDetails) -> None:
        """Write one line to stderr, unless one was written just now."""
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN:
            return
        self._last = now
        error = details.caused_by
        sys.stderr.write(f"trying again in {details.wait_for:g} s: {str(error) or type(error).__name__}\n")


app = typer.Typer(
    name="rlaif",
    help="Compose reward plugins for RL from AI feedback, see why each reward is what it is, and train on them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(rewards_app, name="rewards")
app.add_typer(train_app, name="train")
app.command()(sweep)
app.command()(iterate)
app.command()(distill)
app.command()(difficulty)
app.add_typer(init_app, name="init")
app.command()(export)
app.command()(score)
app.command()(serve)
app.command()(label)
app.command()(review)
app.add_typer(make_app, name="make")
app.add_typer(judge_app, name="judge")
app.add_typer(attack_app, name="attack")
app.add_typer(eval_app, name="eval")
app.command()(explain)
app.command()(report)
app.add_typer(runs_app, name="runs")
app.add_typer(cache_app, name="cache")
app.command("what-if")(what_if)
app.command()(schema)
app.command()(doctor)
app.command()(quickstart)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rlaif_sdk {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run ``rlaif``; an `RlaifError`, or a file system that takes no more, is told in a line and exits with 2."""
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # whatever a terminal's encoding or a model's words lack
    retries.listeners.append(RetryNotes())
    logging.getLogger("stamina").addHandler(logging.NullHandler())  # else logging itself would print what stamina logs
    try:
        app()
    except RlaifError as error:
        _end(error, error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        told = refusal(error)
        if told is None:
            raise
        _end(error, told)


def _end(error: Exception, told: RlaifError) -> NoReturn:
    if os.environ.get("RLAIF_TRACEBACK"):
        raise error
    sys.stderr.write(printable(f"error: {told}\n"))
    for note in getattr(error, "__notes__", ()):
        sys.stderr.write(printable(f"  {note}\n"))
    sys.exit(2)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    del filename, lineno, line
    prefix = "warning" if issubclass(category, UserWarning) else category.__name__
    (file or sys.stderr).write(printable(f"{prefix}: {message}\n"))
