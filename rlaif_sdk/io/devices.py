"""Which GPU is this process's own, and what it computes in."""

from __future__ import annotations

import os


def own_gpu(count: int) -> int:
    """The index of this process's GPU: a launcher gives its processes one each, in order, as accelerate takes them.

    Args:
        count: How many GPUs the process sees; 1 at least.
    """
    return int(os.environ.get("LOCAL_RANK", "0")) % count


def own_device(device: str | None = None) -> str:
    """A device for `torch.Tensor.to`: ``cuda``, or None where there is CUDA, is this process's GPU; all else stays.

    It has an index under a launcher. What loads in a thread would else load all processes' models onto the first GPU:
    a new thread begins with that one.
    """
    import torch

    if device not in {None, "cuda"}:
        return str(device)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        return device or "cpu"
    return f"cuda:{own_gpu(count)}" if "LOCAL_RANK" in os.environ else "cuda"


def computes_in_bfloat16() -> bool:
    """Whether there is a GPU with bfloat16 of its own; a V100 or T4 emulates it, more slowly than it does float32."""
    import torch

    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
