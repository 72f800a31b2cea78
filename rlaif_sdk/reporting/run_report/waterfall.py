"""A sample row: its texts, and how its total came about, step by step."""

from __future__ import annotations

import math

from rlaif_sdk.composer.explain import Explanation, WaterfallStep
from rlaif_sdk.reporting.run_report.markup import Markup, element, items, joined, table
from rlaif_sdk.reporting.run_report.samples import SampleRow

LONGEST = 6000
"""Texts are cut after so many characters."""
_EXCERPT = 110


def sample(row: SampleRow) -> Markup:
    """A row that unfolds: step, total and the beginning of the prompt, then everything."""
    head = f"step {row.step} · {row.why} · {number(row.explanation.total) or 'unscored'}"
    excerpt = " ".join(row.prompt.split())[:_EXCERPT]
    summary = element("summary", element("span", head, class_="head"), element("span", excerpt, class_="excerpt"))
    texts = (element("h3", "Prompt"), text(row.prompt), element("h3", "Completion"), text(row.completion))
    return element(
        "details", summary, element("div", *texts, element("h3", "How its total came about"), steps(row.explanation))
    )


def text(value: str) -> Markup:
    """A text as it is, cut where it is very long."""
    if len(value) <= LONGEST:
        return element("pre", value)
    return element(
        "pre", value[:LONGEST], element("span", f"\n… {len(value) - LONGEST} more characters", class_="soft")
    )


def steps(explanation: Explanation) -> Markup:
    """The waterfall as a table with bars, and what constraints and gates did."""
    low, high = _extent(explanation)
    rows = [_step(step, low, high) for step in explanation.steps]
    bar = "" if math.isnan(explanation.total) else _bar(0.0, explanation.total, low, high, "sum")
    rows.append(("total", "", "", "", number(explanation.total) or "unscored", bar, explanation.note))
    said = [
        *(f"constraint {line}" for line in explanation.constraints),
        *(f"gate {line}" for line in explanation.gates),
    ]
    headings = ("reward", "raw", "normalised", "weight", "adds", "", "why")
    return joined([table(headings, rows, class_="waterfall"), items(said)])


def number(value: float) -> str:
    """Four significant digits; nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.4g}"


def _step(step: WaterfallStep, low: float, high: float) -> tuple[object, ...]:
    moves = not math.isnan(step.weighted) and step.weighted != 0
    status = "" if step.status in {"scored", "cached"} else step.status
    why = f"{status}: {step.reason}" if status and step.reason else status or step.reason or ""
    bar = _bar(step.running - step.weighted, step.running, low, high) if moves else ""
    adds = "" if math.isnan(step.weighted) else f"{step.weighted:+.4g}" if moves else "0"
    return (step.reward, number(step.raw), number(step.normalized), f"{step.weight:g}", adds, bar, why)


def _extent(explanation: Explanation) -> tuple[float, float]:
    ends = [0.0, *(step.running for step in explanation.steps), explanation.total]
    known = [end for end in ends if math.isfinite(end)]
    return min(known), max(known)


def _bar(start: float, end: float, low: float, high: float, kind: str = "") -> Markup:
    """A bar from one value to another, on a scale from low to high."""
    scale = 100.0 / ((high - low) or 1.0)
    left, length = (min(start, end) - low) * scale, abs(end - start) * scale
    kind = kind or ("up" if end >= start else "down")
    return element("div", element("i", class_=kind, style=f"left: {left:.2f}%; width: {length:.2f}%"), class_="track")
