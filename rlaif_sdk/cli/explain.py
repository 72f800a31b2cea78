"""``rlaif explain``: why one completion's reward is what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif_sdk.cli.options import AsJson, RunOption, SplitOption, SubsetOption, composition_option, table_argument
from rlaif_sdk.cli.score import CompletionOption, GroupOption, PromptOption

if TYPE_CHECKING:
    from rlaif_sdk.composer.explain import Explanation
    from rlaif_sdk.composer.tables import TableLayout
    from rlaif_sdk.io.tables import TableSource


def explain(
    file: Annotated[
        Path | None,
        table_argument(
            "The folder of a run, a table that rlaif score wrote, or a ledger; or with a composition a table to score now."
        ),
    ] = None,
    config: Annotated[
        Path | None, composition_option("The composition, for a table or a text that is scored now")
    ] = None,
    row: Annotated[int, typer.Option(min=1, help="The row of the run or of the table, from 1.")] = 1,
    number: RunOption = None,
    prompt: Annotated[str | None, typer.Option(help="A prompt, instead of FILE.")] = None,
    completion: Annotated[str | None, typer.Option(help="Its completion.")] = None,
    prompt_column: PromptOption = "prompt",
    completion_column: CompletionOption = "completion",
    group_column: GroupOption = None,
    split: SplitOption = None,
    subset: SubsetOption = None,
    as_json: AsJson = False,
) -> None:
    """Show how a completion's reward came about, step by step.

    Of a ledger it reads the number that was recorded, and scores nothing. Of a table it scores what `rlaif score` would
    have scored by then, so that the number is the same. Nothing is written.
    """
    from rich.console import Console

    from rlaif_sdk.composer.tables import TableLayout
    from rlaif_sdk.io.tables import TableSource

    if file is not None and config is None:
        found = _recorded(file, number, row)
    elif config is None:
        raise typer.BadParameter("give a ledger, or a composition with a FILE or with --prompt and --completion")
    elif file is not None:
        layout = TableLayout(prompt_column, completion_column, group_column)
        found = _scored(config, TableSource(file, subset, split), layout, row)
    elif prompt is None or completion is None:
        raise typer.BadParameter("give a FILE, or both --prompt and --completion")
    else:
        found = _text(config, prompt, completion)
    if as_json:
        typer.echo(json.dumps(found.record(), indent=2))
    else:
        Console().print(found)


def _recorded(path: Path, number: int | None, row: int) -> Explanation:
    """The explanation of a row of a recorded run, of which nothing is computed anew."""
    from dataclasses import replace

    from rlaif_sdk.composer.ledger import Ledger
    from rlaif_sdk.exceptions import DataError

    with Ledger.find(path) as ledger:
        run = ledger.run(number)
        place = row - 1
        for entry in ledger.batches(run):
            if place < len(entry.totals):
                explanation = entry.composition(run.rewards).explain(place)
                return replace(explanation, row=row, source=f"{run} ({ledger.path})")
            place -= len(entry.totals)
        raise DataError(f"{run}; row {row} is wanted", file=str(ledger.path), hint="--row counts from 1")


def _scored(config: Path, source: TableSource, layout: TableLayout, row: int) -> Explanation:
    """The explanation of a table's row, scored as `rlaif score` scores it."""
    from dataclasses import replace

    from rlaif_sdk.composer import Composer
    from rlaif_sdk.composer.tables import check_groups, score_records
    from rlaif_sdk.exceptions import DataError
    from rlaif_sdk.io.tables import read_rows

    table = list(read_rows(source))
    if row > len(table):
        raise DataError(f"has {len(table)} rows; row {row} is wanted", file=str(source), hint="--row counts from 1")
    columns = tuple({name: None for record in table for name in record})
    layout.check_group(columns, source.path)
    check_groups(table, layout, rows=1024, file=str(source))
    place = row - 1
    with Composer.from_config(config, read_only=True) as composer:
        for rows, composition in score_records(composer.compose, table, layout, columns=columns, file=str(source)):
            if place < len(rows):
                return replace(composition.explain(place), row=row, source=str(source))
            place -= len(rows)
    raise AssertionError("the rows were counted before")


def _text(config: Path, prompt: str, completion: str) -> Explanation:
    from dataclasses import replace

    from rlaif_sdk.composer import Composer
    from rlaif_sdk.types import RewardBatch

    with Composer.from_config(config, read_only=True) as composer:
        return replace(composer.compose(RewardBatch([prompt], [completion], group=[None])).explain(0), row=1)
