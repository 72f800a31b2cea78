"""What a composition overpays, as a web page that needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlaif_sdk.composer.whatif import excerpt
from rlaif_sdk.io.files import write_text
from rlaif_sdk.reporting.attack_table import (
    change_words,
    conclusion,
    finding_lines,
    remedy_words,
    reward_attack_caption,
    reward_attack_rows,
)
from rlaif_sdk.reporting.evaluation_page import best_of_section, interval_plot
from rlaif_sdk.reporting.page import Section, page, part

if TYPE_CHECKING:
    from rlaif_sdk.attacks import Overpayment, RewardAttackReport

_LONGEST = 4000
"""Characters of an answer that are shown."""


def write_reward_attack_page(found: RewardAttackReport, output: Path, *, source: str) -> None:
    """The edits, each finding with its example and all changes that were tried, and best of n.

    Args:
        found: What `rlaif_sdk.attacks.attack_rewards` found.
        output: The HTML file.
        source: The table of answers, for the heading.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    told = f"{conclusion(found).capitalize()}. {found.answers} answers to {found.prompts} prompts."
    edits = Section("edits", "Edits", f"{told} {reward_attack_caption(found).capitalize()}.")
    shown = {finding.result.name: finding.result.gap for finding in found.findings}
    if shown:
        edits.plot(interval_plot(shown, "gap in standard deviations", chance=0.0))
    edits.add("table", *reward_attack_rows(found))
    sections = [edits]
    if found.changes:
        changes = Section("changes", "Changes that close them", "Each is measured by itself, on the same answers.")
        for change in found.changes:
            changes.add("paragraph", change_words(change).capitalize())
            changes.add("text", change.remedy.yaml, _LONGEST)
        sections.append(changes)
    for number, finding in enumerate(found.findings, start=1):
        sections.append(_finding_section(number, finding, of_witness=found.witness is not None))
    if found.best_of is not None:
        section = best_of_section(found.best_of)
        for each in found.overrated:
            ahead = f"total {each.total:+.2f}, witness {each.witness:+.2f} from the mean of its prompt"
            section.add("heading", f"row {each.row}, best by the total: {ahead}")
            section.add("paragraph", excerpt(each.prompt))
            section.add("text", each.completion, _LONGEST)
        sections.append(section)
    write_text(output, page(f"What a composition overpays on {source}", sections))


def _finding_section(number: int, finding: Overpayment, *, of_witness: bool) -> Section:
    section = Section(f"finding-{number}", f"{number}. {finding.result.name}")
    section.add("items", [line.strip() for line in finding_lines(finding, of_witness=of_witness)])
    example = finding.example
    sides = []
    for name, text, explanation in zip(
        ("before", "after"), (example.before, example.after), example.explanations, strict=True
    ):
        sides.append(
            [part("paragraph", name, "soft"), part("text", text, _LONGEST), part("text", str(explanation), _LONGEST)]
        )
    section.add("columns", sides)
    section.add("heading", "Changes that were tried")
    for remedy in finding.remedies:
        head = remedy_words(remedy)
        section.add("details", head.partition(":")[0], head.partition(": ")[2], [part("text", remedy.yaml, _LONGEST)])
    return section
