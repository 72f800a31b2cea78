"""Plots of a training run, as PNG files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaif_sdk.reporting.drawing import drawing


def plot_curves(
    history: Sequence[Mapping[str, Any]],
    panels: Mapping[str, Mapping[str, str]],
    file: Path,
    *,
    title: str,
    steps: str = "optimiser step",
) -> None:
    """Draw what a trainer logged over its steps, one panel a group of curves.

    Args:
        history: Mappings with ``step`` and the logged numbers; where one is missing or NaN its curve has a gap.
        panels: For each panel its title, and the keys of its curves with their labels. Panels without any number
            are left out.
        file: The PNG to write.
        title: Stands above the panels.
        steps: What a step is.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ValueError: There is nothing to draw.
    """
    drawn = {
        heading: {label: points for key, label in curves.items() if (points := _points(history, key))}
        for heading, curves in panels.items()
    }
    drawn = {heading: curves for heading, curves in drawn.items() if curves}
    if not drawn:
        raise ValueError("the history has none of the curves to draw")
    columns = min(2, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    with drawing(file, 5.5 * columns, 3.4 * rows) as figure:
        from matplotlib.ticker import MaxNLocator

        figure.suptitle(title)
        for index, (heading, curves) in enumerate(drawn.items(), start=1):
            axes = figure.add_subplot(rows, columns, index)
            for label, points in curves.items():
                axes.plot(*zip(*points, strict=True), marker=".", label=label)
            axes.set_title(heading, fontsize="medium")
            axes.set_xlabel(steps)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.3)
            if len(curves) > 1:
                axes.legend(fontsize="small")


def _points(history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    return [
        (entry["step"], math.nan if entry[key] is None else entry[key])
        for entry in history
        if key in entry and "step" in entry
    ]
