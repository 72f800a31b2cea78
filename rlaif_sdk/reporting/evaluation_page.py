"""What evaluations found, as a web page with plots that needs no network."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.composer.whatif import excerpt
from rlaif_sdk.evaluation.reward import TOTAL, LabelMetrics, PairMetrics
from rlaif_sdk.io.files import write_text
from rlaif_sdk.reporting.evaluation_tables import (
    INTERVALS,
    OVER_PROMPTS,
    benchmark_rows,
    best_of_rows,
    best_of_words,
    category_rows,
    contribution_rows,
    counted_rows,
    intervals_of,
    label_estimates,
    ranking_rows,
    ranking_warnings,
    reward_rows,
    shown,
    win_rate_estimates,
)
from rlaif_sdk.reporting.page import Section, page
from rlaif_sdk.reporting.run_report.plots import Plot, colour
from rlaif_sdk.reporting.tables import format_number
from rlaif_sdk.statistics.arrays import json_number

if TYPE_CHECKING:
    from rlaif_sdk.evaluation import (
        BenchmarkResult,
        BestOfCurve,
        BestOfPoint,
        LabelEvaluation,
        Measure,
        Ranking,
        RewardEvaluation,
        WinRate,
    )
    from rlaif_sdk.statistics.calibration import Calibration
    from rlaif_sdk.statistics.estimates import Estimate


def write_label_page(found: LabelEvaluation, output: Path, *, source: str) -> None:
    """The labels' agreement with people, position bias and calibration.

    Args:
        found: What `rlaif_sdk.evaluation.evaluate_labels` found.
        output: The HTML file.
        source: What was evaluated, for the heading.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    estimates = Section("labels", "Labels", f"What is known of the labels; {INTERVALS}.")
    estimates.add("table", *_rows(label_estimates(found)))
    sections = [estimates]
    people = found.alignment
    if people is not None:
        shares = {"both orders": people.accuracy, "given order": people.when_first, "swapped order": people.when_second}
        agreement = Section("agreement", "Agreement with people", "The share of pairs with the same winner.")
        agreement.plot(interval_plot(shares, "share", chance=0.5))
        names = ("1", "2", "tie")
        rows = [(f"AI: {name}", *counts) for name, counts in zip(names, people.counts, strict=True)]
        agreement.add("table", ["", *(f"people: {name}" for name in names)], rows)
        sections.append(agreement)
        if people.calibration is not None:
            told = "On the diagonal, a label is right as often as its probability says. A point a bin of confidence."
            reliability = Section("reliability", "Calibration", told)
            reliability.plot(_reliability_plot(people.calibration))
            sections.append(reliability)
    write_text(output, page(f"Labels of {source}", sections))


def write_win_rate_page(found: WinRate, output: Path) -> None:
    """The win rate of two policies, also at equal length. See `write_label_page`."""
    section = Section("win-rate", "Win rate", f"A tie counts half; {INTERVALS}.")
    rates = {
        "win rate": found.rate,
        "over prompts": found.rate_over_prompts,
        "mean probability": found.probability,
        "at equal length (difference)": found.length_controlled,
        "at equal length (ratio)": found.length_controlled_by_ratio,
    }
    section.plot(interval_plot(rates, f"preferred to {found.policies[1]}", chance=0.5))
    section.add("table", *_rows(win_rate_estimates(found)))
    write_text(output, page(f"{found.policies[0]} against {found.policies[1]}", [section]))


def write_ranking_page(found: Ranking, output: Path) -> None:
    """The ranking of several policies, and who beat whom. See `write_label_page`."""
    told = "Log-strengths in nats: a difference of 1 is odds of 2.7 to 1. Only differences count; the mean is 0."
    strengths = Section("strengths", "Strength", f"{told} {INTERVALS}.")
    strengths.plot(interval_plot({each.policy: each.strength for each in found.policies}, "nats", chance=0.0))
    strengths.add("table", *ranking_rows(found))
    for warning in ranking_warnings(found):
        strengths.add("paragraph", warning)
    pairs = Section("pairs", "Who beat whom", "The share of pairs that the policy of the row won, ties half.")
    names = [html.escape(each.policy) for each in found.policies]
    shares = [[json_number(value) for value in row] for row in found.win_rates()]
    heat = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": shares,
        "text": [["" if value is None else f"{value:.2f}" for value in row] for row in shares],
        "texttemplate": "%{text}",
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, "#c0392b"], [0.5, "#f7f7f7"], [1, "#2457a6"]],
    }
    size = {"height": 200 + 46 * len(names), "yaxis": {"autorange": "reversed", "automargin": True}}
    pairs.plot({"data": [heat], "layout": size})
    write_text(output, page("Ranking of policies", [strengths, pairs]))


def write_measures_page(measures: Mapping[str, Measure], output: Path, *, files: Sequence[str]) -> None:
    """Rewards of one or two tables. See `write_label_page`."""
    section = Section("rewards", "Rewards", f"Means of the raw scores of {' and '.join(files)}; {INTERVALS}.")
    for name, measure in measures.items():
        section.add("heading", name)
        rows: dict[str, Estimate | None] = dict(zip(files, (measure.before, measure.after), strict=False))
        if measure.change is not None:
            rows["change"] = measure.change
        section.plot(interval_plot(rows, name))
        shares = dict(zip(files, measure.passed, strict=False))
        texts = {f"mean of {label}": shown(estimate) for label, estimate in rows.items()}
        spreads = zip(files, measure.spreads, strict=False)
        texts |= {f"standard deviation of {label}": format_number(value) for label, value in spreads}
        texts |= {f"share of {label} that passes {measure.threshold:g}": shown(own) for label, own in shares.items()}
        section.add("table", *_rows(texts))
    write_text(output, page("Rewards", [section]))


def write_reward_page(found: RewardEvaluation, output: Path, *, source: str) -> None:
    """A composition and its rewards against labels or pairs. See `write_label_page`."""
    metrics = Section("rewards", "Rewards", f"{counted_rows(found)}; {intervals_of(found)}.")
    of_pairs = isinstance(found.metrics[TOTAL], PairMetrics)
    what = "accuracy: the share of pairs in which the chosen completion scores higher" if of_pairs else "AUC"
    main = {name: _main(each) for name, each in found.metrics.items()}
    metrics.plot(interval_plot(main, what, chance=0.5))
    metrics.add("table", *reward_rows(found))
    sections = [metrics]
    categories = category_rows(found)
    if categories[1]:
        section = Section("categories", "By category", "Of the composed reward.")
        section.add("table", *categories)
        sections.append(section)
    if found.contributions:
        orders = "over all sets of rewards" if found.shapley_is_exact else "over a sample of orders"
        told = f"How much lower the {what.partition(':')[0]} is without a reward, and its Shapley value {orders}."
        section = Section("contributions", "What each reward adds", told)
        section.plot(
            interval_plot(
                {name: each.leave_one_out for name, each in found.contributions.items()}, "leave one out", chance=0.0
            )
        )
        section.add("table", *contribution_rows(found))
        sections.append(section)
    if found.mistakes:
        section = Section("mistakes", "Mistakes", "The worst first, each with how its totals came about.")
        for mistake in found.mistakes:
            section.add("heading", f"row {mistake.row}: wrong by {mistake.margin:.4g}")
            section.add("paragraph", excerpt(mistake.prompt))
            for name, explanation in mistake.explanations.items():
                section.add("paragraph", name)
                section.add("items", str(explanation).splitlines())
        sections.append(section)
    write_text(output, page(f"Rewards on {source}", sections))


def _main(metrics: LabelMetrics | PairMetrics) -> Estimate:
    return metrics.accuracy if isinstance(metrics, PairMetrics) else metrics.auc


def write_benchmark_page(found: BenchmarkResult, output: Path, *, source: str) -> None:
    """A benchmark's numbers and rules. See `write_label_page`."""
    told = f"By the rules of {found.version}. {found.rules} {INTERVALS.capitalize()}, {OVER_PROMPTS}."
    section = Section("benchmark", found.title, told)
    section.plot(interval_plot(found.values, "score"))
    section.add("table", *benchmark_rows(found))
    write_text(output, page(f"{found.title} on {source}", [section]))


def write_best_of_page(found: BestOfCurve, output: Path, *, source: str) -> None:
    """The total and the witness of the best of n over its divergence. See `write_label_page`."""
    write_text(output, page(f"Best of n on {source}", [best_of_section(found)]))


def best_of_section(found: BestOfCurve) -> Section:
    """The curves of best of n, and their numbers."""
    told = f"Over the divergence that choosing costs, log n - (n - 1) / n nats. {best_of_words(found).capitalize()}."
    section = Section("best-of", "Best of n", f"{told} {INTERVALS.capitalize()}.")
    section.plot(_curve_plot("total", 0, [(point, point.total) for point in found.points]))
    witnessed = [(point, point.witness) for point in found.points if point.witness]
    if witnessed:
        section.plot(_curve_plot("witness", 1, witnessed))
    section.add("table", *best_of_rows(found))
    return section


def _curve_plot(name: str, place: int, points: Sequence[tuple[BestOfPoint, Estimate]]) -> Plot:
    curve = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [point.kl for point, _ in points],
        "y": [each.value for _, each in points],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [_distance(each.high, each.value) for _, each in points],
            "arrayminus": [_distance(each.value, each.low) for _, each in points],
        },
        "text": [f"best of {point.n}" for point, _ in points],
        "line": {"color": colour(place)},
        "hovertemplate": "%{text}: %{y:.4g}<extra></extra>",
    }
    layout = {"height": 320, "xaxis": {"title": {"text": "KL in nats"}}, "yaxis": {"title": {"text": name}}}
    return {"data": [curve], "layout": layout}


def _rows(estimates: Mapping[str, str]) -> tuple[list[str], list[tuple[str, str]]]:
    return ["measure", "value"], list(estimates.items())


def interval_plot(estimates: Mapping[str, Estimate | None], title: str, *, chance: float | None = None) -> Plot:
    """Points with their intervals, one above the other."""
    there = {name: estimate for name, estimate in estimates.items() if estimate and math.isfinite(estimate.value)}
    values = [estimate.value for estimate in there.values()]
    above = [_distance(estimate.high, estimate.value) for estimate in there.values()]
    below = [_distance(estimate.value, estimate.low) for estimate in there.values()]
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": values,
        "y": [html.escape(name) for name in there],
        "error_x": {"type": "data", "symmetric": False, "array": above, "arrayminus": below},
        "marker": {"size": 9, "color": colour(0)},
        "hovertemplate": "%{y}: %{x:.4g}<extra></extra>",
    }
    layout: dict[str, Any] = {
        "height": 130 + 38 * len(there),
        "xaxis": {"title": {"text": html.escape(title)}},
        "yaxis": {"autorange": "reversed", "automargin": True},
    }
    if chance is not None:
        dashed = {"dash": "dash", "color": "#5f6b7a", "width": 1}
        layout["shapes"] = [
            {"type": "line", "x0": chance, "x1": chance, "y0": 0, "y1": 1, "yref": "paper", "line": dashed}
        ]
    return {"data": [points], "layout": layout}


def _reliability_plot(calibration: Calibration) -> Plot:
    filled = [part for part in calibration.bins if part.pairs]
    most = max(part.pairs for part in filled)
    diagonal = {"type": "scatter", "mode": "lines", "x": [0.5, 1], "y": [0.5, 1], "name": "accuracy = confidence"}
    points = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [part.confidence for part in filled],
        "y": [part.accuracy for part in filled],
        "text": [f"{part.pairs} pairs" for part in filled],
        "name": "labels",
        "marker": {"size": [6 + 14 * part.pairs / most for part in filled]},
        "hovertemplate": "confidence %{x:.3f}: accuracy %{y:.3f}<extra>%{text}</extra>",
    }
    layout = {
        "height": 420,
        "xaxis": {"title": {"text": "confidence of the label"}, "range": [0.48, 1.02]},
        "yaxis": {"title": {"text": "share that people agree with"}, "range": [-0.02, 1.02]},
    }
    return {"data": [{**diagonal, "line": {"dash": "dash", "color": "#5f6b7a"}}, points], "layout": layout}


def _distance(end: float, other: float) -> float:
    return end - other if math.isfinite(end - other) else 0.0
