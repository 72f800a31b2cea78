"""``rlaif what-if``: what a recorded run would have been rewarded under another config."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif_sdk.cli.options import AsJson, LedgerArgument, RunsOption, config_option, overriding
from rlaif_sdk.io.files import without_nan

if TYPE_CHECKING:
    from rlaif_sdk.composer import WhatIf

_MOST_STEPS = 12


def what_if(
    run: LedgerArgument,
    config: Annotated[Path, config_option("The other composition")],
    runs: RunsOption = None,
    top: Annotated[int, typer.Option(min=0, help="How many of the rows that change most are shown.")] = 5,
    plot: Annotated[Path | None, typer.Option(help="Draw a plot to this PNG file.")] = None,
    overrides: Annotated[list[str] | None, overriding("rewards.toxicity.weight=2")] = None,
    as_json: AsJson = False,
) -> None:
    """Combine the recorded scores of a run under another config, without scoring again.

    Shows how many advantages change their sign, for which a policy would have been pushed the other way, and on which
    rows the advantage changes most. Advantages are those of GRPO; without groups each batch is whitened.
    """
    from rlaif_sdk.composer import what_if as replay
    from rlaif_sdk.composer.ledger import Ledger
    from rlaif_sdk.config.overrides import overridden

    with Ledger.find(run) as ledger:
        read = [ledger.run(number) for number in runs] if runs else [ledger.run()]
        result = replay(ledger, overridden(config, overrides or ()), runs=runs or None)
    if plot is not None:
        from rlaif_sdk.reporting.plots import plot_what_if

        plot_what_if(result, plot, title=f"{run.resolve().name} under {config.name}")
    if as_json:
        changes = {
            "summary": result.summary(),
            "steps": result.steps(),
            "most_changed": result.most_changed(top),
            "unrecorded": result.unrecorded,
        }
        typer.echo(json.dumps(without_nan(changes), indent=2))
        return
    for found in read:
        typer.echo(f"{found} ({run})")
    _print(result, top)
    if plot is not None:
        typer.echo(f"wrote {plot}")


def _print(result: WhatIf, top: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    steps = result.steps()
    table = Table(box=None, pad_edge=False)
    table.add_column("step")
    headings = ["rows", "compared", "flipped", "share", "to 0", "from 0", "lost", "gained"]
    if result.unrecorded:
        headings.append("unknown")
    for heading in (*headings, "rank corr."):
        table.add_column(heading, justify="right")
    shown = steps if len(steps) <= _MOST_STEPS else [*steps[: _MOST_STEPS // 2], *steps[-_MOST_STEPS // 2 :]]
    for index, entry in enumerate(shown if len(steps) > 1 else []):
        if len(shown) < len(steps) and index == _MOST_STEPS // 2:
            table.add_row("…")
        table.add_row(str(entry["step"]), *_cells(entry, result))
    table.add_row("all", *_cells(result.summary(), result), style="bold")
    console.print(table)
    most = result.most_changed(top)
    if most:
        console.print("\nAdvantages that change most:")
    for entry in most:
        flip = "  sign flips" if entry["flipped"] else ""
        console.print(
            Text(
                f"\nrow {entry['row']}, step {entry['step']}: "
                f"advantage {entry['advantage']:+.2f} -> {entry['new_advantage']:+.2f}, "
                f"total {entry['total']:.4g} -> {entry['new_total']:.4g}{flip}\n"
                f"  prompt:     {entry['prompt']}\n  completion: {entry['completion']}"
            )
        )


def _cells(numbers: dict[str, float | int], result: WhatIf) -> list[str]:
    counts = [str(numbers[key]) for key in ("rows", "compared", "flipped")]
    kinds = ("silenced", "awakened", "lost", "gained", *(["unknown"] if result.unrecorded else []))
    others = [str(numbers[key]) for key in kinds]
    correlation = numbers["rank_correlation"]
    shown = "-" if math.isnan(correlation) else f"{correlation:.3f}"
    return [*counts, f"{numbers['flipped_share']:.1%}", *others, shown]
