"""How far a model's confidence in preferences can be relied on: a table and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from rlaif_sdk.reporting.drawing import drawing

if TYPE_CHECKING:
    from rlaif_sdk.training.calibration import Calibration


def reliability_table(calibration: Calibration, *, title: str = "Reliability") -> Table:
    """One row a bin of confidence that holds any pairs; the calibration error stands below.

    Args:
        calibration: What an evaluation found.
        title: Stands above the table.
    """
    caption = f"expected calibration error {calibration.error:.3f} over {len(calibration.bins)} bins"
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for heading in ("confidence", "pairs", "mean confidence", "accuracy"):
        table.add_column(heading, justify="right")
    for part in calibration.bins:
        if part.pairs:
            interval = f"{part.low:.2f} to {part.high:.2f}"
            table.add_row(interval, str(part.pairs), f"{part.confidence:.3f}", f"{part.accuracy:.3f}")
    return table


def plot_reliability(calibration: Calibration, file: Path, *, title: str = "Reliability") -> None:
    """Draw accuracy over confidence, a point a bin; on the diagonal the two are equal.

    Args:
        calibration: What an evaluation found.
        file: The PNG to write.
        title: Stands above the plot.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    filled = [part for part in calibration.bins if part.pairs]
    most = max(part.pairs for part in filled)
    with drawing(file, 5, 5) as figure:
        axes = figure.add_subplot()
        axes.plot([0.5, 1], [0.5, 1], color="grey", linestyle="--", label="accuracy = confidence")
        confidences, accuracies = [part.confidence for part in filled], [part.accuracy for part in filled]
        axes.plot(confidences, accuracies, color="C0")
        axes.scatter(confidences, accuracies, s=[20 + 180 * part.pairs / most for part in filled], color="C0")
        axes.set_title(f"{title} (error {calibration.error:.3f}, {calibration.pairs} pairs)", fontsize="medium")
        axes.set_xlabel("confidence of the model in the completion that it favours")
        axes.set_ylabel("probability that the label gives to it")
        axes.set_xlim(0.48, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
