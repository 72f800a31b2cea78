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
    QuietOption,
    RayAddressOption,
    SplitOption,
    SubsetOption,
    overriding,
    table_argument,
    workers,
)
from rlaif_sdk.cli.output import print_table, progress_bar

if TYPE_CHECKING:
    from rlaif_sdk.composer.tables import Summary, TableLayout
    from rlaif_sdk.io.jsonl import Row
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
    overrides: Annotated[list[str] | None, overriding("rewards.toxicity.weight=2")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Where to write; - for standard output (JSONL), the default of standard input; else FILE with .scored "
            "before its suffix. With Ray, a folder.",
        ),
    ] = None,
    prompt_column: PromptOption = "prompt",
    completion_column: CompletionOption = "completion",
    group_column: GroupOption = None,
    split: SplitOption = None,
    subset: SubsetOption = None,
    reward_column: Annotated[str, typer.Option(help="The column to write; no row may have it already.")] = "reward",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Score the first N rows; with groups, the last group is whole.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Score N rows drawn at random, the same ones each time.")
    ] = None,
    quiet: QuietOption = False,
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
    from rlaif_sdk.config.overrides import overridden
    from rlaif_sdk.exceptions import DataError
    from rlaif_sdk.integrations.host import load_state
    from rlaif_sdk.io.tables import STANDARD_INPUT, TableSource, has_types, is_table_file, read_rows, survey

    layout = TableLayout(prompt_column, completion_column, group_column)
    source = TableSource(file, subset, split)
    asked = workers(engine, actors, actor_gpus, ray_address)
    to_stdout = str(output or file) == STANDARD_INPUT
    _check_options(limit, sample, overrides, group_column, with_ray=asked is not None)
    if output is None and not is_table_file(file) and not to_stdout:
        raise typer.BadParameter("name where to write: --output", param_hint="--output")
    if asked is not None:
        how: dict[str, Any] = {
            "quiet": quiet,
            "layout": layout,
            "reward_column": reward_column,
            "batch_rows": batch_rows,
            "chunk": chunk,
        }
        _score_with_ray(source, config, output, workers=asked, state=state, **how)
        return
    output = output or _default_output(source)
    if output.resolve() == file.resolve() and not to_stdout:
        raise typer.BadParameter("the output would overwrite the input", param_hint="--output")
    table = survey(source, output=output)
    layout.check_group(table.columns, file)
    check_groups(read_rows(source), layout, rows=chunk, file=str(source))
    chosen, total, named = _chosen(source, table.rows, layout, limit=limit, sample=sample)
    without_empty = has_types(output)  # an object without keys has no type: the whole column would be JSON text
    if reward_column in table.columns:
        problem = f"already has a column {reward_column!r}"
        raise DataError(problem, file=str(source), hint="choose another --reward-column")
    summary = Summary()
    has_ledger = False

    def what_is_left() -> str:
        kept = (
            "what a ledger of the composition has is not scored again" if has_ledger else "no ledger keeps their scores"
        )
        return f"{summary.rows} of {total} rows were scored, {output} is not written, {kept}"

    with (
        interruptible(what_is_left),
        Composer.from_config(overridden(config, overrides or ())) as composer,
        progress_bar("scoring", quiet=quiet) as progress,
    ):
        has_ledger = composer.ledger is not None
        if state is not None:
            composer.load_state_dict(load_state(state))
        done = 0
        progress(done, total)
        with _written(output) as writer:
            for rows, composition in score_records(
                composer,
                chosen,
                layout,
                columns=table.columns,
                chunk=chunk,
                training=state is None,
                file=named,
            ):
                for row, reward in zip(rows, composition.to_records(), strict=True):
                    if without_empty and not reward["penalties"]:
                        reward["penalties"] = None
                    writer.write({**row, reward_column: reward})
                summary.add(composition)
                done += len(rows)
                progress(done, max(done, total))
    print_summary(summary, err=to_stdout)
    typer.echo(f"wrote {'standard output' if to_stdout else output}", err=to_stdout)
    _end(summary, output)


def _check_options(
    limit: int | None, sample: int | None, overrides: list[str] | None, group: str | None, *, with_ray: bool
) -> None:
    if sample is not None and (limit is not None or group is not None):
        raise typer.BadParameter("draws single rows: leave out --limit and --group-column", param_hint="--sample")
    if with_ray and (overrides or limit is not None or sample is not None):
        raise typer.BadParameter("--set, --limit and --sample need --engine local")


def _default_output(source: TableSource) -> Path:
    """The table with ``.scored`` before its suffix, or standard output for standard input."""
    path = source.path
    return path if str(path) == "-" else path.with_name(f"{source.name}.scored{path.name.removeprefix(source.name)}")


def _chosen(
    source: TableSource, rows: int, layout: TableLayout, *, limit: int | None, sample: int | None
) -> tuple[Iterator[Row], int, str]:
    """The rows to score, about how many, and what they are called in errors."""
    from rlaif_sdk.composer.tables import first_rows, sampled_rows
    from rlaif_sdk.io.tables import read_rows

    if limit is not None:
        return first_rows(read_rows(source), layout, limit), min(limit, rows), str(source)
    if sample is not None:
        count = min(sample, rows)
        return sampled_rows(read_rows(source), rows, count), count, f"{source} (the sample of {count})"
    return read_rows(source), rows, str(source)


def _score_with_ray(source: TableSource, config: Path, output: Path | None, *, quiet: bool, **how: Any) -> None:
    from rlaif_sdk.io.tables import is_table_file
    from rlaif_sdk.scale import score_table

    folder = output or source.path.with_name(f"{source.name}.scored")
    if is_table_file(folder):
        raise typer.BadParameter("with --engine ray the output is a folder", param_hint="--output")
    finished = interruptible(lambda: f"the finished parts are in {folder}")
    with finished, progress_bar("scoring", quiet=quiet) as progress:
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


def print_summary(summary: Summary, *, err: bool = False) -> None:
    """Print a table of every reward and the total, and what the ends of the rewards mean."""
    from rlaif_sdk.composer.layout import ends_notes

    rows = []
    for name, moments in summary.columns.items():
        numbers = [f"{value:.4g}" for value in (moments.mean, moments.std, moments.low, moments.high)]
        shown = numbers if moments.count else ["-"] * 4
        is_total = name == "total"
        failed = str(summary.unscored) if is_total else str(moments.failed)
        rows.append((name, str(moments.count), failed, *shown, "" if is_total else f"{moments.seconds:.2f}"))
    print_table(("reward", "scored", "failed", "mean", "std", "min", "max", "seconds"), rows, numbers=True, err=err)
    if notes := ends_notes(summary.ends):
        print_table((), [(note,) for note in notes], err=err)


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
