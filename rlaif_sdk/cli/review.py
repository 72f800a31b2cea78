"""``rlaif review``: people look at the pairs that a judge has labelled, on a local page."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif_sdk.cli.options import COMPOSITION, SplitOption, SubsetOption, table_argument
from rlaif_sdk.cli.output import print_table, progress_bar

if TYPE_CHECKING:
    from rlaif_sdk.preferences.review import Agreement, ReviewStore


class Rows(StrEnum):
    """Which pairs an export holds."""

    ALL = "all"
    REVIEWED = "reviewed"


class Ties(StrEnum):
    """What becomes of ties."""

    KEEP = "keep"
    DROP = "drop"


def review(
    files: Annotated[list[Path], table_argument("Labels of one or several judges, a table each.")],
    split: SplitOption = None,
    subset: SubsetOption = None,
    store: Annotated[
        Path | None, typer.Option(help="The file of the verdicts; by default FILE.review.sqlite beside the first.")
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write the labels after review to this file, and end.")] = None,
    agreement: Annotated[bool, typer.Option("--agreement", help="Print how people and judges agree, and end.")] = False,
    human_weight: Annotated[
        float, typer.Option(help="In exports: 1 gives people precedence; less mixes in the judge's label.")
    ] = 1.0,
    rows: Annotated[Rows, typer.Option(help="In exports: all pairs, or only the reviewed ones.")] = Rows.ALL,
    ties: Annotated[Ties, typer.Option(help="In exports: keep ties with 0.5, or drop them.")] = Ties.KEEP,
    overlap: Annotated[int, typer.Option(help="Give each pair to so many reviewers.")] = 1,
    audit: Annotated[float, typer.Option(help="Share of pairs reviewed as a random sample beside the queue.")] = 0.1,
    fit: Annotated[
        Path | None,
        typer.Option(
            metavar=COMPOSITION,
            help="Ask first about the pairs that teach most of the weights of this composition, fitted anew as verdicts come.",
        ),
    ] = None,
    blind: Annotated[bool, typer.Option("--blind", help="Show the judge's label only after the verdict.")] = False,
    lease: Annotated[float, typer.Option(help="Minutes that a pair is kept for the reviewer who has it.")] = 15.0,
    host: Annotated[str, typer.Option(help="Listen at this address; by default only this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Listen at this port; 0 takes a free one.")] = 8300,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Review labelled pairs on a local page, the doubtful ones first.

    Verdicts are kept at once, in a file of their own; the labels' file stays as it is.
    """
    from rlaif_sdk.io.addresses import is_loopback
    from rlaif_sdk.io.tables import TableSource
    from rlaif_sdk.preferences.review import ExportOptions, ReviewStore, export_review, serve_review

    options = ExportOptions(human_weight, rows.value, ties.value)
    tables = [TableSource(file, subset, split) for file in files]
    path = store or files[0].with_name(f"{tables[0].name}.review.sqlite")
    opened = ReviewStore(path, overlap=overlap, audit=audit, lease_seconds=60 * lease)
    pairs = opened.add(tables)
    if export is not None:
        written = export_review(opened, export, options, inputs=tables)
        typer.echo(f"wrote {written} rows to {export}")
    if agreement:
        _print_agreement(opened)
    if export is not None or agreement:
        return
    if fit is not None:
        from rlaif_sdk.evaluation import review_by_information

        with progress_bar("scoring") as progress:
            review_by_information(opened, fit, progress=progress, told=_print_weights)
    if not is_loopback(host):
        typer.echo("the page is served unencrypted: whoever sees the traffic sees the token and the texts", err=True)

    def ready(address: str) -> None:
        typer.echo(f"{pairs} pairs; verdicts go to {path}\n{address}\nStop with Ctrl-C.")
        if browser:
            typer.launch(address)

    serve_review(opened, host=host, port=port, blind=blind, options=options, ready=ready)


def _print_weights(judged: int, weights: Mapping[str, tuple[float, float]]) -> None:
    shown = ", ".join(f"{name} {weight:.2f} ± {deviation:.2f}" for name, (weight, deviation) in weights.items())
    typer.echo(f"after {judged} pairs: {shown}", err=True)


def _print_agreement(store: ReviewStore) -> None:
    from rlaif_sdk.preferences.review import review_estimates

    estimates = review_estimates(store)
    progress = store.progress()
    rows: list[tuple[str, ...]] = [
        ("judge and people", *_cells(estimates.ai)),
        ("judge and people, random sample", *_cells(estimates.ai_audit)),
    ]
    for name, found in estimates.ai_by_reviewer.items():
        share = estimates.left_share.get(name)
        rows.append((f"judge and {name}", *_cells(found), "" if share is None else f"{share:.2f}"))
    rows += [(f"{one} and {other}", *_cells(found)) for (one, other), found in estimates.reviewers.items()]
    typer.echo(f"{progress.judged} of {progress.pairs} pairs judged, {progress.verdicts} verdicts")
    print_table(("who", "pairs", "accuracy", "Cohen's kappa", "symmetric", "chose left"), rows, numbers=True)


def _cells(found: Agreement) -> tuple[str, ...]:
    from rlaif_sdk.reporting.evaluation_tables import shown

    shares = (found.accuracy, found.kappa, found.symmetric_kappa)
    return str(found.items), *(shown(each, digits=2) for each in shares)
