"""``rlaif fit``: the weights of a composition learnt from what people prefer, and which pairs to ask them about next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif_sdk.cli.evaluate import CategoryOption
from rlaif_sdk.cli.exits import ExitCode
from rlaif_sdk.cli.options import AsJson, CompositionOption, SplitOption, SubsetOption, overriding, table_argument
from rlaif_sdk.cli.output import progress_bar
from rlaif_sdk.cli.score import CompletionOption, PromptOption

if TYPE_CHECKING:
    from rlaif_sdk.evaluation import CompositionFit


def fit(
    files: Annotated[
        list[Path],
        table_argument(
            "Pairs that people judged, a table or several: exports of rlaif review, or chosen and rejected."
        ),
    ],
    config: CompositionOption,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write the fitted composition to this YAML file, and a card beside it; with --next, the pairs.",
        ),
    ] = None,
    human: Annotated[
        str | None,
        typer.Option(help='The column of what people prefer: 1, 2, "tie", null, or a list of these, one an annotator.'),
    ] = None,
    measure: Annotated[
        str | None, typer.Option(help="Of a table of completions: the column of a number; more of it is better.")
    ] = None,
    rank: Annotated[
        str | None, typer.Option(help="Of a table of completions: the column of a place; the first is best.")
    ] = None,
    category: CategoryOption = None,
    signed: Annotated[bool, typer.Option("--signed", help="Let a weight change its sign; else it is 0 then.")] = False,
    next_count: Annotated[
        int | None,
        typer.Option(
            "--next", min=1, help="Choose so many pairs without a verdict that teach most, instead of fitting."
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw weights and agreement to this PNG file.")] = None,
    prompt_column: PromptOption = "prompt",
    completion_column: CompletionOption = "completion",
    split: SplitOption = None,
    subset: SubsetOption = None,
    as_json: AsJson = False,
    overrides: Annotated[list[str] | None, overriding("rewards.toxicity.weight=2")] = None,
) -> None:
    """Learn the weights of a composition from pairs that people judged.

    Shows each weight with its interval, what a reward adds to the others, and how often the composition agrees with people
    before and after, on prompts that it was not fitted to. With --next, chooses the pairs to ask people about.
    """
    from rlaif_sdk.config.overrides import overridden
    from rlaif_sdk.evaluation import VerdictColumns, fit_composition, next_pairs
    from rlaif_sdk.io.tables import TableSource, write_table

    columns = VerdictColumns(human, measure, rank, prompt_column, completion_column, category)
    tables = [TableSource(file, subset, split) for file in files]
    document = overridden(config, overrides or ())
    _check_output(output, config, composed=next_count is None)
    if next_count is not None:
        if output is None:
            raise typer.BadParameter("the pairs are written to a table: name it", param_hint="--output")
        if plot is not None or as_json:
            raise typer.BadParameter("pairs are chosen, and no fit is shown", param_hint="--plot, --json")
        with progress_bar("scoring") as progress:
            rows = next_pairs(document, tables, next_count, columns, signed=signed, progress=progress)
        write_table(rows, output)
        typer.echo(f"wrote {len(rows)} pairs to {output}, those first that teach most", err=True)
        return
    with progress_bar("scoring") as progress:
        found = fit_composition(document, tables, columns, signed=signed, progress=progress)
    _print(found, as_json=as_json)
    if output is not None:
        card = found.write(output)
        typer.echo(f"wrote {output} and {card.name}", err=True)
    if plot is not None:
        from rlaif_sdk.reporting.plots import plot_fit

        plot_fit(found, plot)
        typer.echo(f"wrote {plot}", err=True)
    if found.skipped:
        raise typer.Exit(ExitCode.ROWS_LEFT_OUT)


def _print(found: CompositionFit, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found.record(), indent=2, allow_nan=False))
    else:
        from rich.console import Console

        from rlaif_sdk.reporting.evaluation_tables import fit_tables

        for table in fit_tables(found):
            Console().print(table)
    for warning in found.warnings:
        typer.echo(f"warning: {warning}", err=True)
    for name, what in found.changed_normalizers.items():
        typer.echo(f"{name} is normalised by {what}", err=True)


def _check_output(output: Path | None, config: Path, *, composed: bool) -> None:
    """Refuse a place that the results must not be written to, before anything is scored."""
    from rlaif_sdk.io.tables import STANDARD_INPUT

    if output is None:
        return
    problem = None
    if str(output) == STANDARD_INPUT:
        problem = "a composition is written with its card: name a file" if composed else None
    elif composed and output.resolve().parent != config.resolve().parent:
        problem = f"paths in a composition are relative to its folder: write it into {config.parent}"
    if problem:
        raise typer.BadParameter(problem, param_hint="--output")
