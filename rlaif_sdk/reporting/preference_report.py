"""The report of a run on preference pairs: tables on the terminal, ``metrics.json`` and plots in its folder."""

from __future__ import annotations

import json
import warnings
from functools import partial
from typing import TYPE_CHECKING

from rich.table import Table

from rlaif_sdk.exceptions import MissingExtraError
from rlaif_sdk.reporting.plots import plot_curves
from rlaif_sdk.reporting.reliability import plot_reliability, reliability_table

if TYPE_CHECKING:
    from rich.console import Console

    from rlaif_sdk.training.config import Run
    from rlaif_sdk.training.preference_run import Kind, PreferenceResult

LOADER = {"reward_model": "AutoModelForSequenceClassification", "dpo": "AutoModelForCausalLM"}
PANELS = {
    "loss (nats a pair)": {"loss": "loss"},
    "agreement with the labels": {"agreement": "agreement"},
    "implicit reward (nats)": {"rewards/chosen": "chosen", "rewards/rejected": "rejected"},
    "score": {"min_reward": "least", "mean_reward": "mean", "max_reward": "greatest"},
}


def watch_preferences(kind: Kind, run: Run, console: Console, *, resume: bool = False) -> PreferenceResult:
    """`run_preferences` with a progress display, followed by `report_preferences`.

    Args:
        kind: ``reward_model`` or ``dpo``.
        run: The loaded config.
        console: Where to print.
        resume: Go on from the last checkpoint in the output folder.

    Raises:
        RlaifError: As `run_preferences`.
    """
    from rlaif_sdk.training.preference_run import run_preferences

    try:
        from rlaif_sdk.reporting.progress import TrainingProgress
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="train") from error

    report = partial(console.print, markup=False, highlight=False, soft_wrap=True)  # paths are printed as they are
    with TrainingProgress(console) as display, warnings.catch_warnings():
        # Of the libraries' own making, and nothing that the reader of a progress display could mend.
        warnings.filterwarnings("ignore", category=FutureWarning)
        result = run_preferences(kind, run, display=display, report=report, resume=resume)
    report_preferences(result, console)
    report(f"\nEverything is in {result.output}. Load the model with")
    report(f'    {LOADER[kind]}.from_pretrained("{result.model_folder}")')
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
    table = Table(title=f"On {pairs} held-out pairs", title_justify="left")
    table.add_column("")
    for heading in ("before", "after"):
        table.add_column(heading, justify="right")
    for name, value in result.before.items():
        table.add_row(name, f"{value:.3f}", f"{result.after[name]:.3f}")
    console.print(table)
    console.print(reliability_table(result.calibration, title="Reliability after training"))

    metrics = {
        "held_out": {"pairs": pairs, "before": dict(result.before), "after": dict(result.after)},
        "calibration_bins": len(result.calibration.bins),
        "optimiser_steps": result.steps,
        "training_seconds": round(result.training_seconds, 1),
    }
    (result.output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    plot_reliability(result.calibration, result.output / "reliability.png")
    if result.history:
        plot_curves(result.history, PANELS, result.output / "curves.png", title="Training on preferences")
