"""``rlaif score``: a table of completions in, the same table with composed rewards out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaif_sdk.cli.exits import CheckOption, end_check, interruptible, tell_left_out
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
    from rlaif_sdk.composer import Composition
    from rlaif_sdk.composer.tables import Summary, TableLayout
    from rlaif_sdk.config.documents import Document
    from rlaif_sdk.io.jsonl import Row
    from rlaif_sdk.io.tables import Survey, TableSource, Writer

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
    check: CheckOption = False,
) -> None:
    """Score a table of completions.

    Each row gets a column with the total and each reward's raw, normalised and weighted value, status and
    reason. A row without a total has null there, and is counted as unscored. With Ray the output is a folder
    of Parquet parts in the order of the rows, and a run that was stopped is resumed where it stopped.
    """
    from rlaif_sdk.composer.check import check_table
    from rlaif_sdk.composer.tables import TableLayout
    from rlaif_sdk.config.overrides import overridden
    from rlaif_sdk.io.tables import STANDARD_INPUT, TableSource, check_form, is_table_file

    layout = TableLayout(prompt_column, completion_column, group_column)
    source = TableSource(file, subset, split)
    asked = workers(engine, actors, actor_gpus, ray_address)
    to_stdout = str(output or file) == STANDARD_INPUT
    _check_options(limit, sample, overrides, group_column, with_ray=asked is not None)
    if output is None and not is_table_file(file) and not to_stdout:
        check_form(file)
        raise typer.BadParameter("is wanted for a folder and for a data set on the hub", param_hint="--output")
    how: dict[str, Any] = {
        "quiet": quiet,
        "layout": layout,
        "reward_column": reward_column,
        "chunk": chunk,
        "state": state,
    }
    if asked is not None and not check:
        _score_with_ray(source, config, output, workers=asked, batch_rows=batch_rows, **how)
        return
    output = output or _default_output(source)
    table = _checked(source, None if asked else output, layout, reward_column, chunk=chunk)
    rows = _chosen(source, table.rows, layout, limit=limit, sample=sample)
    composition = overridden(config, overrides or ())
    if check:
        records, total, named = rows
        end_check(lambda: check_table(composition, records, layout, columns=table.columns, rows=total, file=named))
    _score_here(rows, composition, output, columns=table.columns, to_stdout=to_stdout, **how)


def _score_here(
    chosen: tuple[Iterator[Row], int, str],
    composition: Document,
    output: Path,
    *,
    columns: Sequence[str],
    to_stdout: bool,
    quiet: bool,
    layout: TableLayout,
    reward_column: str,
    chunk: int,
    state: Path | None,
) -> None:
    """Score the chosen rows in this process, and write them."""
    from rlaif_sdk.composer import Composer
    from rlaif_sdk.composer.build import keeping_ledger
    from rlaif_sdk.composer.ledger import ledger_of
    from rlaif_sdk.composer.tables import Summary, score_records
    from rlaif_sdk.integrations.host import load_state

    records, total, named = chosen
    if not to_stdout:
        composition = keeping_ledger(composition, ledger_of(output))
    summary = Summary()
    kept: list[str] = []

    def what_is_left() -> str:
        ledger = ", ".join(kept) or "no ledger keeps their scores"
        return f"{summary.rows} of {total} rows were scored, {output} is not written, {ledger}"

    with (
        interruptible(what_is_left),
        _written(output) as writer,
        Composer.from_config(composition) as composer,
        progress_bar("scoring", quiet=quiet) as progress,
    ):
        if composer.ledger is not None and composer.kept:
            kept.append(f"{composer.ledger.path} keeps the scores of {' and '.join(composer.kept)}")
        if state is not None:
            composer.load_state_dict(load_state(state))
        composer.disarm()
        progress(0, total)
        scored = score_records(
            composer.compose, records, layout, columns=columns, chunk=chunk, training=state is None, file=named
        )
        for rows, composed in scored:
            for row, reward in zip(rows, _records(composed, output), strict=True):
                writer.write({**row, reward_column: reward})
            summary.add(composed)
            progress(summary.rows, max(summary.rows, total))
    print_summary(summary, err=to_stdout)
    typer.echo(f"wrote {'standard output' if to_stdout else output}", err=to_stdout)
    _end(summary, output)


def _checked(
    source: TableSource, output: Path | None, layout: TableLayout, reward_column: str, *, chunk: int
) -> Survey:
    """What is known of the table, which can be scored and written as far as its columns and groups go.

    Args:
        source: The table.
        output: What its rows are written to with their rewards; None with Ray.
        layout: Which columns are what.
        reward_column: The column that is added.
        chunk: About how many rows are scored at once.
    """
    from rlaif_sdk.composer.tables import check_groups
    from rlaif_sdk.exceptions import DataError
    from rlaif_sdk.io.tables import read_rows, survey

    table = survey(source, output=output)
    layout.check_group(table.columns, source.path)
    check_groups(read_rows(source), layout, rows=chunk, file=str(source))
    if reward_column in table.columns:
        problem = f"already has a column {reward_column!r}"
        raise DataError(problem, file=str(source), hint="choose another --reward-column")
    return table


def _records(composed: Composition, output: Path) -> Iterator[dict[str, Any]]:
    """What is written of each row; an object without keys has no type, and the whole column would be JSON text."""
    from rlaif_sdk.io.tables import has_types

    for reward in composed.to_records():
        empty = not reward["penalties"] and has_types(output)
        yield {**reward, "penalties": None} if empty else reward


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
    skips = any(moments.not_asked for moments in summary.columns.values())
    for name, moments in summary.columns.items():
        numbers = [f"{value:.4g}" for value in (moments.mean, moments.std, moments.low, moments.high)]
        shown = numbers if moments.count else ["-"] * 4
        is_total = name == "total"
        failed = str(summary.unscored) if is_total else str(moments.failed)
        skipped = ["" if is_total else str(moments.not_asked)] if skips else []
        rows.append((name, str(moments.count), failed, *skipped, *shown, "" if is_total else f"{moments.seconds:.2f}"))
    counts = ("scored", "failed", *(["not asked"] if skips else []))
    print_table(("reward", *counts, "mean", "std", "min", "max", "seconds"), rows, numbers=True, err=err)
    if notes := ends_notes(summary.ends):
        print_table((), [(note,) for note in notes], err=err)


def _end(summary: Summary, output: Path) -> None:
    """Say why each reward failed first, where the others can hide it, and whether rows are unscored."""
    rest = f"each row's status and reason are in {output}"
    told = summary.first_unscored and summary.first_unscored[0]
    for name, moments in summary.columns.items():
        if moments.first_failed and moments.first_failed[0] != told:
            row, why = moments.first_failed
            failed = f"{name} failed on {moments.failed} of {summary.rows} rows"
            typer.echo(f"{failed}; first: row {row}: {why}; {rest}", err=True)
    tell_left_out(summary.unscored, summary.rows, "rows are unscored", summary.first_unscored, rest)
