"""What could run an exported model on this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlaif_sdk.models.batching import BatchedClassifier
from rlaif_sdk.models.encoding import TokenArrays
from rlaif_sdk.models.manifest import Manifest
from rlaif_sdk.models.model_folder import folder_revision
from rlaif_sdk.models.onnx_engine import load_onnx_classifier
from rlaif_sdk.models.onnx_providers import cuda_device_count, offers_cuda, thread_count
from rlaif_sdk.models.scoring_config import LoadOptions

if TYPE_CHECKING:
    import openvino

Open = Callable[[], BatchedClassifier]
EXACT = "onnx/fp32"


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


def opened(found: Mapping[str, Open], name: str) -> BatchedClassifier:
    """The classifier that an engine runs."""
    return found[name]()


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
