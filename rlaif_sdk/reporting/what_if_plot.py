"""A plot of what another composition would have changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlaif_sdk.composer.whatif import WhatIf
from rlaif_sdk.reporting.drawing import drawing

_MOST_POINTS = 5000


def plot_what_if(result: WhatIf, file: Path, *, title: str) -> None:
    """Draw each row's advantage before and after, and the share of flipped signs over the steps.

    Args:
        result: What changes.
        file: The PNG to write.
        title: Stands above the panels.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with drawing(file, 11, 4.6) as figure:
        from matplotlib.ticker import MaxNLocator, PercentFormatter

        figure.suptitle(title)
        rows_axes, steps_axes = figure.subplots(1, 2)

        summary = result.summary()
        compared = np.flatnonzero(~np.isnan(result.advantages) & ~np.isnan(result.new_advantages))
        shown = compared[:: max(1, -(-len(compared) // _MOST_POINTS))]
        flipped = result.flipped[shown]
        for rows, colour, label in (
            (shown[~flipped], "tab:blue", "same direction, or no advantage"),
            (shown[flipped], "tab:red", f"sign flips: {summary['flipped']} of {summary['compared']}"),
        ):
            rows_axes.scatter(
                result.advantages[rows],
                result.new_advantages[rows],
                s=12,
                alpha=0.5,
                color=colour,
                label=label,
                linewidths=0,
            )
        rows_axes.axhline(0, color="0.6", linewidth=0.8)
        rows_axes.axvline(0, color="0.6", linewidth=0.8)
        rows_axes.axline((0, 0), slope=1, color="0.6", linewidth=0.8, linestyle="--")
        rows_axes.set_xlabel("advantage as recorded")
        rows_axes.set_ylabel("advantage under the other config")
        rows_axes.set_title("Each row", fontsize="medium")
        rows_axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)

        steps = result.steps()
        positions = [entry["step"] for entry in steps]
        shares = [entry["flipped_share"] for entry in steps]
        steps_axes.plot(positions, shares, marker=".", color="tab:red", clip_on=False)
        steps_axes.set_ylim(0, min(1.0, max(0.1, 1.2 * max(shares, default=0.0))))
        steps_axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        steps_axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        steps_axes.set_xlabel("optimiser step")
        steps_axes.set_title("Share of advantages whose sign flips", fontsize="medium")
        steps_axes.grid(alpha=0.3)
