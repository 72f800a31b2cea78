"""The report of a training run, online or offline: tables on the terminal, ``metrics.json`` and plots in its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console

from rlaif_sdk.composer.layout import ends_notes
from rlaif_sdk.io.files import without_nan, write_json
from rlaif_sdk.reporting.plots import plot_curves, plot_reliability
from rlaif_sdk.reporting.runs import METRICS_FILE
from rlaif_sdk.reporting.tables import (
    before_after_table,
    comparison_table,
    format_estimate,
    reliability_table,
    samples_table,
)
from rlaif_sdk.statistics.estimates import SampleMean, comparison, paired_change
from rlaif_sdk.training.preferences import PreferenceResult

if TYPE_CHECKING:
    from rlaif_sdk.training.offline import OfflineResult
    from rlaif_sdk.training.online import PolicyResult

TOTAL = "composed_reward"
_KL_OF_TOKENS = frozenset({"GRPO", "RLOO"})
"""The methods whose trainers, which are TRL's, log the mean divergence of a token, and not of a whole answer."""
_OFFLINE_PANELS = {
    "token accuracy": {"mean_token_accuracy": "accuracy"},
    "entropy (nats a token)": {"entropy": "entropy"},
    "agreement with the labels": {"agreement": "agreement"},
    "implicit reward (nats)": {"rewards/chosen": "chosen", "rewards/rejected": "rejected"},
    "score": {"min_reward": "least", "mean_reward": "mean", "max_reward": "greatest"},
}
"""What is drawn beside the loss, of what the methods that train on given rows log."""


def report_online(result: PolicyResult, console: Console, *, samples: int = 5) -> SampleMean:
    """Print what a run on composed rewards has learnt, and write ``metrics.json`` and ``curves.png`` beside its model.

    Args:
        result: What came of the run.
        console: Where to print.
        samples: How many answers to show side by side.

    Returns:
        The paired change of the composed reward on the held-out prompts.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    before, after = result.before.rewards(), result.after.rewards()
    health_before, health_after = result.before.health(), result.after.health()
    change = paired_change(before[TOTAL], after[TOTAL])
    rows = len(before[TOTAL])
    notes = ends_notes({name: column.ends for name, column in result.before.composition.rewards.items()})
    table = comparison_table(before, after, title=f"Rewards on {rows} held-out prompts", total=TOTAL, notes=notes)
    console.print(table)
    console.print(comparison_table(health_before, health_after, title="Signs of collapse"))
    evaluated = (result.before.evaluation_rewards(), result.after.evaluation_rewards())
    if all(evaluated):
        console.print(comparison_table(*evaluated, title="Rewards of the evaluation, not trained on", total=TOTAL))
    unit = "a token" if result.method in _KL_OF_TOKENS else "an answer"
    divergence = [entry["kl"] for entry in result.history if entry.get("kl") is not None]
    if divergence:
        console.print(f"Divergence from the starting model: {divergence[-1]:.2g} nats {unit} in the last rollout")
    console.print(samples_table([*result.samples()], count=samples))
    console.print(verdict(change))

    metrics: dict[str, Any] = {
        "held_out": comparison({**before, **health_before}, {**after, **health_after}),
        f"kl_per_{unit.split()[1]}": divergence,
        "optimiser_steps": result.steps,
        "training_seconds": round(result.training_seconds, 1),
    }
    if all(evaluated):
        metrics["evaluation"] = comparison(*evaluated)
    write_json(result.output / METRICS_FILE, without_nan(metrics))
    if result.history:
        names = [name for name in before if name != TOTAL]
        plot_curves(
            result.history,
            panels(names, unit),
            result.output / "curves.png",
            title=f"{result.method} on composed rewards",
        )
    return change


def verdict(change: SampleMean) -> str:
    """One sentence on whether the composed reward rose by more than its standard error."""
    if not change.n:
        return "No held-out prompt has a score both before and after: whether the composed reward rose is not known."
    rise = format_estimate(change, signed=True)
    if change.exceeds_error:
        return f"The composed reward rose by more than its standard error: {rise} over {change.n} prompts."
    return f"The composed reward did not rise by more than its standard error: {rise} over {change.n} prompts."


def panels(rewards: list[str], unit: str) -> dict[str, dict[str, str]]:
    """The panels of the plot, for `plot_curves`: what trainers log of the named rewards and of themselves."""
    return {
        "composed reward": {"reward": "composed reward"},
        "each reward, in its own units": {f"reward/{name}/raw_mean": name for name in rewards},
        f"divergence from the starting model (nats {unit})": {"kl": "KL"},
        "length (tokens)": {"completions/mean_length": "mean", "completions/max_length": "longest"},
    }


def report_offline(result: OfflineResult, console: Console) -> None:
    """Print what a run on given rows has learnt, and write ``metrics.json`` and ``curves.png`` beside its model.

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
        panels = {f"loss (nats a {loss})": {"loss": "loss"}, **_OFFLINE_PANELS}
        plot_curves(result.history, panels, result.output / "curves.png", title=title)
