"""What evaluations found, as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table

from rlaif_sdk.reporting.reliability import reliability_table

if TYPE_CHECKING:
    from rlaif_sdk.evaluation import LabelEvaluation, Measure, Ranking, WinRate
    from rlaif_sdk.statistics.estimates import Estimate

INTERVALS = "95% confidence intervals in brackets"


def shown(figure: Estimate | None, *, digits: int = 3, signed: bool = False) -> str:
    """``0.700 [0.481, 0.855]``; a dash where nothing was counted, and no brackets without an interval."""
    if figure is None or math.isnan(figure.value):
        return "–"
    sign = "+" if signed else ""
    value = f"{figure.value:{sign}.{digits}f}"
    if math.isnan(figure.low):
        return value
    return f"{value} [{figure.low:{sign}.{digits}f}, {figure.high:{sign}.{digits}f}]"


def label_figures(found: LabelEvaluation) -> dict[str, str]:
    """Every figure over labels by its name."""
    people = found.alignment
    figures = {"labels": f"{found.labels} ({found.ties} ties, {found.hard} hard)"}
    if people is not None:
        figures |= {
            f"agrees with people ({people.accuracy.n} pairs)": shown(people.accuracy),
            "  in the given order alone": shown(people.when_first),
            "  in the turned order alone": shown(people.when_second),
            f"Cohen's kappa ({people.kappa.n} pairs)": shown(people.kappa),
        }
        if people.calibration is not None:
            figures["calibration error"] = f"{people.calibration.error:.3f}"
        if people.human_ties or people.without_human:
            figures["people undecided / not asked"] = f"{people.human_ties} / {people.without_human}"
    if found.flip_rate is not None:
        figures |= {
            f"flip rate ({found.flip_rate.n} pairs)": shown(found.flip_rate),
            "  the first place wins both": shown(found.first_wins),
            "  the second place wins both": shown(found.second_wins),
            "  rise of the probability in the first place": shown(found.place_effect, signed=True),
        }
    figures["tokens a label"] = f"{found.usage.tokens / found.labels:.0f}"
    if found.cost_per_label is not None:
        figures["cost a label"] = f"{found.cost_per_label:.6f}"
    return figures


def win_rate_figures(found: WinRate) -> dict[str, str]:
    """Every figure of a comparison by its name."""
    one, other = found.policies
    return {
        "pairs": f"{found.rate.n}: {found.wins} wins of {one}, {found.losses} of {other}, {found.ties} ties",
        f"win rate of {one}": shown(found.rate),
        "  by a bootstrap over prompts": shown(found.rate_over_prompts),
        "mean probability": shown(found.probability),
        "at equal length, by the difference": shown(found.length_controlled),
        "at equal length, by the ratio": shown(found.length_controlled_by_ratio),
        "mean characters": f"{found.mean_lengths[0]:.0f} and {found.mean_lengths[1]:.0f}",
        "flip rate": shown(found.flip_rate),
    }


def figures_table(figures: Mapping[str, str], title: str) -> Table:
    """A row a figure."""
    table = Table(title=title, title_justify="left", caption=INTERVALS, caption_justify="left", show_header=False)
    for name, value in figures.items():
        table.add_row(name, value)
    return table


def label_tables(found: LabelEvaluation) -> list[Table]:
    """The figures over labels, and their reliability where there are human labels."""
    tables = [figures_table(label_figures(found), "Labels")]
    if found.alignment is not None and found.alignment.calibration is not None:
        tables.append(reliability_table(found.alignment.calibration))
    return tables


def ranking_table(found: Ranking) -> Table:
    """A row a policy, from the strongest to the weakest."""
    caption = f"{INTERVALS}; strength in nats of Bradley and Terry, mean 0"
    table = Table(title=f"Policies on {found.prompts} prompts", title_justify="left", caption=caption)
    table.add_column("policy")
    for heading in ("pairs", "win rate", "strength", "Elo"):
        table.add_column(heading, justify="right")
    for each in found.policies:
        rating = f"{each.elo:.0f} ± {each.elo_spread:.0f}"
        table.add_row(
            each.policy, str(each.games), shown(each.win_rate), shown(each.strength, digits=2, signed=True), rating
        )
    return table


def measures_table(measures: Mapping[str, Measure]) -> Table:
    """The rows of each reward: means, the paired change, standard deviations, and the share that passes a threshold."""
    paired = any(measure.after is not None for measure in measures.values())
    table = Table(title="Rewards", title_justify="left", caption=INTERVALS, caption_justify="left")
    table.add_column("")
    headings = ("before", "after", "change", "rows") if paired else ("mean", "rows")
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, measure in measures.items():
        table.add_row(name, *_cells(paired, measure.before, measure.after, measure.change))
        table.add_row("  standard deviation", *map(spread, measure.spreads))
        if measure.passed:
            after = measure.passed[1] if paired else None
            label = f"  share that passes {measure.threshold:g}"
            table.add_row(label, *_cells(paired, measure.passed[0], after, measure.passed_change))
    return table


def spread(value: float) -> str:
    """A standard deviation; a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def _cells(paired: bool, before: Estimate, after: Estimate | None, change: Estimate | None) -> list[str]:  # noqa: FBT001
    if not paired or change is None:
        return [shown(before), str(before.n)]
    return [shown(before), shown(after), shown(change, signed=True), str(change.n)]
