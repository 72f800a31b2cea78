"""``rlaif score``: a table of completions in, the same table with composed rewards out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaif_sdk.cli.exits import ExitCode, interruptible
from rlaif_sdk.cli.options import (
    ActorGpusOption,
    ActorsOption,
    CompositionOption,
    Engine,
    EngineOption,
    RayAddressOption,
    SplitOption,
    SubsetOption,
    table_argument,
    workers,
)
from rlaif_sdk.cli.output import print_table, progress_bar

if TYPE_CHECKING:
    from rlaif_sdk.composer.tables import Summary
    from rlaif_sdk.io.tables import TableSource, Writer

FileArgument = Annotated[
    Path,
    table_argument(
        "A table with a prompt and a completion a row: .jsonl, .json, .csv, .parquet or .arrow, or a folder of such "
        "parts; - for standard input; the name of a data set on the hub, with --split."
    ),
]
PromptOption = Annotated[str, typer.Option(help="The column of prompts.")]
CompletionOption = Annotated[str, typer.Option(help="The column of completions.")]
GroupOption = Annotated[str | None, typer.Option(help="The column that groups completions to the same prompt.")]


def score(
    file: FileArgument,
    config: CompositionOption,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Where to write; default: FILE with .scored before its suffix. With Ray, a folder."
        ),
    ] = None,
    prompt_column: PromptOption = "prompt",
    completion_column: CompletionOption = "completion",
    group_column: GroupOption = None,
    split: SplitOption = None,
    subset: SubsetOption = None,
    reward_column: Annotated[str, typer.Option(help="The column to write; no row may have it already.")] = "reward",
    chunk: Annotated[int, typer.Option(min=1, help="About how many rows are scored at once.")] = 1024,
    state: Annotated[
        Path | None, typer.Option(help="A composer's saved state (JSON); its running statistics are then frozen.")
    ] = None,
    engine: EngineOption = Engine.local,
    batch_rows: Annotated[
        int, typer.Option(min=1, help="With Ray: rows in a part, which is done again if its worker dies.")
    ] = 5000,
    actors: ActorsOption = None,
    actor_gpus: ActorGpusOption = 0.0,
    ray_address: RayAddressOption = None,
) -> None:
    """Score a table of completions.

    Each row gets a column with the total and each reward's raw, normalised and weighted value, status and
    reason. A row without a total has null there, and is counted as unscored. With Ray the output is a folder
    of Parquet parts in the order of the rows, and a run that was stopped is resumed where it stopped.
    """
    from rlaif_sdk.composer import Composer
    from rlaif_sdk.composer.tables import Summary, TableLayout, check_groups, score_records
    from rlaif_sdk.exceptions import DataError
    from rlaif_sdk.integrations.host import load_state
    from rlaif_sdk.io.tables import TableSource, has_types, is_table_file, read_rows, survey

    layout = TableLayout(prompt_column, completion_column, group_column)
    source = TableSource(file, subset, split)
    asked = workers(engine, actors, actor_gpus, ray_address)
    if output is None and not is_table_file(file):
        raise typer.BadParameter("name where to write: --output", param_hint="--output")
    if asked is not None:
        how = {"layout": layout, "reward_column": reward_column, "batch_rows": batch_rows, "chunk": chunk}
        _score_with_ray(source, config, output, workers=asked, state=state, **how)
        return
    output = output or file.with_name(f"{source.name}.scored{file.name.removeprefix(source.name)}")
    if output.resolve() == file.resolve():
        raise typer.BadParameter("the output would overwrite the input", param_hint="--output")
    table = survey(source, output=output)
    layout.check_group(table.columns, file)
    check_groups(read_rows(source), layout, rows=chunk, file=str(source))
    without_empty = has_types(output)  # an object without keys has no type: the whole column would be JSON text
    if reward_column in table.columns:
        problem = f"already has a column {reward_column!r}"
        raise DataError(problem, file=str(source), hint="choose another --reward-column")
    summary = Summary()
    has_ledger = False

    def what_is_left() -> str:
        kept = "what a ledger of the composition has is not scored again" if has_ledger else "nothing is kept"
        return f"{summary.rows} of {table.rows} rows were scored, {output} is not written, {kept}"

    with (
        interruptible(what_is_left),
        Composer.from_config(config) as composer,
        progress_bar("scoring") as progress,
    ):
        has_ledger = composer.ledger is not None
        if state is not None:
            composer.load_state_dict(load_state(state))
        done = 0
        progress(done, table.rows)
        with _written(output) as writer:
            for rows, composition in score_records(
                composer,
                read_rows(source),
                layout,
                columns=table.columns,
                chunk=chunk,
                training=state is None,
                file=str(source),
            ):
                for row, reward in zip(rows, composition.records(), strict=True):
                    if without_empty and not reward["penalties"]:
                        reward["penalties"] = None
                    writer.write({**row, reward_column: reward})
                summary.add(composition)
                done += len(rows)
                progress(done, table.rows)
    print_summary(summary)
    typer.echo(f"wrote {output}")
    _end(summary, output)


def _score_with_ray(source: TableSource, config: Path, output: Path | None, **how: Any) -> None:
    from rlaif_sdk.io.tables import is_table_file
    from rlaif_sdk.scale import score_table

    folder = output or source.path.with_name(f"{source.name}.scored")
    if is_table_file(folder):
        raise typer.BadParameter("with --engine ray the output is a folder", param_hint="--output")
    with interruptible(lambda: f"the finished parts are in {folder}"), progress_bar("scoring") as progress:
        result = score_table(source, config, folder, progress=progress, **how)
    print_summary(result.summary)
    if result.resumed:
        typer.echo(f"{result.resumed} of {result.shards} parts were there before")
    typer.echo(f"wrote {result.output}")
    _end(result.summary, result.output)


@contextmanager
def _written(output: Path) -> Iterator[Writer]:
    """`write_rows`, which says in a line that the disk is full or the file cannot be begun; all else is not its doing."""
    from rlaif_sdk.exceptions import DataError, RlaifError
    from rlaif_sdk.io.files import refusal
    from rlaif_sdk.io.tables import write_rows

    begun = False
    try:
        with write_rows(output) as writer:
            begun = True
            yield writer
    except RlaifError:  # a ledger's is an OSError too
        raise
    except OSError as error:
        told = refusal(error, output)
        if told is None:
            if begun:
                raise
            told = DataError(f"cannot be written: {error.strerror}", file=str(output), hint="name another --output")
        for note in getattr(error, "__notes__", ()):
            told.add_note(note)
        raise told from error


def print_summary(summary: Summary) -> None:
    """Print a table of every reward and the total."""
    rows = []
    for name, moments in summary.columns.items():
        numbers = [f"{value:.4g}" for value in (moments.mean, moments.std, moments.low, moments.high)]
        shown = numbers if moments.count else ["-"] * 4
        is_total = name == "total"
        failed = str(summary.unscored) if is_total else str(moments.failed)
        rows.append((name, str(moments.count), failed, *shown, "" if is_total else f"{moments.seconds:.2f}"))
    print_table(("reward", "scored", "failed", "mean", "std", "min", "max", "seconds"), rows, numbers=True)


def _end(summary: Summary, output: Path) -> None:
    """Say how many rows are unscored, and why the first is.

    Raises:
        typer.Exit: Some are; with `ExitCode.ROWS_LEFT_OUT`.
    """
    if summary.unscored:
        why = f"; first: {summary.first_unscored}" if summary.first_unscored else ""
        rest = f"each row's status and reason are in {output}"
        typer.echo(f"{summary.unscored} of {summary.rows} rows are unscored{why}; {rest}", err=True)
        raise typer.Exit(ExitCode.ROWS_LEFT_OUT)
