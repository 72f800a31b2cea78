"""``rlaif cache``: what a ledger holds, what of it to forget, and the record as a table."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from rlaif_sdk.cli.options import AsJson, ConfigCommand, LedgerArgument
from rlaif_sdk.cli.output import print_table

cache_app = typer.Typer(help="Look into a ledger of scores, shrink it, export its record.", no_args_is_help=True)

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@cache_app.command("list")
def list_(
    ledger: LedgerArgument,
    as_json: AsJson = False,
) -> None:
    """List the rewards whose scores are cached, and the recorded runs."""
    from dataclasses import asdict

    from rlaif_sdk.composer import Ledger

    with Ledger.find(ledger) as found:
        rewards, runs = found.cached_rewards(), found.runs()
    if as_json:
        listed = {"rewards": [asdict(reward) for reward in rewards], "runs": [asdict(run) for run in runs]}
        typer.echo(json.dumps(listed, indent=2))
        return
    print_table(
        ("reward", "version", "revision", "params", "scores", "newest"),
        [
            (each.name, each.version, each.revision, each.params[:8], str(each.scores), _date(each.newest))
            for each in rewards
        ],
    )
    typer.echo()
    print_table(
        ("run", "began", "batches", "rows", "rewards"),
        [
            (str(run.number), _date(run.started), str(run.batches), str(run.rows), ", ".join(run.rewards))
            for run in runs
        ],
    )


@cache_app.command()
def prune(
    ledger: LedgerArgument,
    reward: Annotated[str | None, typer.Option(help="Only scores of this reward, as `list` names it.")] = None,
    older_than: Annotated[str | None, typer.Option(help="Only what is older: 30d, 12h; s, m, h, d or w.")] = None,
    runs: Annotated[bool, typer.Option("--runs", help="Forget recorded runs of that age too.")] = False,
) -> None:
    """Forget some cached scores, and give their room back."""
    from rlaif_sdk.composer import Ledger

    if reward is None and older_than is None:
        raise typer.BadParameter("give --reward, --older-than or both; `rlaif cache clear` forgets everything")
    if runs and older_than is None:
        raise typer.BadParameter("runs are forgotten by age: give --older-than", param_hint="--runs")
    before = None if older_than is None else time.time() - _seconds(older_than)
    with Ledger.find(ledger) as found:
        _report(*found.prune(reward=reward, before=before, runs=runs))


@cache_app.command()
def clear(
    ledger: LedgerArgument,
    runs: Annotated[bool, typer.Option("--runs", help="Forget the recorded runs too.")] = False,
) -> None:
    """Forget all cached scores; the recorded runs stay, unless asked."""
    from rlaif_sdk.composer import Ledger

    with Ledger.find(ledger) as found:
        _report(*found.prune(runs=runs))


@cache_app.command(cls=ConfigCommand)
def export(
    ledger: LedgerArgument,
    output: Annotated[Path, typer.Argument(help="A .parquet or .jsonl file to write.")],
    run: Annotated[int | None, typer.Option(help="The number of a recorded run; default: all.")] = None,
) -> None:
    """Write the record as a table: a row for each completion, with every reward's score."""
    from rlaif_sdk.composer import Ledger
    from rlaif_sdk.io.tables import write_rows

    count = 0
    with Ledger.find(ledger) as found, write_rows(output) as writer:
        for row in found.rows(run):
            writer.write(row)
            count += 1
    typer.echo(f"wrote {count} rows to {output}")


def _report(scores: int, runs: int) -> None:
    typer.echo(f"forgot {scores} scores and {runs} runs")


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _seconds(age: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", age)
    if match is None:
        raise typer.BadParameter(f"{age!r} is no age such as 30d or 12h", param_hint="--older-than")
    return float(match[1]) * _UNITS[match[2]]
