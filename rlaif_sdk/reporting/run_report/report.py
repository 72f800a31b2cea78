"""The report of a run: what its rewards did, and what is wrong with them, in one HTML file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlaif_sdk.composer import Composition
from rlaif_sdk.io.files import write_text
from rlaif_sdk.reporting.run_report import sections
from rlaif_sdk.reporting.run_report.findings import measure, notes_of, warnings_of
from rlaif_sdk.reporting.run_report.markup import Markup, element, items, joined
from rlaif_sdk.reporting.run_report.observations import Observations, observe
from rlaif_sdk.reporting.run_report.page import page


def write_report(
    compositions: Iterable[Composition],
    output: str | Path,
    *,
    title: str = "Rewards",
    held_out: Sequence[str] = (),
    history: Sequence[Mapping[str, Any]] = (),
    answers: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    """Write a report that needs no network, with interactive plots.

    Args:
        compositions: What was composed in a run, in order; see `rlaif_sdk.reporting.run_report.recorded_compositions`.
        output: The HTML file.
        title: Its heading.
        held_out: Rewards to look for reward hacking with, beside those that never had a weight.
        history: What a trainer logged, mappings with ``step``.
        answers: Mappings with ``prompt``, and under ``before`` and ``after`` a ``completion`` and its ``total``.

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
        sections.rewards_section(seen, measured),
        sections.variance_section(seen, measured),
        sections.correlation_section(seen, measured),
        sections.length_section(seen, measured),
        sections.saturation_section(seen, measured),
        sections.groups_section(seen, measured),
        sections.drift_section(seen, measured),
        sections.failures_section(seen),
        sections.samples_section(seen),
        sections.answers_section(answers),
        sections.log_section(history),
    ]
    html = page(title, _opening(seen, warnings, notes_of(seen, measured)), [part for part in parts if part])
    write_text(output, html)
    return warnings


def _opening(seen: Observations, warnings: Sequence[str], notes: Sequence[str]) -> Markup:
    steps, groups = seen.steps_T, len(np.unique(seen.group_N[seen.group_N >= 0]))
    span = f"step {steps[0]}" if len(steps) == 1 else f"{len(steps)} steps, {steps[0]} to {steps[-1]}"
    size = f"{len(seen)} rows of {span}" + (f", in {groups} groups" if groups else "")
    size += f"; {len(seen.rewards)} rewards: {', '.join(seen.rewards)}."
    found = items(warnings, class_="warnings") or element("p", "Nothing looks wrong with the rewards.", class_="good")
    return joined([element("p", size, class_="soft"), found, items(notes, class_="notes")])
