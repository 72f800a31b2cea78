"""The report of supervised fine-tuning: a table on the terminal, ``metrics.json`` and ``curves.png`` in its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaif_sdk.io.files import without_nan, write_json
from rlaif_sdk.reporting.plots import plot_curves
from rlaif_sdk.reporting.runs import METRICS_FILE
from rlaif_sdk.reporting.tables import before_after_table

if TYPE_CHECKING:
    from rich.console import Console

    from rlaif_sdk.training.sft import SFTResult

PANELS = {
    "loss (nats a token)": {"loss": "loss"},
    "token accuracy": {"mean_token_accuracy": "accuracy"},
    "entropy (nats a token)": {"entropy": "entropy"},
}


def report_sft(result: SFTResult, console: Console) -> None:
    """Print what a run has learnt, and write ``metrics.json`` and ``curves.png`` beside its model.

    Args:
        result: What came of the run.
        console: Where to print.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    console.print(before_after_table(result.before, result.after, title=f"On {result.held_out_rows} held-out rows"))
    metrics = {
        "held_out": {"rows": result.held_out_rows, "before": dict(result.before), "after": dict(result.after)},
        "optimiser_steps": result.steps,
        "training_seconds": round(result.training_seconds, 1),
    }
    write_json(result.output / METRICS_FILE, without_nan(metrics))
    if result.history:
        plot_curves(result.history, PANELS, result.output / "curves.png", title="Supervised fine-tuning")
