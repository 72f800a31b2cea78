"""``rlaif train``: train a language model on given answers, on composed rewards or on preferences."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from rlaif_sdk.cli.options import AllowChanged, ConfigCommand, config_argument, overriding
from rlaif_sdk.training.methods import METHODS, MethodEntry, check_setting_names, get_method, load_run, resolve

if TYPE_CHECKING:
    from rlaif_sdk.training.config import Run

train_app = typer.Typer(help="Train a language model on answers, rewards or preferences.", no_args_is_help=True)

Config = Annotated[Path, config_argument("The run")]
Overrides = Annotated[list[str] | None, overriding("ppo.learning_rate=1e-6")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume from the last checkpoint in the output.")]
Check = Annotated[bool, typer.Option("--check", help="Check files, sizes, columns and memory; load and train nothing.")]


def _add_command(name: str, entry: MethodEntry) -> None:
    """Make a command of a method."""

    @train_app.command(name.replace("_", "-"), cls=ConfigCommand, help=entry.help)
    def command(
        config: Config,
        overrides: Overrides = None,
        resume: Resume = False,
        allow_changed: AllowChanged = False,
        check: Check = False,
    ) -> None:
        from rich.console import Console

        run = load_run(name, config, overrides=overrides or ())
        check_setting_names(run)
        if check:
            _check(run)
        watch = resolve(get_method(name).report)
        watch(dataclasses.replace(run, allow_changed=allow_changed), Console(), resume=resume)


def _check(run: Run) -> NoReturn:
    """Report on a run without starting it; the program ends."""
    from rich.console import Console

    from rlaif_sdk.reporting.preflight_report import report_preflight
    from rlaif_sdk.training.run_folder import check

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # of the libraries' own making
        found = check(run)
    report_preflight(found, Console())
    raise typer.Exit(1 if found.problems else 0)


for _name, _entry in METHODS.items():
    _add_command(_name, _entry)
