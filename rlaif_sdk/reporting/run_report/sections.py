"""The sections of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlaif_sdk.conversations import USER, shown
from rlaif_sdk.reporting.run_report import figures_scores, figures_steps
from rlaif_sdk.reporting.run_report.findings import Measures
from rlaif_sdk.reporting.run_report.markup import Markup, element, table
from rlaif_sdk.reporting.run_report.observations import Observations
from rlaif_sdk.reporting.run_report.page import Section
from rlaif_sdk.reporting.run_report.waterfall import number, sample, text
from rlaif_sdk.reporting.tables import format_estimate
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.correlation import correlation_interval
from rlaif_sdk.statistics.estimates import sample_mean

MOST_FAILURES = 20
MOST_ANSWERS = 20


def rewards_section(seen: Observations, measured: Measures) -> Section:
    """The rewards over steps, their weights, and a table of all."""
    section = Section(
        "rewards",
        "Rewards over steps",
        "The mean of each step in the reward's own units; the band is one standard error to either side.",
    )
    section.plot(figures_steps.rewards_over_steps(seen))
    if weights := figures_steps.weights_over_steps(seen):
        section.add(element("h3", "Weights in force"))
        section.plot(weights)
    section.add(_overview(seen, measured))
    return section


def _overview(seen: Observations, measured: Measures) -> Markup:
    rows: list[tuple[object, ...]] = []
    for index, (name, facts) in enumerate(seen.rewards.items()):
        raw_N, weights = seen.raw_RN[index], [*facts.weights.values()]
        failed = int(seen.failed_RN[index].sum())
        missing = int(np.isnan(raw_N).sum())
        rows.append(
            (
                name,
                f"{weights[0]:g}" if weights[0] == weights[-1] else f"{weights[0]:g} → {weights[-1]:g}",
                format_estimate(sample_mean(raw_N)),
                _spread(raw_N),
                len(seen) - missing,
                failed,
                missing - failed,
                _percent(measured.shares_R[index]),
            )
        )
    total = ("total", "", format_estimate(sample_mean(seen.totals_N)), _spread(seen.totals_N))
    scored = int((~np.isnan(seen.totals_N)).sum())
    rows.append((*total, scored, "", len(seen) - scored, ""))
    headings = ("reward", "weight", "mean ± error", "deviation", "scored", "failed", "abstained", "variance share")
    return table(headings, rows)


def variance_section(seen: Observations, measured: Measures) -> Section | None:
    """The shares of the rewards in the total's variance; None where they are not known."""
    figure = figures_scores.variance_bars(seen, measured)
    if figure is None:
        return None
    section = Section(
        "variance",
        "What the total's variance is made of",
        "cov(part, total) / var(total) for what each reward adds. A policy learns from differences between totals, so "
        "this is how much each reward is heard, whatever its weight. Below 0 it works against the total.",
    )
    section.plot(figure)
    return section


def correlation_section(seen: Observations, measured: Measures) -> Section | None:
    """The correlations of the rewards, the total and the length; None where nothing varies."""
    figure = figures_scores.correlation_map(seen, measured)
    if figure is None:
        return None
    section = Section(
        "correlation",
        "Correlation",
        "Between the raw scores, over the rows that both rewards scored. Empty where a reward does not vary.",
    )
    section.plot(figure)
    return section


def length_section(seen: Observations, measured: Measures) -> Section:
    """How the scores go with the length."""
    section = Section(
        "length", "Length", "How scores go with the length of the completion; each point is one, coloured by its step."
    )
    section.plot(figures_scores.length_scatter(seen))
    rows = []
    for index, name in enumerate((*seen.rewards, "total")):
        values_N = seen.totals_N if name == "total" else seen.raw_RN[index]
        correlation = float(measured.pearson[index, -1])
        low, high = correlation_interval(correlation, int((~np.isnan(values_N)).sum()))
        interval = "" if math.isnan(correlation) else f"{low:+.3f} to {high:+.3f}"
        rows.append((name, _signed(correlation), interval, _signed(float(measured.spearman[index, -1]))))
    section.add(table(("reward", "Pearson", "95% interval", "Spearman"), rows))
    return section


def saturation_section(seen: Observations, measured: Measures) -> Section:
    """How the scores are spread over their range."""
    section = Section(
        "saturation",
        "Saturation",
        "How the scores are spread. At an edge: within a thousandth of the declared range of it; without a declared "
        "range, of the least and greatest score. Alike: the most scores that lie within a thousandth of each other.",
    )
    section.plot(figures_scores.score_histograms(seen))
    rows = [
        (
            name,
            "none" if facts.declared_range is None else f"{facts.declared_range[0]:g} to {facts.declared_range[1]:g}",
            *map(_percent, measured.saturation[name]),
        )
        for name, facts in seen.rewards.items()
    ]
    section.add(table(("reward", "declared range", "at the lower edge", "at the upper edge", "alike"), rows))
    return section


def groups_section(seen: Observations, measured: Measures) -> Section | None:
    """The groups without differences; None without groups."""
    figure = figures_steps.flat_groups_over_steps(seen)
    if figure is None:
        return None
    section = Section(
        "groups",
        "Groups without differences",
        "The share of groups in which all completions have the same score, to a thousandth of the reward's range. Where "
        "advantages are differences within a group, those teach nothing.",
    )
    section.plot(figure)
    section.add(table(("reward", "whole run"), [(name, _percent(share)) for name, share in measured.flat.items()]))
    return section


def drift_section(seen: Observations, measured: Measures) -> Section | None:
    """The total beside each held-out reward; None without any, or with too few steps."""
    if not measured.drifts:
        return None
    section = Section(
        "drift",
        "Drift from the held-out rewards",
        "Reward hacking: the total, or a reward that training sees, rises while one that it does not see falls. The "
        "run is cut into four windows of steps, and the two are shown between which this is clearest. The statistic is "
        "the lesser of the rise and the fall, each in standard errors of the windows' means; chance exceeds the "
        "critical value in at most 1% of runs, all rewards and pairs of windows taken together.",
    )
    for drift in measured.drifts:
        section.add(element("h3", drift.held_out))
        section.add(element("p", f"{'Reward hacking' if drift.detected else 'No drift'}: {drift}."))
        section.plot(figures_steps.drift_curves(seen, drift))
    return section


def failures_section(seen: Observations) -> Section | None:
    """How often each reward failed, and why; None if none did."""
    figure = figures_steps.failures_over_steps(seen)
    if figure is None:
        return None
    section = Section("failures", "Failures", "A failed row is unscored by that reward, and never 0.")
    section.plot(figure)
    counted = [
        (name, count, why) for name, facts in seen.rewards.items() for why, count in facts.failures.most_common()
    ]
    counted.sort(key=lambda entry: -entry[1])
    section.add(table(("reward", "rows", "why"), counted[:MOST_FAILURES], class_="text"))
    if len(counted) > MOST_FAILURES:
        section.add(element("p", f"{len(counted) - MOST_FAILURES} more reasons are not shown.", class_="soft"))
    return section


def samples_section(seen: Observations) -> Section:
    """Rows in full, with their waterfalls."""
    section = Section(
        "samples", "Sample rows", "Of batches spread over the run. Each unfolds to its texts and its waterfall."
    )
    for row in seen.samples:
        section.add(sample(row))
    return section


def answers_section(answers: Sequence[Mapping[str, Any]]) -> Section | None:
    """Answers to the held-out prompts before and after training; None if there are none."""
    if not answers:
        return None
    section = Section("answers", "Held-out prompts", "The answers before and after training, scored by one composer.")
    count = min(MOST_ANSWERS, len(answers))
    for index in range(count):
        answer = answers[index * len(answers) // count]
        before, after = answer["before"], answer["after"]
        prompt = shown(answer["prompt"], role=USER)
        totals = " → ".join("unscored" if side["total"] is None else f"{side['total']:.4g}" for side in (before, after))
        columns = [
            element("div", element("h3", heading), text(shown(side["completion"])))
            for heading, side in (("Before", before), ("After", after))
        ]
        section.add(
            element(
                "details",
                element(
                    "summary", element("span", totals, class_="head"), element("span", prompt[:110], class_="excerpt")
                ),
                element("div", element("h3", "Prompt"), text(prompt), element("div", *columns, class_="two")),
            )
        )
    return section


def log_section(history: Sequence[Mapping[str, Any]]) -> Section | None:
    """Everything that the trainer logged; None if there is no log."""
    figure = figures_steps.logged_numbers(history)
    if figure is None:
        return None
    section = Section("log", "Training log", "Everything that the trainer logged; choose a number from the menu.")
    section.plot(figure)
    return section


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.1%}"


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.3f}"


def _spread(values_N: Array) -> str:
    present = values_N[~np.isnan(values_N)]
    return number(float(present.std())) if present.size else ""
