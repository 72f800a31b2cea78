"""What was found of a run before it started, as tables on the terminal."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table

from rlaif_sdk.reporting.live_view import reporter
from rlaif_sdk.reporting.tables import cell

if TYPE_CHECKING:
    from rich.console import Console

    from rlaif_sdk.composer import Composition
    from rlaif_sdk.training.preflight import Preflight

_PURPOSES = {
    "process": "Python and libraries",
    "rewards": "models of the rewards",
    "weights": "weights",
    "reference": "frozen reference",
    "critic": "separate critic",
    "gradients": "gradients",
    "optimizer": "optimiser's state",
    "activations": "activations",
    "logits": "logits",
    "generation": "sampling",
}


def report_preflight(found: Preflight, console: Console) -> None:
    """Print what a run would load, the memory that it may take, and what is wrong.

    Args:
        found: What was found.
        console: Where to print.
    """
    from rlaif_sdk.training.preflight import CHECK_ANSWER

    say = reporter(console)
    for name, table in found.data.items():
        columns = ", ".join(table["columns"])
        say(f"{name}: {table['rows']:,} rows, {table['digest']} ({columns})")
    if found.models:
        console.print(_models(found))
    if found.memory and found.machine:
        console.print(_memory(found))
    for key, composition in found.scored.items():
        title = f"\nWhat each reward of {key} gives for the first row, answered by {CHECK_ANSWER!r}"
        say(title)
        console.print(_scores(composition))
    for warning in found.warnings:
        say(f"warning: {warning}")
    for problem in found.problems:
        say(f"wrong: {problem}")
    if not found.problems:
        console.print("Nothing keeps this run from starting.")


def _scores(composition: Composition) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("reward", "score", "status", "reason"):
        table.add_column(heading, justify="right" if heading == "score" else "left", overflow="fold")
    for name, column in composition.rewards.items():
        score = "" if math.isnan(column.raw[0]) else f"{column.raw[0]:.4g}"
        table.add_row(*(cell(text) for text in (name, score, column.status(0), column.reason(0) or "")))
    return table


def _models(found: Preflight) -> Table:
    from rlaif_sdk.training.preflight import gib

    table = Table(title="What it loads", title_justify="left", box=None, pad_edge=False)
    for heading in ("for", "model", "numbers", "type", "on disk"):
        table.add_column(heading, justify="right" if heading in {"numbers", "on disk"} else "left", overflow="fold")
    for model in found.models:
        files = model.files
        numbers = f"{files.parameters:,}" if files.parameters else ""
        size = gib(files.bytes) if files.folder else "not downloaded yet"
        table.add_row(model.role, files.name, numbers, files.dtype or "", size)
    return table


def _memory(found: Preflight) -> Table:
    from rlaif_sdk.training.preflight import gib

    assert found.memory is not None
    assert found.machine is not None
    table = Table(title="Memory, by estimate", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    table.add_column("", justify="right")
    for part, size in asdict(found.memory).items():
        if size:
            table.add_row(_PURPOSES[part], gib(size))
    table.add_row("at its peak", gib(found.memory.peak), style="bold")
    table.add_row("memory of this machine", gib(found.machine.ram))
    table.add_row("free now", gib(found.machine.ram_free))
    if found.machine.cuda is not None:
        table.add_row("memory of the CUDA device", gib(found.machine.cuda))
    return table
