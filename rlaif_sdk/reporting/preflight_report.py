"""What a check has found, as tables on the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rlaif_sdk.conversations import shown
from rlaif_sdk.reporting.live_view import reporter
from rlaif_sdk.reporting.tables import text_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from rlaif_sdk.composer import Composition
    from rlaif_sdk.composer.check import Check
    from rlaif_sdk.training.preflight.memory import Machine, MemoryEstimate
    from rlaif_sdk.training.preflight.model_files import LoadedModel

_EXCERPT = 80
_PLAIN: dict[str, Any] = {"box": None, "pad_edge": False, "overflow": "fold"}
"""How these tables look: without rules, and with all of a long text."""
_OF_A_LABEL = ("prob_1", "flipped", "tie", "label_kind", "label_mass")
_PURPOSES = {
    "process": "Python and libraries",
    "rewards": "models of the rewards",
    "weights": "weights",
    "reference": "frozen reference",
    "critic": "separate critic",
    "gradients": "gradients",
    "optimizer": "optimiser's state",
    "buckets": "gradients between processes",
    "vllm": "vLLM's share",
    "copies": "weights in the type that is computed in",
    "activations": "activations",
    "logits": "logits",
    "generation": "sampling",
}


def report_check(found: Check, console: Console) -> None:
    """Print what was read, what a run would load and the memory that it may take, what one row gave, and what is wrong.

    Args:
        found: What was found; of training a `rlaif_sdk.training.preflight.Preflight`.
        console: Where to print.
    """
    say = reporter(console)
    for name, table in found.data.items():
        columns = f" ({', '.join(table['columns'])})" if "columns" in table else ""
        digest = f", {table['digest']}" if "digest" in table else ""
        say(f"{name}: {table['rows']:,} rows{digest}{columns}")
    if models := getattr(found, "models", None):
        console.print(_models(models))
    if (memory := getattr(found, "memory", None)) and (machine := getattr(found, "machine", None)):
        console.print(_memory(memory, machine))
    for key, composition in found.scored.items():
        answer = " ".join(shown(composition.batch.completions[0]).split())[:_EXCERPT]
        say(f"\nWhat each reward of {key} gives for the first row, answered by {answer!r}")
        console.print(_scores(composition))
    for key, (completions, calls) in found.model_calls.items():
        told = ", ".join(f"{name} {count:,}" for name, count in calls.items())
        say(f"\nCalls of a model that {key} makes at most for the completions to a prompt ({completions}): {told}")
    for key, label in found.judged.items():
        said = {name: value for name, value in label.items() if name in _OF_A_LABEL and value is not None}
        say(f"\nWhat {key} says of one pair: {', '.join(f'{name} {value}' for name, value in said.items())}")
    for warning in found.warnings:
        say(f"warning: {warning}")
    for problem in found.problems:
        say(f"wrong: {problem}")
    if not found.problems:
        console.print("Nothing keeps this from starting.")


def _scores(composition: Composition) -> Table:
    rows = [
        (name, _number(column.raw[0]), column.status(0), column.reason(0) or "")
        for name, column in composition.rewards.items()
    ]
    return text_table(("reward", "score", "status", "reason"), rows, words=(0, 2, 3), **_PLAIN)


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4g}"


def _models(models: Sequence[LoadedModel]) -> Table:
    from rlaif_sdk.training.preflight import gib

    rows = []
    for model in models:
        files = model.files
        numbers = f"{files.parameters:,}" if files.parameters else ""
        size = gib(files.bytes) if files.folder else "not downloaded yet"
        rows.append((model.role, files.name, numbers, files.dtype or "", size))
    headings = ("for", "model", "numbers", "type", "on disk")
    return text_table(headings, rows, title="What it loads", words=(0, 1, 3), **_PLAIN)


def _memory(memory: MemoryEstimate, machine: Machine) -> Table:
    from rlaif_sdk.training.preflight import gib

    table = text_table(("", ""), title="Memory, by estimate", **_PLAIN)
    for part, size in asdict(memory).items():
        if size and part in _PURPOSES:
            table.add_row(_PURPOSES[part], gib(size))
    table.add_row("at its peak", gib(memory.peak), style="bold")
    table.add_row("memory of this machine", gib(machine.ram))
    table.add_row("free now", gib(machine.ram_free))
    if machine.cuda is not None:
        table.add_row("memory of the CUDA device", gib(machine.cuda))
    return table
