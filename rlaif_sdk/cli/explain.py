"""``rlaif explain``: why one completion's reward is what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlaif_sdk.cli.options import CompositionOption, SplitOption, SubsetOption, table_argument
from rlaif_sdk.cli.score import CompletionOption, GroupOption, PromptOption


def explain(
    config: CompositionOption,
    file: Annotated[Path | None, table_argument("A table, as rlaif score takes it; without it give the texts.")] = None,
    row: Annotated[int, typer.Option(min=1, help="The row of FILE, from 1.")] = 1,
    prompt: Annotated[str | None, typer.Option(help="A prompt, instead of FILE.")] = None,
    completion: Annotated[str | None, typer.Option(help="Its completion.")] = None,
    prompt_column: PromptOption = "prompt",
    completion_column: CompletionOption = "completion",
    group_column: GroupOption = None,
    split: SplitOption = None,
    subset: SubsetOption = None,
) -> None:
    """Show how a completion's reward comes about, step by step.

    With a group column, the whole group of the row is scored, so that normalisation within the group is right.
    """
    from dataclasses import replace

    from rich.console import Console

    from rlaif_sdk.composer import Composer
    from rlaif_sdk.composer.tables import TableLayout, as_batch
    from rlaif_sdk.exceptions import DataError
    from rlaif_sdk.io.tables import TableSource, read_rows

    columns: tuple[str, ...] = ()
    source = None if file is None else TableSource(file, subset, split)
    layout = TableLayout(prompt_column, completion_column, group_column)
    if source is None:
        if prompt is None or completion is None:
            raise typer.BadParameter("give a FILE, or both --prompt and --completion")
        layout = TableLayout()
        records, wanted, first_row = [{"prompt": prompt, "completion": completion}], 0, 1
    else:
        table = list(read_rows(source))
        if row > len(table):
            raise DataError(f"has {len(table)} rows; row {row} is wanted", file=str(source), hint="--row counts from 1")
        members = [index for index, record in enumerate(table) if layout.of_one_group(table[row - 1], record)]
        members = members or [row - 1]
        records, wanted, first_row = [table[index] for index in members], members.index(row - 1), row
        columns = tuple({name: None for record in table for name in record})
    with Composer.from_config(config) as composer:
        composition = composer.compose(
            as_batch(
                records, layout, columns=columns, first_row=first_row, file=None if source is None else str(source)
            )
        )
    Console().print(replace(composition.explain(wanted), row=row))
