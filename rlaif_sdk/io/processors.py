"""How many processors this process may use, and what they are."""

from __future__ import annotations

import contextlib
import math
import os
import platform
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def processor_count() -> int:
    """The processors of this process's affinity, or of its container's quota where that is less; at least 1.

    Work beyond the quota would only take turns, and wait for each other.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min(allowed, _quota()))


def processor_name() -> str:
    """The model of the processors, as Linux has it; elsewhere what the platform says."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _quota() -> float:
    """The processors that Linux's control group grants this process, in its second version or its first."""
    for files in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            granted, period = (int(word) for file in files for word in (_CGROUP / file).read_text().split())
            return granted / period if granted > 0 else math.inf
    return math.inf
