"""The report of a run: what its rewards did, and what is wrong with them, in one HTML file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlaif_sdk.composer import Composition
from rlaif_sdk.composer.explain import Explanation
from rlaif_sdk.composer.layout import ends_in_words
from rlaif_sdk.conversations import USER, shown
from rlaif_sdk.io.files import write_text
from rlaif_sdk.io.jobs import flattened
from rlaif_sdk.reporting.page import Section, joined, page, part
from rlaif_sdk.reporting.run_report import plots
from rlaif_sdk.reporting.run_report.findings import Measures, measure, notes_of, warnings_of
from rlaif_sdk.reporting.run_report.observations import Observations, SampleRow, observe
from rlaif_sdk.reporting.tables import format_estimate
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.correlation import correlation_interval
from rlaif_sdk.statistics.estimates import sample_mean

if TYPE_CHECKING:
    from markupsafe import Markup

LONGEST = 6000
"""Texts are cut after so many characters."""
_EXCERPT = 110


def sample(row: SampleRow) -> Markup:
    """A row that unfolds: step, total and the beginning of the prompt, then everything."""
    head = f"step {row.step} · {row.why} · {number(row.explanation.total) or 'unscored'}"
    excerpt = " ".join(row.prompt.split())[:_EXCERPT]
    parts = (
        part("heading", "Prompt"),
        text(row.prompt),
        part("heading", "Completion"),
        text(row.completion),
        part("heading", "How its total came about"),
        steps(row.explanation),
    )
    return part("details", head, excerpt, parts)


def text(value: str) -> Markup:
    """A text as it is, cut where it is very long."""
    return part("text", value, LONGEST)


def steps(explanation: Explanation) -> Markup:
    """The waterfall as `Explanation.layout` has it, with bars, and the text with its credit."""
    from markupsafe import Markup

    layout = explanation.layout()
    moves = []
    for step in explanation.steps:
        moves += [(step.weighted, step.running), *[(math.nan, step.running)] * len(step.subscores)]
    moves += [(part.adds, part.running) for part in (*explanation.constraints, *explanation.gates)]
    ends = [0.0, explanation.total, *(running for _, running in moves)]
    known = [end for end in ends if math.isfinite(end)]
    low, high = min(known), max(known)
    bars = [
        _bar(running - adds, running, low, high) if math.isfinite(adds) and math.isfinite(running) and adds else ""
        for adds, running in moves
    ]
    total = "" if math.isnan(explanation.total) else _bar(0.0, explanation.total, low, high, "sum")
    rows = [
        (*cells[:-1], bar, cells[-1]) for cells, bar in zip([*layout.rows, layout.total], [*bars, total], strict=True)
    ]
    headings = (*layout.headings[:-1], "", layout.headings[-1])
    marked = Markup(layout.marked_html())  # noqa: S704 - escaped there
    return joined([part("table", headings, rows, "waterfall"), part("items", layout.notes), marked])


def number(value: float) -> str:
    """Four significant digits; nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.4g}"


def _bar(start: float, end: float, low: float, high: float, kind: str = "") -> Markup:
    """A bar from one value to another, on a scale from low to high."""
    scale = 100.0 / ((high - low) or 1.0)
    left, length = (min(start, end) - low) * scale, abs(end - start) * scale
    kind = kind or ("up" if end >= start else "down")
    return part("bar", kind, left, length)


MOST_FAILURES = 20
MOST_ANSWERS = 20


def rewards_section(seen: Observations, measured: Measures) -> Section:
    """The rewards over steps, or over the rows of a single step, their weights, and a table of all."""
    if len(seen.steps_T) == 1:
        section = Section("rewards", "Rewards", "How the scores are spread over the rows, in the reward's own units.")
        section.plot(plots.rewards_of_rows(seen))
    else:
        section = Section(
            "rewards",
            "Rewards over steps",
            "The mean of each step in the reward's own units; the band is one standard error to either side.",
        )
        section.plot(plots.rewards_over_steps(seen))
    if weights := plots.weights_over_steps(seen):
        section.add("heading", "Weights in force")
        section.plot(weights)
    skips = ("not asked",) if seen.skipped_RN.any() else ()
    counts = ("scored", "failed", "abstained", *skips, "variance share")
    section.add("table", ("reward", "weight", "mean ± error", "deviation", *counts, "ends"), _overview(seen, measured))
    return section


def _overview(seen: Observations, measured: Measures) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    skips = seen.skipped_RN.any()
    for index, (name, facts) in enumerate(seen.rewards.items()):
        raw_N, weights = seen.raw_RN[index], [*facts.weights.values()]
        failed = int(seen.failed_RN[index].sum())
        missing = int(np.isnan(raw_N).sum())
        not_asked = int(seen.skipped_RN[index].sum())
        rows.append(
            (
                name,
                f"{weights[0]:g}" if weights[0] == weights[-1] else f"{weights[0]:g} → {weights[-1]:g}",
                format_estimate(sample_mean(raw_N)),
                _spread(raw_N),
                len(seen) - missing,
                failed,
                missing - failed - not_asked,
                *([not_asked] if skips else []),
                _percent(measured.shares_R[index]),
                ends_in_words(facts.ends),
            )
        )
    total = ("total", "", format_estimate(sample_mean(seen.totals_N)), _spread(seen.totals_N))
    scored = int((~np.isnan(seen.totals_N)).sum())
    rows.append((*total, scored, "", len(seen) - scored, *([""] if skips else []), "", ""))
    return rows


def subscores_section(seen: Observations) -> Section | None:
    """What each reward's scores are made of; None where no reward says."""
    rows = []
    for name, facts in seen.rewards.items():
        for part_name, by_step in facts.subscores.items():
            first, last = by_step[min(by_step)], by_step[max(by_step)]
            values = np.concatenate([*by_step.values()])
            means = (format_estimate(sample_mean(values)), number(float(np.mean(first))), number(float(np.mean(last))))
            rows.append((name, part_name, len(values), *means))
    if not rows:
        return None
    introduction = "What the scores are made of, such as the criteria of a rubric, over the rows that have each."
    section = Section("subscores", "Sub-scores", introduction)
    section.add("table", ("reward", "sub-score", "rows", "mean ± error", "first step", "last step"), rows)
    return section


def _plot_section(plot: plots.Plot | None, name: str, title: str, introduction: str) -> Section | None:
    """A section of one plot; None without it."""
    if plot is None:
        return None
    section = Section(name, title, introduction)
    section.plot(plot)
    return section


def variance_section(seen: Observations, measured: Measures) -> Section | None:
    """The shares of the rewards in the total's variance; None where they are not known."""
    return _plot_section(
        plots.variance_bars(seen, measured),
        "variance",
        "What the total's variance is made of",
        "cov(part, total) / var(total) for what each reward adds. A policy learns from differences between totals, so "
        "this is how much each reward is heard, whatever its weight. Below 0 it works against the total.",
    )


def correlation_section(seen: Observations, measured: Measures) -> Section | None:
    """The correlations of the rewards, the total and the length; None where nothing varies."""
    return _plot_section(
        plots.correlation_map(seen, measured),
        "correlation",
        "Correlation",
        "Between the raw scores, over the rows that both rewards scored. Empty where a reward does not vary.",
    )


def length_section(seen: Observations, measured: Measures) -> Section:
    """How the scores go with the length."""
    section = Section(
        "length", "Length", "How scores go with the length of the completion; each point is one, coloured by its step."
    )
    section.plot(plots.length_scatter(seen))
    rows = []
    for index, name in enumerate((*seen.rewards, "total")):
        values_N = seen.totals_N if name == "total" else seen.raw_RN[index]
        correlation = float(measured.pearson[index, -1])
        low, high = correlation_interval(correlation, int((~np.isnan(values_N)).sum()))
        interval = "" if math.isnan(correlation) else f"{low:+.3f} to {high:+.3f}"
        rows.append((name, _signed(correlation), interval, _signed(float(measured.spearman[index, -1]))))
    section.add("table", ("reward", "Pearson", "95% interval", "Spearman"), rows)
    return section


def saturation_section(seen: Observations, measured: Measures) -> Section:
    """How the scores are spread over their range."""
    section = Section(
        "saturation",
        "Saturation",
        "How the scores are spread. At an edge: within a thousandth of the declared range of it; without a declared "
        "range, of the least and greatest score. Alike: the most scores that lie within a thousandth of each other.",
    )
    section.plot(plots.score_histograms(seen))
    rows = [
        (
            name,
            "none" if facts.declared_range is None else f"{facts.declared_range[0]:g} to {facts.declared_range[1]:g}",
            *map(_percent, measured.saturation[name]),
        )
        for name, facts in seen.rewards.items()
    ]
    section.add("table", ("reward", "declared range", "at the lower edge", "at the upper edge", "alike"), rows)
    return section


def groups_section(seen: Observations, measured: Measures) -> Section | None:
    """The groups without differences; None without groups."""
    section = _plot_section(
        plots.flat_groups_over_steps(seen),
        "groups",
        "Groups without differences",
        "The share of groups in which all completions have the same score, to a thousandth of the reward's range. Where "
        "advantages are differences within a group, those teach nothing.",
    )
    if section is None:
        return None
    section.add("table", ("reward", "whole run"), [(name, _percent(share)) for name, share in measured.flat.items()])
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
        section.add("heading", drift.held_out)
        section.add("paragraph", f"{'Reward hacking' if drift.detected else 'No drift'}: {drift}.")
        section.plot(plots.drift_curves(seen, drift))
    return section


def alarms_section(history: Sequence[Mapping[str, Any]], alarms: Sequence[Mapping[str, Any]]) -> Section | None:
    """When alarms rang, why, and what they did, with the evidence over the steps; None where nothing was watched."""
    plot = plots.evidence_over_steps(history, alarms)
    if plot is None and not alarms:
        return None
    section = Section(
        "alarms",
        "Alarms",
        "The e-value of each watch: by so much a bet against its hypothesis has multiplied what was staked. An alarm rings where "
        "it reaches the dashed threshold, which a clean run ever does, for any watch, with a chance of at most alpha.",
    )
    if plot is not None:
        section.plot(plot)
    headings = ("step", "watch", "found", "e-value", "paid for by", "done", "nothing amiss at step")
    rows = [
        (
            alarm["step"],
            alarm["watch"],
            alarm["found"],
            f"10^{alarm['log_e'] / math.log(10):.1f}",
            alarm["reward"] or "",
            alarm["done"],
            alarm["good"],
        )
        for alarm in alarms
    ]
    if rows:
        section.add("table", headings, rows, "text")
    else:
        section.add("paragraph", "No alarm rang.", "good")
    return section


def failures_section(seen: Observations) -> Section | None:
    """How often each reward failed, and why; None if none did."""
    plot = plots.failures_over_steps(seen)
    if plot is None:
        return None
    section = Section("failures", "Failures", "A failed row is unscored by that reward, and never 0.")
    section.plot(plot)
    counted = [
        (name, count, why) for name, facts in seen.rewards.items() for why, count in facts.failures.most_common()
    ]
    counted.sort(key=lambda entry: -entry[1])
    section.add("table", ("reward", "rows", "why"), counted[:MOST_FAILURES], "text")
    if len(counted) > MOST_FAILURES:
        section.add("paragraph", f"{len(counted) - MOST_FAILURES} more reasons are not shown.", "soft")
    return section


def samples_section(seen: Observations) -> Section:
    """Rows in full, with their waterfalls."""
    section = Section(
        "samples", "Sample rows", "Of batches spread over the run. Each unfolds to its texts and its waterfall."
    )
    for row in seen.samples:
        section.parts.append(sample(row))
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
        sides = [
            (part("heading", heading), text(shown(side["completion"])))
            for heading, side in (("Before", before), ("After", after))
        ]
        parts = (part("heading", "Prompt"), text(prompt), part("columns", sides))
        section.add("details", totals, prompt[:_EXCERPT], parts)
    return section


def log_section(history: Sequence[Mapping[str, Any]]) -> Section | None:
    """Everything that the trainer logged; None if there is no log."""
    plot = plots.logged_numbers(history)
    if plot is None:
        return None
    section = Section("log", "Training log", "Everything that the trainer logged; choose a number from the menu.")
    section.plot(plot)
    return section


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.1%}"


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.3f}"


def _spread(values_N: Array) -> str:
    present = values_N[~np.isnan(values_N)]
    return number(float(present.std())) if present.size else ""


def write_report(
    compositions: Iterable[Composition],
    output: str | Path,
    *,
    title: str = "Rewards",
    held_out: Sequence[str] = (),
    history: Sequence[Mapping[str, Any]] = (),
    answers: Sequence[Mapping[str, Any]] = (),
    alarms: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    """Write a report that needs no network, with interactive plots.

    Args:
        compositions: What was composed in a run, in order; see `rlaif_sdk.reporting.run_report.recorded_compositions`.
        output: The HTML file.
        title: Its heading.
        held_out: Rewards to look for reward hacking with, beside those that never had a weight.
        history: What a trainer logged, mappings with ``step``.
        answers: Mappings with ``prompt``, and under ``before`` and ``after`` a ``completion`` and its ``total``.
        alarms: What alarms rang, as `rlaif_sdk.composer.alarm.Raised` records it; with the history their evidence is drawn.

    Returns:
        The warnings that stand at the top of it.

    Raises:
        DataError: There are no rows, or no reward is named as a held-out one is.
        MissingExtraError: plotly is not installed.
    """
    seen = observe(compositions)
    measured = measure(seen, held_out)
    warnings = warnings_of(seen, measured)
    parts = [
        rewards_section(seen, measured),
        subscores_section(seen),
        variance_section(seen, measured),
        correlation_section(seen, measured),
        length_section(seen, measured),
        saturation_section(seen, measured),
        groups_section(seen, measured),
        drift_section(seen, measured),
        alarms_section(history, alarms),
        failures_section(seen),
        samples_section(seen),
        answers_section(answers),
        log_section(history),
    ]
    opening = _opening(seen, warnings, notes_of(seen, measured))
    html = page(title, [part for part in parts if part], opening=opening)
    write_text(output, html)
    return warnings


def write_log_report(
    output: str | Path,
    manifest: Mapping[str, Any],
    *,
    title: str,
    history: Sequence[Mapping[str, Any]] = (),
    answers: Sequence[Mapping[str, Any]] = (),
    alarms: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write a report of a run that recorded no rewards: what it was made of, its log, its answers.

    Args:
        output: The HTML file.
        manifest: The run's ``run.json``.
        title: Its heading.
        history: See `write_report`.
        answers: See there.
        alarms: See there.

    Raises:
        MissingExtraError: jinja2 or plotly is not installed.
    """
    made_of = Section("run", "The run", "What it was made of, and what came of it.")
    made_of.add("table", ("", ""), flattened(manifest))
    note = "The run recorded no rewards, so what each gave a row is not known."
    parts = [alarms_section(history, alarms), answers_section(answers), log_section(history), made_of]
    write_text(output, page(title, [each for each in parts if each], opening=part("paragraph", note, "soft")))


def _opening(seen: Observations, warnings: Sequence[str], notes: Sequence[str]) -> Markup:
    steps, groups = seen.steps_T, len(np.unique(seen.group_N[seen.group_N >= 0]))
    span = f"step {steps[0]}" if len(steps) == 1 else f"{len(steps)} steps, {steps[0]} to {steps[-1]}"
    size = f"{len(seen)} rows of {span}" + (f", in {groups} groups" if groups else "")
    size += f"; {len(seen.rewards)} rewards: {', '.join(seen.rewards)}."
    found = part("items", warnings, "warnings") or part("paragraph", "Nothing looks wrong with the rewards.", "good")
    return joined([part("paragraph", size, "soft"), found, part("items", notes, "notes")])
