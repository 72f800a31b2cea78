"""``rlaif judge``: look at a judge before it is put to work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif_sdk.cli.exits import ExitCode
from rlaif_sdk.cli.options import AsJson, ConfigCommand, JudgeOverrides, LedgerArgument, RunsOption, config_option
from rlaif_sdk.cli.output import print_table

if TYPE_CHECKING:
    from rlaif_sdk.evaluation import CascadePoint

judge_app = typer.Typer(help="Look at a judge before it is put to work.", no_args_is_help=True)


@judge_app.callback()
def _judge() -> None:
    pass


@judge_app.command(cls=ConfigCommand)
def probe(
    config: Annotated[Path, config_option("A labelling job")],
    overrides: JudgeOverrides = None,
) -> None:
    """Ask a judge small questions: does it answer, does it give log-probabilities, and does it favour a label?

    Exits with 1 if it cannot do what the config asks of it.
    """
    import asyncio

    from rlaif_sdk.judges import probe as ask
    from rlaif_sdk.preferences import load_label_job

    labeler = load_label_job(config, overrides=overrides or ()).labeler()
    try:
        found = asyncio.run(ask(labeler.backend))
    finally:
        labeler.backend.close()
    mass = "" if found.label_mass is None else f"; the labels 1 and 2 have {found.label_mass:.3f} of the probability"
    typer.echo(f"log-probabilities: {'yes' if found.logprobs else 'no'}{mass}")
    typer.echo(f"text: {found.reply!r}" if found.reply is not None else "text: no")
    usage = found.usage
    cost = "" if usage.cost is None else f", cost {usage.cost:.6f}"
    typer.echo(f"{found.seconds:.2f} s, {usage.input_tokens} tokens in, {usage.output_tokens} out{cost}")
    for problem in found.problems:
        typer.echo(f"problem: {problem}", err=True)
    if labeler.needs_logprobs and not found.logprobs:
        typer.echo("mode: likelihood needs log-probabilities; mode: verdict does without", err=True)
        raise typer.Exit(ExitCode.NOT_IN_ORDER)
    if found.reply is None and not labeler.needs_logprobs:
        raise typer.Exit(ExitCode.NOT_IN_ORDER)


@judge_app.command()
def calibrate(
    run: LedgerArgument,
    cheap: Annotated[str, typer.Option(help="The reward that is asked about every row.")],
    strong: Annotated[str, typer.Option(help="The one that should be asked where the cheap one is unsure.")],
    runs: RunsOption = None,
    agreement: Annotated[
        float, typer.Option(min=0, max=1, help="The share of the strong reward's preferences that must be kept.")
    ] = 0.95,
    as_json: AsJson = False,
) -> None:
    """Say within which scores of a cheap judge a strong one must be asked, from rows that both have scored.

    Shows calls saved against agreement lost, each measured on rows that did not choose the band, and the 'when' to write.
    Exits with 1 if no band keeps the agreement.
    """
    import json

    from rlaif_sdk.composer.ledger import Ledger
    from rlaif_sdk.evaluation import calibrate_cascade

    with Ledger.find(run) as ledger:
        curve = calibrate_cascade(ledger, cheap, strong, runs=runs)
    chosen = curve.cheapest(agreement)
    if as_json:
        points = [point.record() for point in curve.points]
        found = {"rows": curve.rows, "unasked": curve.unasked, "shift": curve.shift, "points": points}
        typer.echo(json.dumps(found | {"chosen": chosen.record() if chosen else None}, indent=2))
    else:
        skipped = f"; {curve.unasked} rows without a score of {strong} are left out" if curve.unasked else ""
        typer.echo(
            f"{curve.rows} rows with both scores; {cheap} is {curve.shift:+.3g} over {strong} on the mean{skipped}"
        )
        headings = ("asked", "band", "same order", "95% interval", "mean difference")
        print_table(headings, map(_cells, curve.points), numbers=True)
        if chosen:
            typer.echo(_advice(chosen, cheap, strong))
    if chosen is None:
        typer.echo(f"no band keeps {agreement:.1%} of the order", err=True)
        raise typer.Exit(ExitCode.NOT_IN_ORDER)


def _advice(chosen: CascadePoint, cheap: str, strong: str) -> str:
    kept = f"{chosen.agreement.value:.1%} of the order kept"
    if not chosen.asks:
        return f"{cheap} alone: {strong} need not be asked  # {kept}"
    condition = ", ".join(f"{key}: {value}" for key, value in chosen.condition(cheap).items())
    when = (
        f"rewards.{strong}.when: {{{condition}}}"
        if condition
        else f"rewards.{strong}: no 'when', it must be asked always"
    )
    return f"{when}  # {chosen.asked:.0%} of the rows asked, {kept}"


def _cells(point: CascadePoint) -> tuple[str, ...]:
    band = f"{point.least:.4g} to {point.greatest:.4g}" if point.asks else "none"
    found = point.agreement
    order = (f"{found.value:.1%}", f"{found.low:.1%} to {found.high:.1%}") if found.n else ("-", "no pairs")
    return (f"{point.asked:.0%}", band, *order, f"{point.difference:.4g}")
