"""``rlaif report``: what a run's rewards did, and what is wrong with them, as a web page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaif_sdk.cli.options import RunArgument, config_option

if TYPE_CHECKING:
    from rlaif_sdk.composer.build import ConfigSource

HISTORY_FILE = "history.jsonl"
SAMPLES_FILE = "samples.jsonl"


def report(
    run: RunArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The HTML file; default: report.html beside the ledger.")
    ] = None,
    config: Annotated[
        Path | None,
        config_option("Shows what each reward adds; the run's composition, or its training config"),
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option(help="A reward to look for reward hacking with, beside those of weight 0. Repeatable."),
    ] = None,
    number: Annotated[
        int | None, typer.Option("--run", help="Which run of the ledger, from 1; default: the last.")
    ] = None,
) -> None:
    """Write a report of a run: one HTML file with interactive plots, which needs no network.

    Correlations, shares of the variance, length, saturation, groups without differences, drift from held-out rewards,
    failures, and sample rows with the waterfall of their total. What looks wrong is printed too. Of a training run without
    a ledger the report has its log, its answers to the held-out prompts and what it was made of.
    """
    from rlaif_sdk.composer.ledger import Ledger
    from rlaif_sdk.reporting.run_report import recorded_compositions, write_log_report, write_report

    manifest = run / "run.json"
    if manifest.is_file() and not [*run.glob("*.sqlite")]:
        from rlaif_sdk.io.files import read_json

        output = output or run / "report.html"
        title = f"Run {run.resolve().name}"
        history, answers = _records(run / HISTORY_FILE), _records(run / SAMPLES_FILE)
        write_log_report(output, read_json(manifest), title=title, history=history, answers=answers)
        typer.echo(f"wrote {output}; the run has no ledger in its folder, so rewards row by row are not in it")
        return
    with Ledger.find(run) as ledger:
        recorded = ledger.run(number)
        folder = ledger.path.parent
        output = output or folder / "report.html"
        warnings = write_report(
            recorded_compositions(ledger, recorded, None if config is None else _composition(config)),
            output,
            title=f"Rewards of {folder.resolve().name}",
            held_out=held_out or (),
            history=_records(folder / HISTORY_FILE),
            answers=_records(folder / SAMPLES_FILE),
        )
    typer.echo(f"{recorded} ({ledger.path})")
    for warning in warnings:
        typer.echo(f"- {warning}")
    typer.echo(f"wrote {output}" if warnings else f"Nothing looks wrong with the rewards. Wrote {output}")


def _composition(config: Path) -> ConfigSource:
    """The composition of a file, or of a training run's."""
    from rlaif_sdk.config.documents import load_document

    document = load_document(config)
    composition = document.data.get("composition") if isinstance(document.data, dict) else None
    if isinstance(composition, str):
        return config.parent / composition
    return document if composition is None else document.at("composition")


def _records(file: Path) -> list[dict[str, Any]]:
    from rlaif_sdk.io.tables import read_rows

    return [*read_rows(file)] if file.is_file() else []
