"""``rlaif difficulty``: how hard a policy finds the prompts of a run, for a curriculum."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlaif_sdk.cli.exits import tell_left_out
from rlaif_sdk.cli.options import config_option, overriding


def difficulty(
    config: Annotated[Path, config_option("A run of PPO, GRPO or RLOO")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The table to write, .jsonl or .parquet.")],
    completions: Annotated[int, typer.Option(min=2, help="How many answers to each prompt.")] = 4,
    overrides: Annotated[list[str] | None, overriding("ppo.temperature=0.7")] = None,
) -> None:
    """Measure the prompts of a run: answer each several times, and compose the answers.

    The table has the prompts with the mean and spread of their rewards. Named as the run's data.train, it is what
    data.curriculum goes by.
    """
    from rich.console import Console
    from rich.progress import track

    from rlaif_sdk.io.tables import write_rows
    from rlaif_sdk.reporting.live_view import reporter
    from rlaif_sdk.training.curriculum import SCORED_COLUMN
    from rlaif_sdk.training.difficulty import load_measured_run, measure_difficulty

    console = Console()
    say = reporter(console)
    run = load_measured_run(config, overrides=overrides or ())
    measured = unscored = 0
    first = None
    rows = measure_difficulty(run, completions=completions, report=say)
    with write_rows(output) as writer:
        for row in track(rows, "measuring", console=console, transient=True, disable=not console.is_terminal):
            writer.write(row)
            if row[SCORED_COLUMN]:
                measured += 1
            elif row[SCORED_COLUMN] == 0:
                unscored += 1
                first = first or (measured + unscored, "no answer to it has a total")
    say(f"measured {measured} prompts, wrote {output}")
    rest = f"{SCORED_COLUMN} is 0 there; rlaif explain says why an answer has no total"
    tell_left_out(unscored, measured + unscored, "prompts are unmeasured", first, rest)
