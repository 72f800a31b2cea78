"""``rlaif report``: what a run's rewards did, and what is wrong with them, as a web page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaif_sdk.cli.options import LedgerArgument, RunOption, config_option

if TYPE_CHECKING:
    from rlaif_sdk.composer.build import ConfigSource

HISTORY_FILE = "history.jsonl"
SAMPLES_FILE = "samples.jsonl"
ALARMS_FILE = "alarms.jsonl"


def report(
    run: LedgerArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The HTML file; default: report.html in the folder, or beside the table."),
    ] = None,
    config: Annotated[
        Path | None,
        config_option("Shows what each reward adds; the run's composition, or its training config"),
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option(help="A reward to look for reward hacking with, beside those of weight 0. Repeatable."),
    ] = None,
    number: RunOption = None,
) -> None:
    """Write a report of a run: one HTML file with interactive plots, which needs no network.

    Correlations, shares of the variance, length, saturation, groups without differences, drift from held-out rewards,
    alarms, failures, and sample rows with the waterfall of their total. What looks wrong is printed too. Of a training run that
    recorded none the report has its log, its answers to the held-out prompts and what it was made of; of a labelling job,
    a scoring job, a loop, a sweep or a distillation what came of it.
    """
    from rlaif_sdk.composer.ledger import Ledger
    from rlaif_sdk.reporting.run_report import recorded_compositions, write_report

    if run.is_dir() and number is None and _is_recorded(run) and (lack := _lacks_rewards(run)):
        _of_folder(run, output or run / "report.html", lack)
        return
    with Ledger.find(run) as ledger:
        recorded = ledger.run(number)
        of_table = run.is_file() and run != ledger.path
        folder = run.parent if of_table else ledger.path.parent
        output = output or (run.with_suffix(".report.html") if of_table else folder / "report.html")
        warnings = write_report(
            recorded_compositions(ledger, recorded, None if config is None else _composition(config)),
            output,
            title=f"Rewards of {run.name if of_table else folder.resolve().name}",
            held_out=held_out or (),
            history=_records(folder / HISTORY_FILE),
            answers=_records(folder / SAMPLES_FILE),
            alarms=_records(folder / ALARMS_FILE),
        )
    typer.echo(f"{recorded} ({ledger.path})")
    for warning in warnings:
        typer.echo(f"- {warning}")
    typer.echo(f"wrote {output}" if warnings else f"Nothing looks wrong with the rewards. Wrote {output}")


def _is_recorded(folder: Path) -> bool:
    from rlaif_sdk.io.jobs import IDENTITY_FILE
    from rlaif_sdk.training.run_folder import MANIFEST_FILE

    return any((folder / name).is_file() for name in (MANIFEST_FILE, IDENTITY_FILE))


def _lacks_rewards(run: Path) -> str:
    """Why a run has no recorded rewards; empty if it has."""
    from rlaif_sdk.composer.ledger import Ledger

    if not any(run.glob("*.sqlite")):
        return "the run has no ledger in its folder"
    with Ledger.find(run) as ledger:
        return "" if ledger.runs() else "the run has composed nothing yet"


def _of_folder(run: Path, output: Path, lack: str) -> None:
    """Write the report of a job, or of a training run without recorded rewards."""
    from rlaif_sdk.reporting.job_report import write_job_report
    from rlaif_sdk.reporting.run_report import write_log_report
    from rlaif_sdk.reporting.runs import recorded_run

    found = recorded_run(run)
    if not found.trained:
        write_job_report(output, found)
        typer.echo(f"wrote {output}")
        return
    history, answers, alarms = (_records(run / file) for file in (HISTORY_FILE, SAMPLES_FILE, ALARMS_FILE))
    title = f"Run {run.resolve().name}"
    write_log_report(output, found.record, title=title, history=history, answers=answers, alarms=alarms)
    typer.echo(f"wrote {output}; {lack}, so rewards row by row are not in it")


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
