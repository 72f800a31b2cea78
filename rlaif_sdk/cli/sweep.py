"""``rlaif sweep``: the trade-off between rewards, over the weights of a composition."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from rlaif_sdk.cli.exits import CheckOption, end_check, interruptible
from rlaif_sdk.cli.options import AllowChanged, SplitOption, SubsetOption, config_option, overriding, table_config


def sweep(
    config: Annotated[Path, config_option("The sweep")],
    overrides: Annotated[list[str] | None, overriding("seeds=[0,1,2]")] = None,
    best_of: Annotated[
        int | None,
        typer.Option("--best-of", min=1, help="Train nothing: choose among so many sampled answers a prompt."),
    ] = None,
    score_only: Annotated[
        Path | None, typer.Option("--score-only", help="Train and sample nothing: choose among the answers of a table.")
    ] = None,
    split: SplitOption = None,
    subset: SubsetOption = None,
    allow_changed: AllowChanged = False,
    check: CheckOption = False,
) -> None:
    """Measure what each combination of weights reaches on held-out prompts, and find the Pareto frontier.

    A sweep that was ended is resumed when it is started again. Writes sweep.json, points.csv and frontier.png to its
    output folder.
    """
    from rlaif_sdk.training.sweep import load_sweep

    chosen = list(overrides or ())
    if best_of is not None or score_only is not None:
        chosen.append("method=best_of")
    if best_of is not None:
        chosen.append(f"candidates={best_of}")
    if score_only is not None:
        chosen.append(f"completions={json.dumps(table_config(score_only, subset, split))}")
    run = dataclasses.replace(load_sweep(config, overrides=chosen), allow_changed=allow_changed)
    if check:
        from rlaif_sdk.training.sweep import check_sweep

        end_check(lambda: check_sweep(run))
    from rich.console import Console

    from rlaif_sdk.reporting.sweep_report import watch_sweep

    with interruptible(lambda: f"{_finished(run.output)} measured and kept in {run.output}"):
        watch_sweep(run, Console())


def _finished(output: Path) -> str:
    from rlaif_sdk.training.sweep import MEASURED_FILE

    count = len([*output.glob(f"points/*/*/{MEASURED_FILE}")])
    return "1 point is" if count == 1 else f"{count} points are"
