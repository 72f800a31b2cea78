"""``rlaif attack``: what a judge falls for, before a policy finds out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rlaif_sdk.cli.exits import ExitCode
from rlaif_sdk.cli.options import AsJson, ConfigCommand, JudgeOverrides, config_option, table_option
from rlaif_sdk.exceptions import DataError

attack_app = typer.Typer(help="Try what a policy would find out in training.", no_args_is_help=True)


@attack_app.callback()
def _attack() -> None:
    pass


@attack_app.command(cls=ConfigCommand)
def judge(
    config: Annotated[Path, config_option("A labelling job, or a composition with a judge")],
    reward: Annotated[str | None, typer.Option(help="Which reward of a composition, if several are judges.")] = None,
    attacks: Annotated[Path | None, typer.Option(help="Your own attacks: a YAML or JSON file.")] = None,
    cases: Annotated[Path | None, typer.Option(help="Your own prompts with poor and good answers, likewise.")] = None,
    family: Annotated[list[str] | None, typer.Option(help="Try only this family of attacks. Repeatable.")] = None,
    most_cases: Annotated[int | None, typer.Option("--most-cases", min=1, help="Use so many cases at most.")] = None,
    threshold: Annotated[float, typer.Option(help="By how much a value from 0 to 1 must rise for a success.")] = 0.1,
    undefended: Annotated[
        bool, typer.Option(help="Ask the same judge without its defences too, for comparison.")
    ] = True,
    fail_on_success: Annotated[
        bool, typer.Option("--fail-on-success", help="Exit with 1 if an attack succeeds against the defended judge.")
    ] = False,
    answers: Annotated[
        list[Path] | None,
        table_option("A table of real answers: say how many of them the judge's defences refuse. Repeatable."),
    ] = None,
    answers_column: Annotated[
        list[str] | None, typer.Option(help="A column with them; completion by default. Repeatable.")
    ] = None,
    as_json: AsJson = False,
    overrides: JudgeOverrides = None,
) -> None:
    """Attack a judge with the tricks that policies learn.

    Poor answers are dressed up: master keys, spoofed verdicts, instructions, delimiters, special tokens, role markers,
    invisible characters, template code, verbosity, position.
    """
    from rich.console import Console

    from rlaif_sdk.attacks import attack_judge, load_attacked, load_attacks, load_cases, measure_refusals
    from rlaif_sdk.reporting.attack_table import attack_table

    tried = load_attacks(attacks)
    if unknown := set(family or ()) - {attack.family for attack in tried}:
        known = ", ".join(dict.fromkeys(attack.family for attack in tried))
        raise typer.BadParameter(f"{min(unknown)!r}; there are {known}", param_hint="--family")
    attacked = load_attacked(config, reward=reward, overrides=overrides or ())
    columns = answers_column or ["completion"]
    refusals = {str(file): measure_refusals(attacked, _answers(file, columns)) for file in answers or ()}
    try:
        report = attack_judge(
            attacked,
            attacks=[attack for attack in tried if not family or attack.family in family],
            cases=load_cases(cases)[:most_cases],
            threshold=threshold,
            undefended=undefended,
        )
    finally:
        attacked.backend.close()
    if as_json:
        costs = {file: found.record() for file, found in refusals.items()}
        typer.echo(json.dumps({**report.record(), "refusals": costs}, indent=2, allow_nan=False))
    else:
        Console().print(attack_table(report))
        tries = len(report.defended) * len(report.cases)
        flipped = f"; {report.flipped} flipped a winner by a smaller rise" if report.flipped else ""
        typer.echo(f"{report.successes} of {tries} tries succeeded against the judge with its defences{flipped}")
        for file, found in refusals.items():
            typer.echo(f"{file}: {found}")
    if fail_on_success and report.successes:
        raise typer.Exit(ExitCode.NOT_IN_ORDER)


def _answers(file: Path, columns: Sequence[str]) -> Iterator[Any]:
    from rlaif_sdk.io.tables import read_rows

    for number, row in enumerate(read_rows(file), start=1):
        for column in columns:
            if row.get(column) is None:
                raise DataError(
                    f"has no {column!r}", file=str(file), row=number, hint=f"--answers-column: {', '.join(row)}"
                )
            yield row[column]
