"""The report of a run on preference pairs: tables on the terminal, ``metrics.json`` and plots in its folder."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rlaif_sdk.io.files import without_nan, write_json
from rlaif_sdk.reporting.live_view import console_of_the_first, live_view, print_location
from rlaif_sdk.reporting.plots import plot_curves, plot_reliability
from rlaif_sdk.reporting.runs import METRICS_FILE
from rlaif_sdk.reporting.tables import before_after_table, reliability_table
from rlaif_sdk.training.methods import get_method, train

if TYPE_CHECKING:
    from rich.console import Console

    from rlaif_sdk.training.config import Run
    from rlaif_sdk.training.preferences import PreferenceResult

PANELS = {
    "loss (nats a pair)": {"loss": "loss"},
    "agreement with the labels": {"agreement": "agreement"},
    "implicit reward (nats)": {"rewards/chosen": "chosen", "rewards/rejected": "rejected"},
    "score": {"min_reward": "least", "mean_reward": "mean", "max_reward": "greatest"},
}


def watch_preferences(run: Run, console: Console, *, resume: bool = False) -> PreferenceResult:
    """`rlaif_sdk.training.methods.train` with a progress display, followed by `report_preferences`.

    Args:
        run: The loaded config.
        console: Where to print.
        resume: Resume from the last checkpoint in the output folder.

    Raises:
        RlaifError: As `rlaif_sdk.training.methods.train`.
    """
    console = console_of_the_first(console)
    with live_view(console) as (display, report):
        result: PreferenceResult = train(
            run.method,
            run,
            display=display,
            report=report,
            on_result=partial(report_preferences, console=console),
            resume=resume,
        )
    print_location(console, result.output, result.model_folder, get_method(run.method).model_class)
    return result


def report_preferences(result: PreferenceResult, console: Console) -> None:
    """Print what a run has learnt, and write ``metrics.json``, ``reliability.png`` and ``curves.png`` beside its model.

    Args:
        result: What came of the run.
        console: Where to print.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    pairs = result.calibration.pairs
    console.print(before_after_table(result.before, result.after, title=f"On {pairs} held-out pairs"))
    console.print(reliability_table(result.calibration, title="Reliability after training"))

    metrics = {
        "held_out": {"pairs": pairs, "before": dict(result.before), "after": dict(result.after)},
        "calibration_bins": len(result.calibration.bins),
        "optimiser_steps": result.steps,
        "training_seconds": round(result.training_seconds, 1),
    }
    write_json(result.output / METRICS_FILE, without_nan(metrics))
    plot_reliability(result.calibration, result.output / "reliability.png")
    if result.history:
        plot_curves(result.history, PANELS, result.output / "curves.png", title="Training on preferences")
