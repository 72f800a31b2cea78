"""Plots as PNG files, by matplotlib without a display: a run's curves, compositions compared, fitted or attacked, reliability."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlaif_sdk.exceptions import ConfigError, needs_extra
from rlaif_sdk.io.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rlaif_sdk.attacks import EditResult, RewardAttackReport
    from rlaif_sdk.composer.whatif import WhatIf
    from rlaif_sdk.evaluation import CompositionFit
    from rlaif_sdk.statistics.calibration import Calibration


@contextmanager
def drawing(file: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure to draw on, which is then written.

    Args:
        file: The PNG to write.
        width: In inches, of 120 pixels.
        height: Likewise.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ConfigError: It draws no such files.
    """
    with needs_extra("train"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), layout="constrained")
    form = Path(file).suffix.removeprefix(".")
    if form and form.lower() not in FigureCanvasAgg(figure).get_supported_filetypes():
        raise ConfigError(f"{file}: {form!r} is no form of plot", hint="name a file that ends in .png")
    yield figure
    with atomic_path(file) as partial:
        figure.savefig(partial, dpi=120, format=form or None)


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


def plot_fit(found: CompositionFit, file: Path) -> None:
    """Draw the weights of a fitted composition with their intervals, and how everything agrees with people.

    Args:
        found: The fit. An interval that is open ends at the edge of the panel.
        file: The PNG to write.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with drawing(file, 11, 0.4 * len(found.agreement) + 2) as figure:
        from matplotlib.ticker import PercentFormatter

        weights_axes, agreement_axes = figure.subplots(1, 2)
        names = [*found.weights]
        estimates = [each.estimate for each in found.weights.values()]
        finite = [end for each in estimates for end in (each.low, each.high, each.value) if math.isfinite(end)]
        left, right = min(0.0, *finite), max(0.0, *finite)
        margin = 0.08 * ((right - left) or 1.0)
        left, right = left - margin, right + margin
        for place, each in enumerate(estimates):
            weights_axes.plot([max(each.low, left), min(each.high, right)], [place, place], color="tab:blue")
            weights_axes.plot(each.value, place, marker="o", color="tab:blue")
        weights_axes.axvline(0, color="0.6", linewidth=0.8)
        weights_axes.set_xlim(left, right)
        weights_axes.set_yticks(range(len(names)), names)
        weights_axes.invert_yaxis()
        weights_axes.set_xlabel("log-odds a unit of the normalised score")
        weights_axes.set_title(f"Weights, fitted to {found.pairs} pairs", fontsize="medium")

        for place, (what, agreement) in enumerate(found.agreement.items()):
            colour = "tab:red" if what == "fitted" else "tab:blue" if what in found.weights else "0.4"
            accuracy = agreement.accuracy
            agreement_axes.plot([accuracy.low, accuracy.high], [place, place], color=colour)
            agreement_axes.plot(accuracy.value, place, marker="o", color=colour)
        agreement_axes.axvline(0.5, color="0.6", linewidth=0.8)
        agreement_axes.set_yticks(range(len(found.agreement)), [*found.agreement])
        agreement_axes.invert_yaxis()
        agreement_axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        agreement_axes.set_title("Agreement with people on held-out prompts", fontsize="medium")
        for axes in (weights_axes, agreement_axes):
            axes.grid(alpha=0.3, axis="x")


def plot_reward_attack(found: RewardAttackReport, file: Path) -> None:
    """Draw for each edit what the total gains and what the witness gains, at the level with the widest gap.

    Args:
        found: What `rlaif_sdk.attacks.attack_rewards` found.
        file: The PNG to write.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    widest: dict[str, EditResult] = {}
    for result in found.results:
        widest.setdefault(result.chain[0][0] if len(result.chain) == 1 else "chain", result)
    drawn = [result for result in widest.values() if not math.isnan(result.gap.value)]
    overpaid = {finding.result.name for finding in found.findings}
    with drawing(file, 9, 0.32 * len(drawn) + 1.6) as figure:
        axes = figure.subplots()
        for place, result in enumerate(drawn):
            gains = [("total", result.total, -0.13, "tab:red" if result.name in overpaid else "0.35")]
            if result.witness is not None:
                gains.append(("witness", result.witness, 0.13, "tab:blue"))
            for name, gain, shift, colour in gains:
                if math.isfinite(gain.low):
                    axes.plot([gain.low, gain.high], [place + shift] * 2, color=colour, linewidth=1.2)
                axes.plot(gain.value, place + shift, marker="o" if name == "total" else "s", color=colour, markersize=4)
        for label, marker, colour in (
            ("total of an overpaid edit", "o", "tab:red"),
            ("total", "o", "0.35"),
            *([("witness", "s", "tab:blue")] if found.witness else []),
        ):
            axes.plot([], [], linestyle="", marker=marker, color=colour, label=label)
        axes.axvline(0, color="0.6", linewidth=0.8)
        axes.set_yticks(range(len(drawn)), [result.name for result in drawn])
        axes.invert_yaxis()
        axes.set_xscale("symlog", linthresh=1)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel(f"gain in standard deviations of {found.unit}")
        axes.grid(alpha=0.3, axis="x")
        axes.legend(fontsize="small", loc="lower right")


def plot_reliability(calibration: Calibration, file: Path) -> None:
    """Draw accuracy over confidence, a point a bin; on the diagonal the two are equal.

    Args:
        calibration: What an evaluation found.
        file: The PNG to write.

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
        axes.set_title(f"Reliability (error {calibration.error:.3f}, {calibration.pairs} pairs)", fontsize="medium")
        axes.set_xlabel("confidence of the model in the completion that it favours")
        axes.set_ylabel("probability that the label gives to it")
        axes.set_xlim(0.48, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
