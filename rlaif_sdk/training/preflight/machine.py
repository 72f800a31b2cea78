"""What the machine has: memory, processors, devices."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GIB = 2**30

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container's limit stands, in the second and the first version of control groups."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Memory in bytes.

    Attributes:
        ram: All memory that this process may ever have: the machine's, or its container's limit.
        ram_free: What of it is free now.
        cuda: The memory of the CUDA device that training uses; None for training on the CPU.
        cuda_free: What of it is free now.
        process: What this process holds already, its libraries above all.
    """

    ram: int
    ram_free: int
    cuda: int | None
    cuda_free: int | None
    process: int

    @classmethod
    def look(cls, device: Any = "cpu") -> Machine:
        """Look at this machine.

        Args:
            device: Where training will run, a `torch.device` or its name.
        """
        import psutil
        import torch

        memory = psutil.virtual_memory()
        process = psutil.Process().memory_info().rss
        limit = container_limit()
        ram = min(memory.total, limit or memory.total)
        free, total = torch.cuda.mem_get_info(device) if torch.device(device).type == "cuda" else (None, None)
        return cls(ram, min(memory.available, ram - process), total, free, process)


def container_limit(files: tuple[Path, ...] = _LIMITS) -> int | None:
    """The memory limit of the container that this process is in, in bytes; None if there is none."""
    for file in files:
        try:
            return int(file.read_text(encoding="ascii"))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return None


def peak_memory() -> int:
    """The most memory that this process ever held, in bytes."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def hardware() -> dict[str, Any]:
    """What the machine is, as JSON values, for the record of a run."""
    import torch

    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "ram_gib": round(Machine.look().ram / GIB, 1),
        "cuda": cuda,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
