"""``rlaif train``: train a language model on given answers, on composed rewards or on preferences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rlaif_sdk.training.online import OnlineKind
    from rlaif_sdk.training.preference_run import Kind

train_app = typer.Typer(help="Train a language model on answers, rewards or preferences.", no_args_is_help=True)

Config = Annotated[Path, typer.Option("--config", "-c", help="The run: a YAML or JSON file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key: --set ppo.learning_rate=1e-6. Repeatable.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the output.")]


@train_app.command()
def sft(config: Config, overrides: Overrides = None, resume: Resume = False) -> None:
    """Fine-tune on given answers, the phase before training on rewards.

    Evaluates held-out rows before and after. The saved model is the next run's ``model.name``.
    """
    from rich.console import Console

    from rlaif_sdk.reporting.sft_report import watch_sft
    from rlaif_sdk.training.sft_run import load_sft_run

    watch_sft(load_sft_run(config, overrides=overrides or ()), Console(), resume=resume)


@train_app.command()
def ppo(config: Config, overrides: Overrides = None, resume: Resume = False) -> None:
    """Train with PPO.

    Evaluates the held-out prompts before and after, prints every reward of both, and writes the model, the curves,
    the metrics and sample answers to the run's output folder.
    """
    from rich.console import Console

    from rlaif_sdk.reporting.training_report import watch_ppo
    from rlaif_sdk.training.config import load_run_config

    watch_ppo(load_run_config(config, overrides=overrides or ()), Console(), resume=resume)


@train_app.command()
def reinforce(config: Config, overrides: Overrides = None, resume: Resume = False) -> None:
    """Train with REINFORCE and a learned baseline: ``ppo`` with ``ppo.algorithm=reinforce``."""
    ppo(config, [*(overrides or ()), "ppo.algorithm=reinforce"], resume)


@train_app.command()
def grpo(config: Config, overrides: Overrides = None, resume: Resume = False) -> None:
    """Train with TRL's GRPO, in the way of ``ppo``."""
    _online("grpo", config, overrides, resume)


@train_app.command()
def rloo(config: Config, overrides: Overrides = None, resume: Resume = False) -> None:
    """Train with TRL's RLOO, in the way of ``ppo``."""
    _online("rloo", config, overrides, resume)


@train_app.command()
def reward_model(config: Config, overrides: Overrides = None, resume: Resume = False) -> None:
    """Train a reward model on preference pairs, with soft labels if they have any.

    Evaluates held-out pairs before and after: loss, accuracy, calibration, agreement with the labels. The model is
    usable as a reward at once.
    """
    _preferences("reward_model", config, overrides, resume)


@train_app.command()
def dpo(config: Config, overrides: Overrides = None, resume: Resume = False) -> None:
    """Train a policy by DPO on preference pairs, with soft labels and margins if they have any."""
    _preferences("dpo", config, overrides, resume)


def _preferences(kind: Kind, config: Path, overrides: list[str] | None, resume: bool) -> None:
    from rich.console import Console

    from rlaif_sdk.reporting.preference_report import watch_preferences
    from rlaif_sdk.training.preference_run import load_preference_run

    watch_preferences(kind, load_preference_run(kind, config, overrides=overrides or ()), Console(), resume=resume)


def _online(kind: OnlineKind, config: Path, overrides: list[str] | None, resume: bool) -> None:
    from rich.console import Console

    from rlaif_sdk.reporting.training_report import watch_online
    from rlaif_sdk.training.online import load_online_run

    watch_online(load_online_run(kind, config, overrides=overrides or ()), Console(), resume=resume)
