"""The report of a sweep: a table on the terminal, and the frontier as a plot."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.reporting.live_view import reporter
from rlaif_sdk.reporting.plots import drawing
from rlaif_sdk.reporting.tables import text_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from rlaif_sdk.training.sweep import Sweep, SweepResult

PLOT_FILE = "frontier.png"


def watch_sweep(sweep: Sweep, console: Console) -> SweepResult:
    """`rlaif_sdk.training.sweep.run_sweep`, followed by `report_sweep`.

    Args:
        sweep: The loaded sweep.
        console: Where to print.

    Raises:
        RlaifError: As `run_sweep`.
    """
    from rlaif_sdk.training.sweep import run_sweep

    result = run_sweep(sweep, report=reporter(console))
    report_sweep(result, sweep.output, console)
    return result


def report_sweep(result: SweepResult, folder: Path, console: Console) -> None:
    """Print every point, and draw the frontier where there are two objectives or more.

    Args:
        result: What came of the sweep.
        folder: Where the plot goes.
        console: Where to print.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    say = reporter(console)
    console.print(sweep_table(result))
    volume, reference = result.hypervolume()
    if not math.isnan(volume):
        place = ", ".join(f"{name} {value:.4g}" for name, value in reference.items())
        say(f"Hypervolume {volume:.4g}, measured from {place}")
    if len(result.objectives) > 1:
        plot_frontier(result, folder / PLOT_FILE)
    say(f"Everything is in {folder}")


def sweep_table(result: SweepResult) -> Table:
    """The points, those of the frontier marked; the numbers are means over the seeds with 95% half-widths."""
    seeds = len(result.seeds)
    spread = f"mean ± 95% interval over {seeds} seeds" if seeds > 1 else "of one seed"
    headings, *rows = sweep_rows(result)
    table = text_table(headings, rows, title=f"Held-out rewards, {spread}; * is on the frontier", words=(0, 1))
    table.columns[1].overflow = "fold"
    for other in table.columns[2 + len(result.objectives) :]:
        other.style = "dim"
    return table


def sweep_rows(result: SweepResult) -> Iterator[tuple[str, ...]]:
    """The headings, and a row a point: whether it is on the frontier, its weights, the objectives and other rewards."""
    others = [name for name in result.points[0].by_seed if name not in result.objectives]
    objectives = (name if higher else f"{name} (lower is better)" for name, higher in result.objectives.items())
    yield ("", "weights", *objectives, *others)
    for point, on in zip(result.points, result.frontier, strict=True):
        intervals = (_interval(*point.interval(name)) for name in (*result.objectives, *others))
        yield ("*" if on else "", point.label, *intervals)


def plot_frontier(result: SweepResult, file: Path) -> None:
    """Draw every pair of objectives, with intervals over the seeds; the frontier of all objectives is marked.

    Args:
        result: What came of the sweep.
        file: The PNG to write.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    pairs = list(itertools.combinations(result.objectives, 2))
    with drawing(file, 5.5 * len(pairs), 4.2) as figure:
        for index, (across, up) in enumerate(pairs, start=1):
            _draw(figure.add_subplot(1, len(pairs), index), result, across, up)


def _draw(axes: Any, result: SweepResult, across: str, up: str) -> None:
    on = result.frontier
    for is_on, colour, label in ((False, "0.6", "dominated"), (True, "C0", "frontier")):
        points = [point for point, flag in zip(result.points, on, strict=True) if flag is is_on]
        if not points:
            continue
        (x, x_half), (y, y_half) = (
            zip(*(point.interval(name) for point in points), strict=True) for name in (across, up)
        )
        bars = {"xerr": _bars(x_half), "yerr": _bars(y_half)}
        axes.errorbar(x, y, fmt="o", color=colour, ecolor=colour, elinewidth=0.8, label=label, **bars)
        for point, left, top in zip(points, x, y, strict=True):
            if is_on and not math.isnan(left + top):
                axes.annotate(point.label, (left, top), xytext=(4, 4), textcoords="offset points", fontsize="x-small")
    if len(result.objectives) == 2:
        steps = sorted(
            (point.interval(across)[0], point.interval(up)[0])
            for point, flag in zip(result.points, on, strict=True)
            if flag
        )
        where = "pre" if result.objectives[across] else "post"
        axes.step(*zip(*steps, strict=True), where=where, color="C0", linewidth=0.8, alpha=0.6)
    for name, label in ((across, axes.set_xlabel), (up, axes.set_ylabel)):
        label(name if result.objectives[name] else f"{name} (lower is better)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _bars(halves: Any) -> Any:
    return None if all(math.isnan(half) for half in halves) else list(halves)


def _interval(mean: float, half: float) -> str:
    if math.isnan(mean):
        return "unscored"
    return f"{mean:.3f}" if math.isnan(half) else f"{mean:.3f} ± {half:.3f}"
