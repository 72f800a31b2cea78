"""Opens an onnxruntime session on the execution provider that really loads.

onnxruntime lists providers that were compiled in, not ones that work: asked for CUDA on a machine without it, it
prints an error and runs on the CPU. So the driver is asked first, and the session is asked afterwards.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import ConfigError, needs_extra
from rlaif_sdk.io.devices import own_gpu
from rlaif_sdk.io.processors import processor_count

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"

_SLOW_ON_CPU = ("SkipLayerNormFusion",)
"""onnxruntime's fused kernel is some ten times slower on a CPU than the addition and the normalisation that it replaces."""

_CUDA_NEEDS = "it needs onnxruntime-gpu, an NVIDIA driver, CUDA and cuDNN; leave device out to use what works"

_NO_OVERFLOW = ("session.x64quantprecision", "1")
"""Eight-bit products saturate on x86 processors without VNNI, and scores change unnoticed; with this they do not."""


def open_session(
    graph_file: Path, device: str | None, *, cpu_file: Path | None = None
) -> tuple[onnxruntime.InferenceSession, Path]:
    """A session on ``cpu``, ``cuda`` (the process's own device) or ``cuda:N``; with None on CUDA where it works.

    Args:
        graph_file: The graph.
        device: Where it is to run.
        cpu_file: What the CPU runs in its place, if it has no kernels for it.

    Returns:
        The session, and the file that it runs.

    Raises:
        ConfigError: The device is unknown or cannot be used, or the file is no valid ONNX model.
        MissingExtraError: onnxruntime is not installed.
    """
    with needs_extra("onnx"):
        import onnxruntime

    cuda_device = re.fullmatch(r"cuda(?::(\d+))?", device or "cuda")
    if device != "cpu" and cuda_device is None:
        raise ConfigError(f"unknown device {device!r} for an ONNX classifier", hint="cpu, cuda or cuda:N")
    count = cuda_device_count() if device != "cpu" and offers_cuda() else 0
    index = int(cuda_device[1]) if cuda_device and cuda_device[1] else own_gpu(max(count, 1))
    usable = index < count
    if usable:
        onnxruntime.preload_dlls()
        failure = "onnxruntime takes the CPU by itself"
        try:
            # its pool of memory grows by what is asked for, not to the double, beside a policy that trains
            cuda = {"device_id": index, "arena_extend_strategy": "kSameAsRequested"}
            session = _opened(graph_file, [(_CUDA, cuda), _CPU])
            if session.get_providers()[0] == _CUDA:
                return session, graph_file
        except ConfigError as error:
            if device is not None:
                raise
            failure = error.message
        if device is None:
            logger.warning("%s does not run on the CUDA device: %s", graph_file, failure)
    if device is not None and device != "cpu":
        raise ConfigError(f"the device {device!r} cannot be used by onnxruntime here", hint=_CUDA_NEEDS)
    chosen = cpu_file or graph_file
    return _opened(chosen, [_CPU]), chosen


def _opened(graph_file: Path, providers: Sequence[Any]) -> onnxruntime.InferenceSession:
    """A session on the first of the providers that works."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = thread_count()
    settings.log_severity_level = 3
    settings.add_session_config_entry(*_NO_OVERFLOW)
    only_cpu = len(providers) == 1
    try:
        return onnxruntime.InferenceSession(
            graph_file,
            settings,
            providers=providers,
            disabled_optimizers=_SLOW_ON_CPU if only_cpu else [],
            enable_fallback=0,
        )
    except Exception as error:  # onnxruntime's exceptions have no common base
        hint = None if only_cpu else _CUDA_NEEDS
        if "opset" in str(error).lower():
            hint = f"onnxruntime {onnxruntime.__version__} does not read its opset: a later one does, 1.23 what rlaif exports"
        raise ConfigError(
            f"onnxruntime cannot load it: {str(error).strip()}", file=str(graph_file), hint=hint
        ) from error


def thread_count() -> int:
    """How many threads a model gets: ``OMP_NUM_THREADS``, else the processors that this process may use."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdecimal() and int(stated) > 0:
        return int(stated)
    return processor_count()


def offers_cuda() -> bool:
    """Whether onnxruntime is installed and was built for CUDA, which says nothing of whether CUDA works."""
    try:
        import onnxruntime
    except ImportError:
        return False
    return _CUDA in onnxruntime.get_available_providers()


@cache
def cuda_device_count() -> int:
    """How many CUDA devices the NVIDIA driver offers; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    return 0 if failed else count.value
