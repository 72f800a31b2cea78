"""``rlaif runs``: which runs there are, what one was made of, and what two have otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rlaif_sdk.cli.options import AsJson
from rlaif_sdk.cli.output import print_lines, print_table

runs_app = typer.Typer(help="List, show and compare runs.", no_args_is_help=True)

RunArgument = Annotated[Path, typer.Argument(help="The folder of a run.")]


@runs_app.command("list")
def list_runs(below: Annotated[Path, typer.Argument(help="The folder to look in.")] = Path()) -> None:
    """List the runs in a folder and below it: training runs with their status, and other jobs."""
    from rlaif_sdk.reporting.runs import find_runs
    from rlaif_sdk.reporting.tables import format_estimate

    rows = []
    for run in find_runs(below):
        steps = "" if run.steps is None else str(run.steps)
        total = run.held_out().get("composed_reward")
        started = str(run.record.get("started", "")) if run.trained else ""
        measured = "" if total is None else format_estimate(total)
        rows.append((str(run.folder), run.kind, run.status, started, steps, measured))
    if not rows:
        typer.echo(f"there are no runs below {below}")
        return
    print_table(("folder", "kind", "status", "started", "steps", "composed reward"), rows)


@runs_app.command("show")
def show(run: RunArgument, as_json: AsJson = False) -> None:
    """Show what a run was made of and what came of it: config, rows, code, models, versions, results."""
    from rlaif_sdk.io.jobs import flattened
    from rlaif_sdk.reporting.runs import recorded_run
    from rlaif_sdk.reporting.tables import format_estimate

    found = recorded_run(run)
    if as_json:
        typer.echo(json.dumps(found.record, indent=1))
        return
    print_lines(("key", "value"), flattened(found.record))
    if not found.trained and (results := found.results()) is not None:
        print_lines(("results", ""), flattened(results))
    if measured := found.held_out():
        print_table(("held out", "after"), [(name, format_estimate(each)) for name, each in measured.items()])


@runs_app.command("compare")
def compare(first: RunArgument, second: RunArgument) -> None:
    """Compare two runs: what differs in config, rows, code, models and versions, and the rewards side by side."""
    from rlaif_sdk.reporting.runs import difference, recorded_run, what_differs
    from rlaif_sdk.reporting.tables import format_estimate

    one, other = recorded_run(first), recorded_run(second)
    lines = [*what_differs(one, other)]
    typer.echo("\n".join(lines) if lines else "the runs were made of the same")
    ours, theirs = one.held_out(), other.held_out()
    rows = []
    for name in dict.fromkeys([*ours, *theirs]):
        both = (ours.get(name), theirs.get(name))
        change = "" if None in both else format_estimate(difference(ours[name], theirs[name]), signed=True)
        rows.append((name, *("" if each is None else format_estimate(each) for each in both), change))
    if rows:
        print_table(("held out, mean ± standard error", str(first), str(second), "difference"), rows, numbers=True)
        typer.echo(
            "The error of a difference is that of independent rows: if both are of the same, it is less, as a rule."
        )
