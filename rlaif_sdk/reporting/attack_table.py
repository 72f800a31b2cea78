"""Which attacks a judge fell for, as a table for the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from rlaif_sdk.attacks import AttackReport, Trials


def attack_table(report: AttackReport) -> Table:
    """A row an attack, under its family: its successes, by how much it lifted the answer, what the defences did."""
    value = "probability to beat the good answer" if report.paired else "score from 0 to 1"
    caption = f"succeeded: the {value} rose by more than {report.threshold:g}"
    caption += "; flipped: by less, and the poor answer won" if report.flipped else ""
    table = Table(
        title=f"{len(report.defended)} attacks on {len(report.cases)} cases",
        title_justify="left",
        caption=f"{caption}; gain: its mean rise",
        caption_justify="left",
    )
    table.add_column("attack")
    for heading in ("succeeded", "gain"):
        table.add_column(heading, justify="right")
    for heading in ("undefended", "gain") if report.undefended else ():
        table.add_column(heading, justify="right", style="dim")
    table.add_column("defences")
    family = ""
    for attack, trials in report.defended.items():
        if attack.family != family:
            table.add_section()
            table.add_row(attack.family, style="bold")
        naive = _cells(report.undefended[attack]) if attack in report.undefended else []
        marks = ", ".join(f"{mark} {count}" for mark, count in trials.marks.items())
        style = "bold red" if trials.succeeded else None
        table.add_row(f"  {attack.name}", *_cells(trials), *naive, marks, style=style)
        family = attack.family
    return table


def _cells(trials: Trials) -> list[str]:
    share = f"{trials.succeeded}/{len(trials.trials)}"
    if trials.flipped:
        share += f" ({trials.flipped} flipped)"
    if trials.unscored:
        share += f" ({trials.unscored} unscored)"
    return [share, "–" if math.isnan(trials.mean_gain) else f"{trials.mean_gain:+.2f}"]
