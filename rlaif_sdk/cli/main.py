"""The ``rlaif`` program: its commands, and how errors and warnings look."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from codecs import lookup
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import cleandoc
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup

from rlaif_sdk import __version__
from rlaif_sdk.cli.attack import attack_app
from rlaif_sdk.cli.cache import cache_app
from rlaif_sdk.cli.defaults import Defaults
from rlaif_sdk.cli.difficulty import difficulty
from rlaif_sdk.cli.distill import distill
from rlaif_sdk.cli.doctor import doctor
from rlaif_sdk.cli.evaluate import eval_app
from rlaif_sdk.cli.exits import ExitCode
from rlaif_sdk.cli.explain import explain
from rlaif_sdk.cli.export import export
from rlaif_sdk.cli.fit import fit
from rlaif_sdk.cli.init import init_app
from rlaif_sdk.cli.iterate import iterate
from rlaif_sdk.cli.judge import judge_app
from rlaif_sdk.cli.label import label
from rlaif_sdk.cli.make import make_app
from rlaif_sdk.cli.options import ConfigCommand
from rlaif_sdk.cli.quickstart import quickstart
from rlaif_sdk.cli.quiet import quiet_libraries
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
from rlaif_sdk.io.text import PrintableStream

if TYPE_CHECKING:
    from collections.abc import Callable

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
        sys.stderr.write(f"trying again in {details.wait_for:.3g} s: {str(error) or type(error).__name__}\n")


class _Program(TyperGroup):
    """Lists commands in the order of `_COMMANDS`, which is that of their groups too, and knows their options' defaults."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; a value that is refused and was not typed is told with its place."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            told = ctx.obj and ctx.obj.blame(error)
            raise told or error from None
        except RlaifError as error:
            if ctx.default_map and ctx.default_map.get(ctx.invoked_subcommand):
                error.add_note(f"defaults of options are read from {ctx.obj.file}")
            raise

    def get_command(self, ctx: Any, name: str) -> Any:
        """A command, whose help is wrapped at the terminal's width and nowhere else."""
        command = super().get_command(ctx, name)
        _unwrap(command)
        return command

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return [name for commands in _COMMANDS.values() for name in commands]


def _unwrap(command: Any) -> None:
    """Join the lines of each paragraph of a command's help, and of those below it: typer does so for the first alone."""
    if command is not None and command.help:
        paragraphs = cleandoc(command.help).split("\n\n")
        command.help = "\n\n".join(" ".join(each.split()) for each in paragraphs)
    for each in getattr(command, "commands", {}).values():
        _unwrap(each)


app = typer.Typer(
    name="rlaif",
    cls=_Program,
    help="Compose reward plugins for RL from AI feedback, see why each reward is what it is, and train on them.",
    epilog="Defaults of options: rlaif.toml here or in a parent folder, or RLAIF_SCORE_CHUNK=… and the like.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS: dict[str, dict[str, typer.Typer | Callable[..., None]]] = {
    "Begin": {"quickstart": quickstart, "doctor": doctor, "init": init_app},
    "Compose": {
        "rewards": rewards_app,
        "schema": schema,
        "score": score,
        "explain": explain,
        "what-if": what_if,
        "fit": fit,
        "cache": cache_app,
    },
    "Label": {"make": make_app, "judge": judge_app, "label": label, "review": review},
    "Train": {
        "train": train_app,
        "difficulty": difficulty,
        "iterate": iterate,
        "distill": distill,
        "sweep": sweep,
        "runs": runs_app,
        "report": report,
    },
    "Evaluate": {"eval": eval_app, "attack": attack_app},
    "Serve": {"export": export, "serve": serve},
}
"""Every command by its group, in the order of use."""

for _panel, _commands in _COMMANDS.items():
    for _name, _command in _commands.items():
        if isinstance(_command, typer.Typer):
            app.add_typer(_command, name=_name, rich_help_panel=_panel)
        else:
            app.command(_name, cls=ConfigCommand, rich_help_panel=_panel)(_command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rlaif_sdk {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version
    ctx.obj = Defaults.find(ctx.command)
    ctx.obj.apply(ctx)


def main() -> None:
    """Run ``rlaif``; an `RlaifError`, or a file system that takes no more, is told in a line and exits with 2."""
    warnings.showwarning = _show_warning
    sys.stdout, sys.stderr = (PrintableStream(_Output.of(stream)) for stream in (sys.stdout, sys.stderr))
    retries.listeners.append(RetryNotes())
    logging.getLogger("stamina").addHandler(logging.NullHandler())  # else logging itself would print what stamina logs
    try:
        with quiet_libraries():
            app(prog_name="rlaif")
    except RlaifError as error:
        _end(error, error)
    except Exception as error:
        told = refusal(error)
        if told is None:
            raise
        _end(error, told)
    finally:
        sys.stdout.flush()


class _Output(TextIOWrapper):
    """Standard output or error: with nobody to read it any more, the program ends like one that SIGPIPE ends.

    Left to itself, such a write is an error like that of any other connection, and typer says nothing of either.
    """

    _stream: TextIOWrapper

    @classmethod
    def of(cls, stream: TextIO | None) -> TextIO:
        """A stream that is one of the process, in this way; whatever its encoding lacks is written as an escape.

        ASCII becomes UTF-8, since typer would else write past this stream. What is written to a closed one is nowhere.
        """
        if stream is None:
            return Path(os.devnull).open("w", encoding="utf-8")
        if not isinstance(stream, TextIOWrapper):
            return stream
        stream.flush()
        output = cls(
            stream.buffer,
            encoding="utf-8" if lookup(stream.encoding).name == "ascii" else stream.encoding,
            errors="backslashreplace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        output._stream = stream  # which closes what both write to once nobody holds it
        return output

    def write(self, text: str, /) -> int:
        with self._ends_without_reader():
            return super().write(text)

    def flush(self) -> None:
        with self._ends_without_reader():
            super().flush()

    def close(self) -> None:
        """Leave open what it writes to: that belongs to the process, which may go on."""
        self.flush()

    @contextmanager
    def _ends_without_reader(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            sys.exit(ExitCode.OUTPUT_CLOSED)


def _end(error: Exception, told: RlaifError) -> NoReturn:
    if os.environ.get("RLAIF_TRACEBACK"):
        raise error
    sys.stderr.write(f"error: {told}\n")
    for note in getattr(error, "__notes__", ()):
        sys.stderr.write(f"  {note}\n")
    sys.exit(ExitCode.REFUSED)


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
    (file or sys.stderr).write(f"{prefix}: {message}\n")
