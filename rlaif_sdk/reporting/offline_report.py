"""The report of training on given rows: tables on the terminal, ``metrics.json`` and plots in its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlaif_sdk.io.files import without_nan, write_json
from rlaif_sdk.reporting.plots import plot_curves, plot_reliability
from rlaif_sdk.reporting.runs import METRICS_FILE
from rlaif_sdk.reporting.tables import before_after_table, reliability_table
from rlaif_sdk.training.preferences import PreferenceResult

if TYPE_CHECKING:
    from rich.console import Console

    from rlaif_sdk.training.offline import OfflineResult

PANELS = {
    "token accuracy": {"mean_token_accuracy": "accuracy"},
    "entropy (nats a token)": {"entropy": "entropy"},
    "agreement with the labels": {"agreement": "agreement"},
    "implicit reward (nats)": {"rewards/chosen": "chosen", "rewards/rejected": "rejected"},
    "score": {"min_reward": "least", "mean_reward": "mean", "max_reward": "greatest"},
}
"""What is drawn beside the loss, of what a method logs."""


def report_offline(result: OfflineResult, console: Console) -> None:
    """Print what a run has learnt, and write ``metrics.json`` and ``curves.png`` beside its model.

    Of preference pairs also how reliable its probabilities are, with ``reliability.png``.

    Args:
        result: What came of the run.
        console: Where to print.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    calibration = result.calibration if isinstance(result, PreferenceResult) else None
    unit, rows = ("row", result.held_out_rows) if calibration is None else ("pair", calibration.pairs)
    console.print(before_after_table(result.before, result.after, title=f"On {rows} held-out {unit}s"))
    metrics: dict[str, Any] = {
        "held_out": {f"{unit}s": rows, "before": dict(result.before), "after": dict(result.after)},
        "optimiser_steps": result.steps,
        "training_seconds": round(result.training_seconds, 1),
    }
    if calibration is not None:
        console.print(reliability_table(calibration, title="Reliability after training"))
        metrics["calibration_bins"] = len(calibration.bins)
        plot_reliability(calibration, result.output / "reliability.png")
    write_json(result.output / METRICS_FILE, without_nan(metrics))
    if result.history:
        loss, title = ("pair", "Training on preferences") if calibration else ("token", "Supervised fine-tuning")
        panels = {f"loss (nats a {loss})": {"loss": "loss"}, **PANELS}
        plot_curves(result.history, panels, result.output / "curves.png", title=title)
