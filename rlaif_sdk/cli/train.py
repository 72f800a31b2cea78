"""``rlaif train``: train a language model on given answers, on composed rewards or on preferences."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif_sdk.cli.exits import CheckOption, end_check, interruptible
from rlaif_sdk.cli.options import AllowChanged, ConfigCommand, config_option, overriding
from rlaif_sdk.training.methods import METHODS, MethodEntry, check_settings, get_method, load_run

if TYPE_CHECKING:
    from rlaif_sdk.training.config import Run

train_app = typer.Typer(help="Train a language model on answers, rewards or preferences.", no_args_is_help=True)

Config = Annotated[Path, config_option("The run")]
Overrides = Annotated[list[str] | None, overriding("ppo.learning_rate=1e-6")]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Resume from the last checkpoint in the output, or begin anew a run without one."),
]


def _add_command(name: str, entry: MethodEntry) -> None:
    """Make a command of a method."""

    @train_app.command(name.replace("_", "-"), cls=ConfigCommand, help=entry.help)
    def command(
        config: Config,
        overrides: Overrides = None,
        resume: Resume = False,
        allow_changed: AllowChanged = False,
        check: CheckOption = False,
    ) -> None:
        from rich.console import Console

        from rlaif_sdk.reporting.live_view import watch_run

        run = load_run(name, config, overrides=overrides or ())
        check_settings(run)
        if check:
            from rlaif_sdk.training.run_folder import check as check_run

            end_check(lambda: check_run(run, report=partial(typer.echo, err=True)))
        with interruptible(lambda: _what_is_left(run), resume=lambda: _has_begun(run)):
            watch_run(dataclasses.replace(run, allow_changed=allow_changed), Console(), resume=resume)


def _has_begun(run: Run) -> bool:
    from rlaif_sdk.training.run_folder import status_of

    return status_of(run.output) is not None


def _last_checkpoint(run: Run) -> Path | None:
    from rlaif_sdk.training.run_folder import last_checkpoint

    return last_checkpoint(run.checkpoints)


def _what_is_left(run: Run) -> str:
    checkpoint = _last_checkpoint(run)
    if checkpoint is not None:
        return f"training resumes from {checkpoint}"
    method = get_method(run.method).name
    if getattr(run.config, method).get("save_strategy", "no") == "no":
        ways = f"--set {method}.save_strategy=steps --set {method}.save_steps=N saves them"
    else:
        ways = f"{method}.save_strategy and save_steps say when the first is due"
    return f"no checkpoint was saved, so training begins anew ({ways})"


for _name, _entry in METHODS.items():
    _add_command(_name, _entry)
