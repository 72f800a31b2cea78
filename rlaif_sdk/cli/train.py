"""``rlaif train``: train a language model on given answers, on composed rewards or on preferences."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from rlaif_sdk.cli.options import AllowChanged

if TYPE_CHECKING:
    from rlaif_sdk.training.config import Run
    from rlaif_sdk.training.online import OnlineKind
    from rlaif_sdk.training.preference_run import Kind

RunT = TypeVar("RunT", bound="Run")

train_app = typer.Typer(help="Train a language model on answers, rewards or preferences.", no_args_is_help=True)

Config = Annotated[Path, typer.Option("--config", "-c", help="The run: a YAML or JSON file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key: --set ppo.learning_rate=1e-6. Repeatable.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the output.")]

Check = Annotated[bool, typer.Option("--check", help="Check files, sizes, columns and memory; load and train nothing.")]


@train_app.command()
def sft(
    config: Config,
    overrides: Overrides = None,
    resume: Resume = False,
    allow_changed: AllowChanged = False,
    check: Check = False,
) -> None:
    """Fine-tune on given answers, the phase before training on rewards.

    Evaluates held-out rows before and after. The saved model is the next run's ``model.name``.
    """
    from rich.console import Console

    from rlaif_sdk.reporting.sft_report import watch_sft
    from rlaif_sdk.training.sft_run import load_sft_run

    run = _ready(load_sft_run(config, overrides=overrides or ()), "sft", allow_changed, check)
    watch_sft(run, Console(), resume=resume)


@train_app.command()
def ppo(
    config: Config,
    overrides: Overrides = None,
    resume: Resume = False,
    allow_changed: AllowChanged = False,
    check: Check = False,
) -> None:
    """Train with PPO.

    Evaluates the held-out prompts before and after, prints every reward of both, and writes the model, the curves,
    the metrics and sample answers to the run's output folder.
    """
    from rich.console import Console

    from rlaif_sdk.reporting.training_report import watch_ppo
    from rlaif_sdk.training.config import load_run_config

    run = _ready(load_run_config(config, overrides=overrides or ()), "ppo", allow_changed, check)
    watch_ppo(run, Console(), resume=resume)


@train_app.command()
def reinforce(
    config: Config,
    overrides: Overrides = None,
    resume: Resume = False,
    allow_changed: AllowChanged = False,
    check: Check = False,
) -> None:
    """Train with REINFORCE and a learned baseline: ``ppo`` with ``ppo.algorithm=reinforce``."""
    ppo(config, [*(overrides or ()), "ppo.algorithm=reinforce"], resume, allow_changed, check)


@train_app.command()
def grpo(
    config: Config,
    overrides: Overrides = None,
    resume: Resume = False,
    allow_changed: AllowChanged = False,
    check: Check = False,
) -> None:
    """Train with TRL's GRPO, in the way of ``ppo``."""
    _online("grpo", config, overrides, resume, allow_changed, check)


@train_app.command()
def rloo(
    config: Config,
    overrides: Overrides = None,
    resume: Resume = False,
    allow_changed: AllowChanged = False,
    check: Check = False,
) -> None:
    """Train with TRL's RLOO, in the way of ``ppo``."""
    _online("rloo", config, overrides, resume, allow_changed, check)


@train_app.command()
def reward_model(
    config: Config,
    overrides: Overrides = None,
    resume: Resume = False,
    allow_changed: AllowChanged = False,
    check: Check = False,
) -> None:
    """Train a reward model on preference pairs, with soft labels if they have any.

    Evaluates held-out pairs before and after: loss, accuracy, calibration, agreement with the labels. The model is
    usable as a reward at once.
    """
    _preferences("reward_model", config, overrides, resume, allow_changed, check)


@train_app.command()
def dpo(
    config: Config,
    overrides: Overrides = None,
    resume: Resume = False,
    allow_changed: AllowChanged = False,
    check: Check = False,
) -> None:
    """Train a policy by DPO on preference pairs, with soft labels and margins if they have any."""
    _preferences("dpo", config, overrides, resume, allow_changed, check)


def _preferences(
    kind: Kind, config: Path, overrides: list[str] | None, resume: bool, allow_changed: bool, check: bool
) -> None:
    from rich.console import Console

    from rlaif_sdk.reporting.preference_report import watch_preferences
    from rlaif_sdk.training.preference_run import load_preference_run

    run = _ready(load_preference_run(kind, config, overrides=overrides or ()), kind, allow_changed, check)
    watch_preferences(kind, run, Console(), resume=resume)


def _online(
    kind: OnlineKind, config: Path, overrides: list[str] | None, resume: bool, allow_changed: bool, check: bool
) -> None:
    from rich.console import Console

    from rlaif_sdk.reporting.training_report import watch_online
    from rlaif_sdk.training.online import load_online_run

    run = _ready(load_online_run(kind, config, overrides=overrides or ()), kind, allow_changed, check)
    watch_online(run, Console(), resume=resume)


def _ready(run: RunT, method: str, allow_changed: bool, check: bool) -> RunT:
    """The run as it is to be started; with ``--check`` it is reported on, and the program ends."""
    if not check:
        return dataclasses.replace(run, allow_changed=allow_changed)
    from rich.console import Console

    from rlaif_sdk.reporting.preflight_report import report_preflight
    from rlaif_sdk.training.dry_run import dry_run

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # of the libraries' own making
        found = dry_run(run, method)
    report_preflight(found, Console())
    raise typer.Exit(1 if found.problems else 0)
