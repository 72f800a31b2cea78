"""``rlaif train``: train a language model on given answers, on composed rewards or on preferences."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif_sdk.cli.options import AllowChanged, overriding

if TYPE_CHECKING:
    from rlaif_sdk.training.config import Run
    from rlaif_sdk.training.online import OnlineKind
    from rlaif_sdk.training.preferences import Kind

train_app = typer.Typer(help="Train a language model on answers, rewards or preferences.", no_args_is_help=True)

Config = Annotated[Path, typer.Option("--config", "-c", help="The run: a YAML or JSON file.")]
Overrides = Annotated[list[str] | None, overriding("ppo.learning_rate=1e-6")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the output.")]
Check = Annotated[bool, typer.Option("--check", help="Check files, sizes, columns and memory; load and train nothing.")]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for, of any method."""

    config: Path
    overrides: Sequence[str]
    resume: bool
    allow_changed: bool
    check: bool


Method = Callable[[Asked], None]


def _command(method: Method) -> Method:
    """Make a command of a method, under its name and with its docstring as help."""

    @train_app.command(method.__name__.replace("_", "-"), help=inspect.getdoc(method))
    def command(
        config: Config,
        overrides: Overrides = None,
        resume: Resume = False,
        allow_changed: AllowChanged = False,
        check: Check = False,
    ) -> None:
        method(Asked(config, overrides or (), resume, allow_changed, check))

    return method


@_command
def sft(asked: Asked) -> None:
    """Fine-tune on given answers, the phase before training on rewards.

    Evaluates held-out rows before and after. The saved model is the next run's ``model.name``.
    """
    from rlaif_sdk.reporting.sft_report import watch_sft
    from rlaif_sdk.training.sft import load_sft_run

    _start(asked, "sft", load_sft_run, watch_sft)


@_command
def ppo(asked: Asked) -> None:
    """Train with PPO.

    Evaluates the held-out prompts before and after, prints every reward of both, and writes the model, the curves,
    the metrics and sample answers to the run's output folder.
    """
    from rlaif_sdk.reporting.training_report import watch_ppo
    from rlaif_sdk.training.config import load_run_config

    _start(asked, "ppo", load_run_config, watch_ppo)


@_command
def reinforce(asked: Asked) -> None:
    """Train with REINFORCE and a learned baseline: ``ppo`` with ``ppo.algorithm=reinforce``."""
    ppo(dataclasses.replace(asked, overrides=[*asked.overrides, "ppo.algorithm=reinforce"]))


@_command
def grpo(asked: Asked) -> None:
    """Train with TRL's GRPO, in the way of ``ppo``."""
    _online("grpo", asked)


@_command
def rloo(asked: Asked) -> None:
    """Train with TRL's RLOO, in the way of ``ppo``."""
    _online("rloo", asked)


@_command
def reward_model(asked: Asked) -> None:
    """Train a reward model on preference pairs, with soft labels if they have any.

    Evaluates held-out pairs before and after: loss, accuracy, calibration, agreement with the labels. The model is
    usable as a reward at once.
    """
    _preferences("reward_model", asked)


@_command
def dpo(asked: Asked) -> None:
    """Train a policy by DPO on preference pairs, with soft labels and margins if they have any."""
    _preferences("dpo", asked)


def _preferences(kind: Kind, asked: Asked) -> None:
    from rlaif_sdk.reporting.preference_report import watch_preferences
    from rlaif_sdk.training.preferences import load_preference_run

    _start(asked, kind, partial(load_preference_run, kind), partial(watch_preferences, kind))


def _online(kind: OnlineKind, asked: Asked) -> None:
    from rlaif_sdk.reporting.training_report import watch_online
    from rlaif_sdk.training.online import load_online_run

    _start(asked, kind, partial(load_online_run, kind), watch_online)


def _start(asked: Asked, method: str, load: Callable[..., Run], watch: Callable[..., object]) -> None:
    """Watch the run that a config describes; with ``--check`` it is reported on, and the program ends."""
    from rich.console import Console

    run = load(asked.config, overrides=asked.overrides)
    if not asked.check:
        watch(dataclasses.replace(run, allow_changed=asked.allow_changed), Console(), resume=asked.resume)
        return
    from rlaif_sdk.reporting.preflight_report import report_preflight
    from rlaif_sdk.training.dry_run import dry_run

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # of the libraries' own making
        found = dry_run(run, method)
    report_preflight(found, Console())
    raise typer.Exit(1 if found.problems else 0)
