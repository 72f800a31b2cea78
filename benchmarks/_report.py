"""Interleaved timing, and results written with the name of the machine that they were measured on."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def interleaved(
    variants: Mapping[str, Callable[[], object]], *, repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each call, the variants taking turns, so that whatever else the machine does hits all of them.

    The order turns with every round; one unmeasured round comes first. ``time.process_time`` as the clock counts the
    processor's time in all threads of this process, which other processes do not change much.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for round_number in range(-1, repeats):
        for name in names[round_number % len(names) :] + names[: round_number % len(names)]:
            since = clock()
            variants[name]()
            if round_number >= 0:
                seconds[name].append(clock() - since)
    return seconds


def median_ratio(seconds: list[float], base: list[float]) -> float:
    """The median over rounds of one variant's time over another's in the same round."""
    return statistics.median(own / other for own, other in zip(seconds, base, strict=True))


def hardware() -> str:
    """The machine in words."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else platform.processor() or platform.machine()}"


def save(name: str, results: Mapping[str, Any], table: str) -> None:
    """Print a table, and write it and the figures to ``results/NAME.md`` and ``results/NAME.json``."""
    packages = ", ".join(f"{package} {version(package)}" for package in ("numpy", "pydantic", "trl", "torch"))
    where = f"{hardware()}, {platform.system()}, Python {platform.python_version()}, {packages}"
    print(f"{table}\n\n{where}")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(f"{table}\n\nMeasured on {where}.\n", encoding="utf-8")
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": where, **results}, indent=2) + "\n", encoding="utf-8")
