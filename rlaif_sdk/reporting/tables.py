"""Tables for the terminal, in which no text acts: measures before and after, reliability, and answers side by side."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from rlaif_sdk.conversations import USER, shown
from rlaif_sdk.io.text import printable
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.estimates import SampleMean, paired_change, sample_mean

if TYPE_CHECKING:
    from rich.console import OverflowMethod

    from rlaif_sdk.composer import Composition
    from rlaif_sdk.statistics.calibration import Calibration


def cell(text: str) -> Text:
    """Other people's text in a table of a terminal: no markup, and no control character acts."""
    return Text(printable(text))


def text_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]] = (),
    *,
    title: str = "",
    caption: str = "",
    words: Container[int] = (0,),
    overflow: OverflowMethod = "ellipsis",
    **options: Any,
) -> Table:
    """A table with its title and caption on the left; text in it is no markup, and no control character in it acts.

    Args:
        headings: Of the columns.
        rows: Their cells.
        title: Stands above the table.
        caption: Stands below it.
        words: The places of the columns that are words, on the left; the others are numbers, on the right.
        overflow: What becomes of a cell that is wider than its column.
        **options: See rich's `Table`.
    """
    table = Table(
        title=Text(printable(title), "table.title"),
        title_justify="left",
        caption=Text(printable(caption), "table.caption") if caption else None,
        caption_justify="left",
        **options,
    )
    for place, heading in enumerate(headings):
        table.add_column(cell(heading), justify="left" if place in words else "right", overflow=overflow)
    for row in rows:
        table.add_row(*map(cell, row))
    return table


def format_estimate(value: SampleMean, *, signed: bool = False) -> str:
    """``0.512 ± 0.031``; a dash where nothing was measured, and no error from a single value."""
    if math.isnan(value.mean):
        return "–"
    digits = 1 if abs(value.mean) >= 10 else 3
    mean = f"{value.mean:{'+' if signed else ''}.{digits}f}"
    return mean if math.isnan(value.standard_error) else f"{mean} ± {value.standard_error:.{digits}f}"


def format_number(value: float | None, *, digits: int = 3) -> str:
    """A number to so many digits; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def comparison_table(
    before: Mapping[str, Array],
    after: Mapping[str, Array],
    *,
    title: str,
    total: str | None = None,
    notes: Sequence[str] = (),
) -> Table:
    """One row a measure: its mean before and after, the paired change, and of how many rows.

    Args:
        before: (B,) values by measure; NaN where a row has none.
        after: The same measures of the same rows.
        title: Stands above the table.
        total: The measure that is set apart at the end, in bold.
        notes: Lines below the table.
    """
    caption = "\n".join(["mean ± standard error", *notes])
    table = text_table(("", "before", "after", "change", "rows"), title=title, caption=caption)
    for name, values_B in before.items():
        change = paired_change(values_B, after[name])
        if name == total:
            table.add_section()
        table.add_row(
            cell(name),
            format_estimate(sample_mean(values_B)),
            format_estimate(sample_mean(after[name])),
            format_estimate(change, signed=True),
            str(change.n),
            style="bold" if name == total else None,
        )
    return table


def answers_table(prompts: Sequence[Any], completions: Sequence[Any], composition: Composition) -> Table:
    """One row an answer: the prompt, the answer, and its total; a dash where it is unscored."""
    table = Table(title="Answers and their totals", title_justify="left", show_lines=True)
    table.add_column("prompt", ratio=2)
    table.add_column("answer", ratio=4)
    table.add_column("total", justify="right", no_wrap=True)
    for prompt, completion, total in zip(prompts, completions, composition.totals.tolist(), strict=True):
        scored = "–" if math.isnan(total) else f"{total:+.3f}"
        table.add_row(cell(shown(prompt, role=USER)), cell(shown(completion)), scored)
    return table


def before_after_table(before: Mapping[str, float], after: Mapping[str, float], *, title: str) -> Table:
    """One row a number of an evaluation, before and after training."""
    rows = [(name, f"{value:.3f}", f"{after[name]:.3f}") for name, value in before.items()]
    return text_table(("", "before", "after"), rows, title=title)


def reliability_table(calibration: Calibration, *, title: str = "Reliability") -> Table:
    """One row a bin of confidence that holds any pairs; the calibration error stands below.

    Args:
        calibration: What an evaluation found.
        title: Stands above the table.
    """
    caption = f"expected calibration error {calibration.error:.3f} over {len(calibration.bins)} bins"
    rows = [
        (f"{part.low:.2f} to {part.high:.2f}", str(part.pairs), f"{part.confidence:.3f}", f"{part.accuracy:.3f}")
        for part in calibration.bins
        if part.pairs
    ]
    headings = ("confidence", "pairs", "mean confidence", "accuracy")
    return text_table(headings, rows, title=title, caption=caption, words=())


def samples_table(samples: Sequence[Mapping[str, Any]], *, count: int = 5) -> Table:
    """Answers side by side, with their composed rewards.

    Args:
        samples: Mappings with ``prompt``, and under ``before`` and ``after`` a ``completion`` and its ``total``.
        count: How many, spread evenly over the samples.
    """
    table = Table(title="Sample answers", title_justify="left", show_lines=True, expand=True)
    for heading, ratio in (("prompt", 2), ("before", 3), ("after", 3)):
        table.add_column(heading, ratio=ratio, overflow="fold")
    count = min(count, len(samples))
    for index in range(count):
        sample = samples[index * len(samples) // count]
        table.add_row(cell(shown(sample["prompt"], role=USER)), _answer(sample["before"]), _answer(sample["after"]))
    return table


def _answer(record: Mapping[str, Any]) -> Text:
    total = record["total"]
    text = cell(shown(record["completion"]).strip() or "(empty)")
    return text.append(f"\n[{'unscored' if total is None else format(total, '.3f')}]", style="dim")
