"""``rlaif distill``: a judge's labels train a reward model, and the reward model trains the policy."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from rlaif_sdk.cli.exits import CheckOption, end_check, interruptible
from rlaif_sdk.cli.options import AllowChanged, config_option, overriding


def distill(
    config: Annotated[Path, config_option("The run")],
    overrides: Annotated[list[str] | None, overriding("label.judge.model=NAME")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in the output; none need be there.")] = False,
    allow_changed: AllowChanged = False,
    check: CheckOption = False,
) -> None:
    """Distil a judge into a reward model, and train the policy on it by PPO.

    Samples completions, has the judge compare them, trains a reward model on the labels, evaluates it on held-out ones,
    trains, and has the judge compare the answers before and after. A run that was killed is resumed with --resume.
    """
    from rlaif_sdk.training.distill import load_distill_run

    run = dataclasses.replace(load_distill_run(config, overrides=overrides or ()), allow_changed=allow_changed)
    if check:
        from rlaif_sdk.training.distill import check_distill

        end_check(lambda: check_distill(run))
    from rich.console import Console

    from rlaif_sdk.reporting.distill_report import watch_distill

    with interruptible(
        lambda: f"{_finished(run.output)}, and each finished part of a stage is kept in {run.output}",
        resume=lambda: True,
    ):
        watch_distill(run, Console(), resume=resume)


def _finished(output: Path) -> str:
    from rlaif_sdk.training.distill import STAGE_FILE

    done = sorted(output.glob(f"*/{STAGE_FILE}"), key=lambda file: file.stat().st_mtime)
    return f"finished: {', '.join(file.parent.name for file in done)}" if done else "no stage is finished"
