"""Makes torch, and what is built on it, believe in CUDA devices: `install` before anything asks ``torch.cuda``.

Numbers are real, computed by the CPU's kernels on host memory (``device.cpp``, compiled at the first call, which takes
one to four minutes, into torch's cache of extensions). An operation on tensors of two devices is refused as CUDA
refuses it, copies and waits are counted, bytes held are known. It knows nothing of speed, of NCCL, of vLLM, of
onnxruntime's CUDA provider, or of kernels that exist for CUDA only, some of which are replaced here.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import importlib.util
import os
import runpy
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import torch

_SOURCE = Path(__file__).with_name("device.cpp")
_TORCH = str(Path(torch.__file__).parent)

card = SimpleNamespace(name="Pretend H100", capability=(9, 0), memory=80 * 2**30)
"""What the devices say of themselves; a test may change it for a while."""


def compiled() -> Any:
    """The extension, compiled where that has not been done yet for this source and this torch."""
    from torch.utils.cpp_extension import get_default_build_root, load

    of = hashlib.sha256(_SOURCE.read_bytes() + torch.__version__.encode()).hexdigest()[:12]
    folder = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root(), f"pretend_cuda_{of}")
    built = folder / "pretend_cuda.so"
    if not built.exists():
        folder.mkdir(parents=True, exist_ok=True)
        flags = ["-O1", "-fvisibility=hidden"]
        return load("pretend_cuda", [str(_SOURCE)], extra_cflags=flags, build_directory=str(folder))
    spec: Any = importlib.util.spec_from_file_location("pretend_cuda", built)
    extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)
    return extension


class Event:
    """Has happened as soon as it is recorded."""

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def record(self, *_: Any) -> None: ...
    def wait(self, *_: Any) -> None: ...
    def synchronize(self) -> None: ...
    def query(self) -> bool:
        return True

    def elapsed_time(self, _: Any) -> float:
        return 0.0


class Stream:
    """The one stream."""

    cuda_stream = stream_id = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        self.device = torch.device("cuda", torch.cuda.current_device())

    def wait_stream(self, *_: Any) -> None: ...
    def wait_event(self, *_: Any) -> None: ...
    def synchronize(self) -> None: ...
    def query(self) -> bool:
        return True

    def record_event(self, event: Any = None) -> Any:
        return event or Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def install(devices: int = 1) -> Any:
    """Pretend so many devices, for the rest of the process.

    Returns:
        The extension: ``held()`` and ``peak()`` are bytes, `Waits` reads what it tells.
    """
    import torch._dynamo
    import torch._inductor.utils  # noqa: F401 - it looks for CUDA when it is imported

    with contextlib.suppress(ImportError):
        import bitsandbytes  # noqa: F401 - likewise

    extension = compiled()
    extension.set_device_count(devices)
    _replace_torch_cuda(extension)
    _replace_storage_copies()
    _register_kernels()
    return extension


def _replace_torch_cuda(extension: Any) -> None:  # noqa: C901 - one small function for each that is replaced
    def index(of: Any = None) -> int:
        found = of if isinstance(of, int) else None if of is None else torch.device(of).index
        return int(extension.current_device() if found is None else found)

    class Device(contextlib.ContextDecorator):
        def __init__(self, of: Any) -> None:
            self.index = index(of)

        def __enter__(self) -> None:
            self.before = extension.current_device()
            if self.index >= 0:
                extension.set_device(self.index)

        def __exit__(self, *_: object) -> None:
            extension.set_device(self.before)

    def generator(of: Any = None) -> Any:
        return extension.default_generator(index(of))

    def all_generators() -> list[Any]:
        return [extension.default_generator(i) for i in range(extension.device_count())]

    def properties(of: Any = None) -> Any:
        major, minor = card.capability
        return SimpleNamespace(
            name=card.name,
            major=major,
            minor=minor,
            total_memory=card.memory,
            multi_processor_count=132,
            warp_size=32,
            gcnArchName="",
            uuid="0",
            L2_cache_size=50 << 20,
            regs_per_multiprocessor=65536,
            max_threads_per_multi_processor=2048,
            is_integrated=False,
            is_multi_gpu_board=False,
            shared_memory_per_block=49152,
            shared_memory_per_block_optin=232448,
            shared_memory_per_multiprocessor=233472,
        )

    replaced = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "init": lambda: None,
        "_is_in_bad_fork": lambda: False,
        "device_count": extension.device_count,
        "current_device": extension.current_device,
        "set_device": lambda of: extension.set_device(index(of)),
        "can_device_access_peer": lambda *_: True,
        "get_arch_list": lambda: ["sm_90"],
        "is_bf16_supported": lambda including_emulation=True: including_emulation or card.capability >= (8, 0),
        "is_tf32_supported": lambda: card.capability >= (8, 0),
        "get_device_capability": lambda of=None: card.capability,
        "get_device_name": lambda of=None: card.name,
        "get_device_properties": properties,
        "empty_cache": lambda: None,
        "ipc_collect": lambda: None,
        "synchronize": lambda of=None: extension.synchronize(),
        "is_current_stream_capturing": lambda: False,
        "set_sync_debug_mode": lambda mode: extension.listen(_warn if mode == "warn" else None),
        "current_stream": lambda of=None: Stream(),
        "default_stream": lambda of=None: Stream(),
        "set_stream": lambda stream: None,
        "stream": lambda stream: contextlib.nullcontext(),
        "StreamContext": lambda stream: contextlib.nullcontext(),
    }
    random = {
        "manual_seed": lambda seed: generator().manual_seed(int(seed)),
        "manual_seed_all": lambda seed: [each.manual_seed(int(seed)) for each in all_generators()],
        "initial_seed": lambda: generator().initial_seed(),
        "get_rng_state": lambda of="cuda": generator(of).get_state(),
        "set_rng_state": lambda state, of="cuda": generator(of).set_state(state),
        "get_rng_state_all": lambda: [each.get_state() for each in all_generators()],
        "set_rng_state_all": lambda states: [
            each.set_state(state) for each, state in zip(all_generators(), states, strict=False)
        ],
    }
    memory = {
        "memory_allocated": lambda of=None: extension.held(),
        "max_memory_allocated": lambda of=None: extension.peak(),
        "memory_reserved": lambda of=None: extension.held(),
        "max_memory_reserved": lambda of=None: extension.peak(),
        "reset_peak_memory_stats": lambda of=None: extension.reset_peak(),
        "reset_max_memory_allocated": lambda of=None: extension.reset_peak(),
        "mem_get_info": lambda of=None: (card.memory - extension.held(), card.memory),
        "memory_stats": lambda of=None: {"allocated_bytes.all.peak": extension.peak(), "num_alloc_retries": 0},
        "empty_cache": lambda: None,
    }
    for module, functions in (
        (torch.cuda, replaced | random | memory),
        (torch.cuda.random, random),
        (torch.cuda.memory, memory),
    ):
        for name, function in functions.items():
            setattr(module, name, function)
    torch.cuda.device = Device
    torch.cuda.Stream = Stream
    torch.cuda.Event = Event
    torch.cuda.default_generators = tuple(all_generators())
    torch.cuda._initialized = True
    torch._C._cuda_getDeviceCount = extension.device_count
    torch._C._cuda_getDevice = extension.current_device
    torch._C._cuda_setDevice = extension.set_device
    torch._C._has_cuda = True
    torch.version.cuda = "12.8"
    torch.backends.cuda.is_built = lambda: True


def _warn(kind: str, operation: str, _: int) -> None:
    """As torch's own mode of debugging warns."""
    if kind != "h2d_async":
        warnings.warn(f"called a synchronizing CUDA operation: {operation}", stacklevel=2)


def _replace_storage_copies() -> None:
    """Storages copy themselves past the dispatcher."""

    def bytes_of(storage: Any) -> torch.Tensor:
        return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)

    plain_to, plain_clone = torch.storage._to, torch.storage._StorageBase.clone

    def to(self: Any, device: Any, non_blocking: bool = False) -> Any:
        if torch.device(device).type != "cuda":
            return plain_to(self, device, non_blocking)
        return bytes_of(self).to(device, copy=True).untyped_storage()

    def clone(self: Any) -> Any:
        return bytes_of(self).clone().untyped_storage() if self.device.type == "cuda" else plain_clone(self)

    torch.storage._to = to
    torch.storage._StorageBase.clone = clone


_library = torch.library.Library("aten", "IMPL")


def _register_kernels() -> None:
    """What torch has for CUDA only, or would do on a CPU with a matrix of all attention scores."""

    def addmm(x: Any, a: Any, b: Any, dtype: Any, *, beta: float = 1, alpha: float = 1) -> Any:
        return torch.addmm(x.to(dtype), a.to(dtype), b.to(dtype), beta=beta, alpha=alpha)

    def addmm_out(*args: Any, out: Any, **options: Any) -> Any:
        return out.copy_(addmm(*args, **options))

    def product(a: Any, b: Any, dtype: Any) -> Any:
        return a.to(dtype) @ b.to(dtype)

    def histogram(x: Any, bins: int = 100, lowest: float = 0, highest: float = 0) -> Any:
        return torch.histc(x.cpu().double(), bins, lowest, highest).to(x)

    def attention(
        q: Any,
        k: Any,
        v: Any,
        bias: Any = None,
        p: float = 0.0,
        causal: Any = False,
        _: Any = False,
        *,
        scale: Any = None,
    ) -> Any:
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, p, causal, attn_mask=bias, scale=scale
        )
        none = torch.empty(0, device=q.device)
        return out, lse, none, none, q.shape[2], k.shape[2], none, none, none

    def attention_backward(grad: Any, q: Any, k: Any, v: Any, bias: Any, *rest: Any, scale: Any = None) -> Any:
        _mask, out, lse, *_, p, causal, _seed, _offset = rest
        grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad,
            q,
            k,
            v,
            out,
            lse,
            p,
            causal,
            attn_mask=bias if bias is not None and bias.numel() else None,
            scale=scale,
        )
        return (*grads, None)

    for name, kernel in {
        "_scaled_dot_product_fused_attention_overrideable": attention,
        "_scaled_dot_product_fused_attention_overrideable_backward": attention_backward,
        "histc": histogram,  # of integers, too
        "addmm.dtype": addmm,
        "addmm.dtype_out": addmm_out,
        "mm.dtype": product,
        "bmm.dtype": product,
    }.items():
        _library.impl(name, kernel, "CUDA")


class Waits:
    """Within, counts copies between host and device and waits of the host, by the line that calls torch for them.

    Attributes:
        lines: How often by kind and line: ``item``, ``sync``, ``d2h`` and ``h2d`` wait, ``h2d_async`` does not.
    """

    def __init__(self, extension: Any) -> None:
        self._extension = extension
        self.lines: collections.Counter[tuple[str, str]] = collections.Counter()

    def __call__(self, kind: str, _: str, __: int) -> None:
        frame: Any = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename.startswith(_TORCH):
            frame = frame.f_back
        self.lines[kind, f"{frame.f_code.co_filename}:{frame.f_lineno}"] += 1

    def of(self, files: str) -> dict[tuple[str, str], int]:
        """How often the host waited, in lines of files whose path contains ``files``."""
        return {place: n for place, n in self.lines.items() if files in place[1] and place[0] != "h2d_async"}

    def __enter__(self) -> Self:
        self._extension.listen(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._extension.listen(None)


if __name__ == "__main__":  # ... SCRIPT ARGUMENTS, on the device; without a script it is compiled
    install()
    if scripts := sys.argv[1:]:
        sys.argv = scripts
        sys.path.insert(0, str(Path(scripts[0]).parent))
        runpy.run_path(scripts[0], run_name="__main__")
