"""What runs an exported model fastest on this machine: measured once, kept in the user's cache folder.

Which engine wins depends on the processor (whether it multiplies bfloat16 or eight-bit integers, say), and so does the
best batch: large ones waste padding, small ones waste calls.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlaif_sdk.exceptions import RlaifError
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.files import default_cache_dir, write_json
from rlaif_sdk.io.processors import processor_name
from rlaif_sdk.io.token_batches import token_batches
from rlaif_sdk.io.versions import installed_versions
from rlaif_sdk.models.batching import BatchedClassifier
from rlaif_sdk.models.encoding import TokenArrays
from rlaif_sdk.models.manifest import Manifest
from rlaif_sdk.models.model_folder import folder_revision
from rlaif_sdk.models.onnx_engine import load_onnx_classifier
from rlaif_sdk.models.onnx_providers import cuda_device_count, offers_cuda, thread_count
from rlaif_sdk.models.parity import TEXTS, ProbeInput, padded_probes
from rlaif_sdk.models.scoring_config import LoadOptions
from rlaif_sdk.statistics.correlation import rank_correlation

if TYPE_CHECKING:
    import openvino

logger = logging.getLogger(__name__)

Open = Callable[[], BatchedClassifier]
EXACT = "onnx/fp32"
CPU_BUDGETS = (1024, 512, 2048, 256)
GPU_BUDGETS = (16_384, 4_096, 32_768, 65_536)
"""Tokens in a batch to try, the usual best first: another must be clearly faster to be taken."""

_CLEARLY = 0.95
_SAMPLE_TOKENS = 4_096
_SECONDS_EACH = 1.0
_SECONDS_IN_ALL = 6.0
_LIBRARIES = ("onnxruntime", "onnxruntime-gpu", "torch", "transformers", "openvino")


def engines(folder: Path, manifest: Manifest, options: LoadOptions) -> dict[str, Open]:
    """By name, what opens each engine that may be the fastest; opening one can still fail.

    Where onnxruntime will run on the CPU, a variant that is computed in float32 there is left out, unless there is no
    other.

    Args:
        folder: The exported folder.
        manifest: Its manifest, verified.
        options: The device and limits.
    """
    on_cpu = options.device == "cpu" or not (cuda_device_count() and offers_cuda())
    names = [name for name, variant in manifest.variants.items() if not (on_cpu and variant.cpu_file)]
    found: dict[str, Open] = {
        f"onnx/{name}": partial(load_onnx_classifier, folder, options, variant=name)
        for name in names or manifest.variants
    }
    if (
        _is_unchanged(folder, manifest)
        and importlib.util.find_spec("torch")
        and importlib.util.find_spec("transformers")
    ):
        found["transformers/bfloat16"] = lambda: _open_bfloat16(folder, manifest, options)
    if on_cpu and importlib.util.find_spec("openvino"):
        rounded = "fp32" if "fp32" in manifest.variants else "bf16"
        for precision, name in (("f32", "fp32"), ("bf16", rounded)):
            if name in manifest.variants:
                found[f"openvino/{precision}"] = partial(
                    OpenVinoClassifier.load, folder, manifest, options, precision, variant=name
                )
    return found


def _is_unchanged(folder: Path, manifest: Manifest) -> bool:
    """Whether the folder that was exported is still there, with the weights that were exported."""
    source = folder / manifest.source
    if not (source / "config.json").is_file():
        return False
    return folder_revision(source) == manifest.revision


def _open_bfloat16(folder: Path, manifest: Manifest, options: LoadOptions) -> BatchedClassifier:
    from rlaif_sdk.models.torch_engine import load_torch_classifier

    length = options.max_length or manifest.max_length
    precise = replace(options, dtype="bfloat16", max_length=length, truncation_side=manifest.truncation_side)
    return load_torch_classifier(str(folder / manifest.source), precise, revision=None)


class OpenVinoClassifier(BatchedClassifier):
    """An exported graph of float32 or bfloat16 run by OpenVINO on the CPU.

    Args:
        compiled: The compiled model.
        **options: As for `BatchedClassifier`.
    """

    def __init__(self, compiled: openvino.CompiledModel, **options: Any) -> None:
        super().__init__(**options)
        self._compiled = compiled
        self._inputs = [port.get_any_name() for port in compiled.inputs]

    @classmethod
    def load(
        cls, folder: Path, manifest: Manifest, options: LoadOptions, precision: str, *, variant: str = "fp32"
    ) -> OpenVinoClassifier:
        """Compile a variant of a folder to compute in ``f32`` or ``bf16``."""
        import openvino

        exact = load_onnx_classifier(folder, replace(options, device="cpu"), variant=variant)
        exact.close()
        settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": thread_count()}
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(folder / manifest.variant(variant).file), "CPU", settings)
        return cls(
            compiled,
            name=exact.name,
            reading=exact.reading,
            chat=exact.chat,
            revision=exact.revision,
            encoder=exact.encoder,
            tokens_per_batch=exact.tokens_per_batch,
        )

    def forward(self, tokens: TokenArrays) -> NDArray[np.float32]:
        outputs = self._compiled({name: getattr(tokens, name) for name in self._inputs})
        return np.asarray(outputs["logits"], dtype=np.float32)

    def _release(self) -> None:
        del self._compiled


@dataclass(frozen=True, slots=True)
class Choice:
    """What to run a model with.

    Attributes:
        engine: Its name.
        tokens_per_batch: The token budget of a batch.
        seconds: What each engine took for the sample, at its best budget; those without agreement are left out.
        agreement: Each engine's rank agreement with the exact one.
    """

    engine: str
    tokens_per_batch: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    agreement: Mapping[str, float] = field(default_factory=dict)


def choose(found: Mapping[str, Open], manifest: Manifest, *, min_agreement: float) -> Choice:
    """Measure engines, and take the fastest that agrees with the exact one.

    Args:
        found: What opens each engine; one that cannot be opened is left out, unless there is no other.
        manifest: The model's, which has the agreement of its variants.
        min_agreement: Least rank agreement; of a single engine none is asked.
    """
    seconds: dict[str, float] = {}
    budgets: dict[str, int] = {}
    agreement: dict[str, float] = {}
    exact_N: NDArray[np.float64] | None = None
    for name in sorted(found, key=lambda name: name != EXACT):
        try:
            classifier = found[name]()
        except (RlaifError, RuntimeError, OSError) as error:
            if len(found) == 1:
                raise
            logger.info("%s is left out: %s", name, error)
            continue
        if len(found) > 1:
            logits_N = classifier.logits([text for text in TEXTS if text])[:, 0].astype(np.float64)
            exact_N = logits_N if exact_N is None else exact_N
            variant = manifest.variants.get(name.removeprefix("onnx/"))
            agreement[name] = variant.parity.spearman if variant else rank_correlation(exact_N, logits_N)
            if not agreement[name] >= min_agreement and name != next(iter(agreement)):
                logger.info("%s is left out: its rank agreement is %.4f", name, agreement[name])
                classifier.close()
                continue
        budgets[name], seconds[name] = best_budget(classifier, manifest.max_length)
        classifier.close()
    fastest = min(seconds, key=seconds.__getitem__)
    return Choice(fastest, budgets[fastest], seconds, agreement)


def best_budget(classifier: BatchedClassifier, max_length: int) -> tuple[int, float]:
    """The token budget that scores a sample of ragged lengths fastest, and the seconds that it takes."""
    on_gpu = "CUDA" in getattr(classifier, "provider", "")
    probes = _sample(max_length, tokens=_SAMPLE_TOKENS * (32 if on_gpu else 1))
    best, least = 0, float("inf")
    started = time.perf_counter()
    for budget in GPU_BUDGETS if on_gpu else CPU_BUDGETS:
        if best and time.perf_counter() - started > _SECONDS_IN_ALL:  # large models care little
            break
        seconds = _seconds(classifier, probes, budget)
        if seconds < least * (_CLEARLY if best else 1.0):
            best, least = budget, seconds
    return best, least


def _sample(max_length: int, *, tokens: int) -> list[ProbeInput]:
    """Rows of log-normal length, median 80 tokens and 95th percentile 350, as answers have."""
    draw = np.random.default_rng(0)
    probes: list[ProbeInput] = []
    while tokens > 0:
        length = int(np.clip(draw.lognormal(np.log(80), 0.9), 1, max_length))
        probes.append(ProbeInput("random", [1] * length, [0] * length, 0))
        tokens -= length
    return probes


def _seconds(classifier: BatchedClassifier, probes: Sequence[ProbeInput], budget: int) -> float:
    """The least time of a few passes over the rows, after a first pass that is not counted."""
    batches = [
        padded_probes([probes[row] for row in rows], pad_id=classifier.encoder.pad_id)
        for rows in token_batches([len(probe.input_ids) for probe in probes], budget)
    ]
    least, spent = float("inf"), 0.0
    classifier.forward(batches[0])
    while spent < _SECONDS_EACH:
        started = time.perf_counter()
        for batch in batches:
            classifier.forward(batch)
        seconds = time.perf_counter() - started
        least, spent = min(least, seconds), spent + max(seconds, _SECONDS_EACH / 5)
    return least


def cached_choice(
    manifest: Manifest, found: Mapping[str, Open], device: str | None, *, min_agreement: float
) -> Choice | None:
    """The choice that was remembered for these engines on this machine at this floor, if there is one."""
    try:
        kept = json.loads(_file(manifest, found, device, min_agreement).read_text(encoding="utf-8"))
        choice = Choice(str(kept["engine"]), int(kept["tokens_per_batch"]), kept["seconds"], kept["agreement"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return choice if choice.engine in found and choice.tokens_per_batch > 0 else None


def cache_choice(
    manifest: Manifest, found: Mapping[str, Open], device: str | None, choice: Choice, *, min_agreement: float
) -> None:
    """Keep a choice for the next time; a cache folder that cannot be written is no reason to fail."""
    file = _file(manifest, found, device, min_agreement)
    with contextlib.suppress(OSError):
        write_json(file, asdict(choice))


def _file(manifest: Manifest, found: Mapping[str, Open], device: str | None, min_agreement: float) -> Path:
    files = [f"{name} {content}" for name, content in sorted(manifest.files.items())]
    libraries = (f"{name} {version}" for name, version in installed_versions(_LIBRARIES).items())
    machine = [processor_name(), str(thread_count()), str(cuda_device_count()), str(device), *libraries]
    floor = [f"agreement {min_agreement}"] if len(found) > 1 else []
    return default_cache_dir() / "tuning" / f"{json_digest([files, sorted(found), machine, floor])}.json"
