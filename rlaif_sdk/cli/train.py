"""``rlaif train``: train a language model on composed rewards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

train_app = typer.Typer(help="Train a language model on composed rewards.", no_args_is_help=True)


@train_app.callback()
def _group() -> None:
    """Keep ``ppo`` a sub-command while it is the only one."""


@train_app.command()
def ppo(
    config: Annotated[Path, typer.Option("--config", "-c", help="The run: a YAML or JSON file.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key: --set ppo.learning_rate=1e-6. Repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the output.")] = False,
) -> None:
    """Train with PPO.

    Evaluates the held-out prompts before and after, prints every reward of both, and writes the model, the curves,
    the metrics and sample answers to the run's output folder.
    """
    from rich.console import Console

    from rlaif_sdk.reporting.training_report import watch_ppo
    from rlaif_sdk.training.config import load_run_config

    watch_ppo(load_run_config(config, overrides=overrides or ()), Console(), resume=resume)
