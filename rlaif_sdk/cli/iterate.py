"""``rlaif iterate``: train in rounds, each on what the policy of the round before makes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from rlaif_sdk.cli.exits import CheckOption, end_check, interruptible
from rlaif_sdk.cli.options import AllowChanged, config_option, overriding


def iterate(
    config: Annotated[Path, config_option("The loop")],
    overrides: Annotated[list[str] | None, overriding("stop.rounds=5")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the loop in the output; none need be there.")
    ] = False,
    allow_changed: AllowChanged = False,
    check: CheckOption = False,
) -> None:
    """Train in a closed loop: generate, compose, train, evaluate, and again with the new policy.

    Each round is evaluated on the held-out prompts by a judge that never changes. The best round's model is `model`
    in the output folder. A loop that was killed is resumed with --resume, and does only what is missing.
    """
    from rlaif_sdk.training.iterate import load_iterate_run

    run = dataclasses.replace(load_iterate_run(config, overrides=overrides or ()), allow_changed=allow_changed)
    if check:
        from rlaif_sdk.training.iterate.loop import check_iterate

        end_check(lambda: check_iterate(run))
    from rich.console import Console

    from rlaif_sdk.reporting.iterate_report import watch_iterate

    with interruptible(
        lambda: f"{_finished(run.output)}, and each finished part of a round is kept in {run.output}",
        resume=lambda: True,
    ):
        watch_iterate(run, Console(), resume=resume)


def _finished(output: Path) -> str:
    from rlaif_sdk.training.iterate.loop import EVALUATION_FILE

    rounds = sorted(output.glob(f"round-*/{EVALUATION_FILE}"))
    return f"{rounds[-1].parent.name} is finished" if rounds else "no round is finished"
