"""Which attacks a judge fell for, and what a composition overpays, for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from rlaif_sdk.composer.whatif import excerpt
from rlaif_sdk.io.text import printable
from rlaif_sdk.reporting.evaluation_tables import best_of_table, shown
from rlaif_sdk.reporting.tables import cell, text_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from rlaif_sdk.attacks import (
        AttackReport,
        ClosingChange,
        EditResult,
        Overpayment,
        Remedy,
        RewardAttack,
        RewardAttackReport,
        Trials,
    )

_FINDINGS = 5
"""How many are shown; the page and JSON have all."""


def attack_table(report: AttackReport) -> Table:
    """A row an attack, under its family: its successes, by how much it lifted the answer, what the defences did."""
    value = "probability to beat the good answer" if report.paired else "score from 0 to 1"
    caption = f"succeeded: the {value} rose by more than {report.threshold:g}"
    caption += "; flipped: by less, and the poor answer won" if report.flipped else ""
    naively = ("undefended", "gain") if report.undefended else ()
    table = text_table(
        ("attack", "succeeded", "gain", *naively, "defences"),
        title=f"{len(report.defended)} attacks on {len(report.cases)} cases",
        caption=f"{caption}; gain: its mean rise",
        words=(0, 3 + len(naively)),
    )
    for column in table.columns[3 : 3 + len(naively)]:
        column.style = "dim"
    family = ""
    for attack, trials in report.defended.items():
        if attack.family != family:
            table.add_section()
            table.add_row(cell(attack.family), style="bold")
        naive = _cells(report.undefended[attack]) if attack in report.undefended else []
        marks = ", ".join(f"{mark} {count}" for mark, count in trials.marks.items())
        style = "bold red" if trials.succeeded else None
        table.add_row(cell(f"  {attack.name}"), *_cells(trials), *naive, cell(marks), style=style)
        family = attack.family
    return table


def _cells(trials: Trials) -> list[str]:
    share = f"{trials.succeeded}/{len(trials.trials)}"
    if trials.flipped:
        share += f" ({trials.flipped} flipped)"
    if trials.unscored:
        share += f" ({trials.unscored} unscored)"
    return [share, "–" if math.isnan(trials.mean_gain) else f"{trials.mean_gain:+.2f}"]


def attack_cost(attack: RewardAttack) -> str:
    """What an attack on a composition will score, in words."""
    real, edited, calls = attack.cost()
    words = f"scoring {real:,} real answers and at most {edited:,} edited ones"
    told = [f"{name} calls a model at most {count:,} times" for name, count in calls.items() if count]
    return "; ".join([words, *told])


def print_reward_attack(found: RewardAttackReport, console: Console) -> None:
    """Print what a composition overpays, each with an example and what closes it."""
    console.print(reward_attack_table(found))
    for number, finding in enumerate(found.findings[:_FINDINGS], start=1):
        console.print(Text(f"\n{number}. {finding.result.name}", style="bold"))
        for line in finding_lines(finding, of_witness=found.witness is not None):
            console.print(Text(printable(line)), soft_wrap=True)
        console.print(Text(f"   {closed_by(found, finding)}"))
    if len(found.findings) > _FINDINGS:
        console.print(Text(f"\nand {len(found.findings) - _FINDINGS} more: --report and --json have all"))
    for number, change in enumerate(found.changes, start=1):
        console.print(Text(f"\nChange {number}: {change_words(change)}", style="bold"), soft_wrap=True)
        console.print(Text("".join(f"   {line}\n" for line in change.remedy.yaml.splitlines())), end="", soft_wrap=True)
    if found.best_of is not None:
        console.print()
        console.print(best_of_table(found.best_of))
    for each in found.overrated:
        ahead = f"total {each.total:+.2f}, witness {each.witness:+.2f} from the mean of its prompt"
        console.print(Text(printable(f"row {each.row}, best by the total: {ahead}\n   {excerpt(each.completion)}")))
    console.print(Text(f"\n{conclusion(found)}", style="bold"))


def reward_attack_table(found: RewardAttackReport) -> Table:
    """A row an edit at the level with the widest gap, findings in red."""
    headings, rows = reward_attack_rows(found)
    title = f"Edits of {found.answers} answers to {found.prompts} of {found.of_prompts} prompts"
    ends = (0, len(headings) - 1)
    table = text_table(headings, rows, title=title, caption=reward_attack_caption(found), words=ends)
    names = {finding.result.name for finding in found.findings}
    for shown_row, row in zip(table.rows, rows, strict=True):
        shown_row.style = "bold red" if row[0] in names else None
    return table


def reward_attack_rows(found: RewardAttackReport) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row an edit at the level with the widest gap, and the best chain."""
    widest = [*_widest(found.results)]
    of_witness, lost = found.witness is not None, any(result.unscored for result in widest)
    headings = ["edit", "total", *(["witness", "gap"] if of_witness else []), "wins"]
    headings += [*(["unscored"] if lost else []), "paid by"]
    rows = []
    for result in widest:
        gains = [f"{each.value:+.2f}" for each in (result.total, result.witness) if each and not math.isnan(each.value)]
        gap = shown(result.gap, digits=2, signed=True)
        numbers = [*gains, gap] if of_witness else [gap]
        numbers = numbers if result.total.n else ["–"] * (3 if of_witness else 1)
        wins = "–" if math.isnan(result.wins.value) else f"{result.wins.value:.0%}"
        payer = f"{result.payer} {result.paid_by[result.payer]:+.2f}" if result.total.value > 0 else ""
        rows.append([result.name, *numbers, wins, *([str(result.unscored)] if lost else []), payer])
    return headings, rows


def _widest(results: Sequence[EditResult]) -> Iterator[EditResult]:
    seen: set[str] = set()
    for result in results:
        kind = result.chain[0][0] if len(result.chain) == 1 else "chain"
        if kind not in seen:
            seen.add(kind)
            yield result


def reward_attack_caption(found: RewardAttackReport) -> str:
    """How to read the table."""
    trials = len(found.results)
    units = f"gains in standard deviations of {found.unit} (total {found.spread[0]:.4g}"
    units += f", witness {found.spread[1]:.4g})" if found.spread[1] is not None else ")"
    return f"{units}; intervals hold for all {trials} trials at once; of each edit the level with the widest gap"


def finding_lines(finding: Overpayment, *, of_witness: bool) -> Iterator[str]:
    """A finding's example, and what the reward says of it that pays."""
    example, result = finding.example, finding.result
    before, after = example.explanations
    yield f"   row {example.row}: {excerpt(example.prompt)}"
    yield f"   before: {excerpt(example.before)}"
    yield f"   after:  {excerpt(example.after)}"
    yield f"   total {before.total:.4g} -> {after.total:.4g}" + (
        f", witness {example.witness[0]:.4g} -> {example.witness[1]:.4g}" if of_witness and example.witness else ""
    )
    for old, new in zip(before.steps, after.steps, strict=True):
        if old.reward == result.payer:
            because = f" ({new.reason})" if new.reason else ""
            yield f"   {old.reward} pays: {old.raw:.4g} -> {new.raw:.4g}{because}, adds {old.weighted:+.4g} -> {new.weighted:+.4g}"


def closed_by(found: RewardAttackReport, finding: Overpayment) -> str:
    """Which change closes a finding."""
    for number, change in enumerate(found.changes, start=1):
        if finding.result.name in change.closes:
            return f"change {number} closes it"
    return f"none of the {len(finding.remedies)} changes that were tried closes it"


def change_words(change: ClosingChange) -> str:
    """What a change closes, and what it costs."""
    count = len(change.closes)
    told = f"a {change.remedy.kind} that closes {count} {'finding' if count == 1 else 'findings'} ({', '.join(change.closes)})"
    return f"{told}; {'; '.join(_costs(change.remedy))}"


def remedy_words(remedy: Remedy) -> str:
    """What a change does, in words."""
    does = "closes it" if remedy.closes else "does not close it"
    gain = f"the total's gain becomes {shown(remedy.total, digits=2, signed=True)}"
    return f"a {remedy.kind} {does}: {'; '.join([gain, *_costs(remedy)])}"


def _costs(remedy: Remedy) -> Iterator[str]:
    if remedy.kind == "gate":
        yield f"{remedy.stopped:.0%} of the real answers do not pass"
    if not math.isnan(remedy.kept):
        yield f"rank correlation {remedy.kept:.2f} of their totals with those before"


def conclusion(found: RewardAttackReport) -> str:
    """What was found, in a line."""
    count = len(found.findings)
    words = f"{count} overpaid {'edit' if count == 1 else 'edits'}" if count else "no edit is overpaid beyond chance"
    loss = found.best_of.loss if found.best_of else None
    if loss is not None and loss.low > 0:
        words += "; choosing the best by the total costs what the witness says"
    return words
