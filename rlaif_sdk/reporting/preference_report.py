"""The report of a run on preference pairs: tables on the terminal, ``metrics.json`` and plots in its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaif_sdk.io.files import without_nan, write_json
from rlaif_sdk.reporting.plots import plot_curves, plot_reliability
from rlaif_sdk.reporting.runs import METRICS_FILE
from rlaif_sdk.reporting.tables import before_after_table, reliability_table

if TYPE_CHECKING:
    from rich.console import Console

    from rlaif_sdk.training.preferences import PreferenceResult

PANELS = {
    "loss (nats a pair)": {"loss": "loss"},
    "agreement with the labels": {"agreement": "agreement"},
    "implicit reward (nats)": {"rewards/chosen": "chosen", "rewards/rejected": "rejected"},
    "score": {"min_reward": "least", "mean_reward": "mean", "max_reward": "greatest"},
}


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
