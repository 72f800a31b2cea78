"""The one door for scoring models: finds out what a user named, and which engine runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.models.batching import BatchedClassifier
from rlaif_sdk.models.encoding import TruncationSide
from rlaif_sdk.models.model_folder import has_graph, local_folder
from rlaif_sdk.models.scoring_config import LoadOptions

Backend: TypeAlias = Literal["auto", "transformers", "onnx"]


def load_classifier(
    model: str | Path,
    *,
    backend: Backend = "auto",
    device: str | None = None,
    dtype: str | None = None,
    max_length: int | None = None,
    tokens_per_batch: int | None = None,
    truncation_side: TruncationSide | None = None,
    revision: str | None = None,
) -> BatchedClassifier:
    """Load a scoring model: any sequence classifier or reward model.

    How it is read (padding, the token that is pooled, the longest input, token types, labels, what its logits mean) is
    settled from its own files; see ``docs/howto/load-scoring-models.md``. Weights are read from safetensors or ONNX only,
    never from a pickle, and no code of a model repository is run.

    Args:
        model: A Hugging Face hub name, or a local folder: of ``save_pretrained``, of a LoRA adapter with its head, the
            output folder of a training run, or one with an ``.onnx`` file (beside ``config.json`` and
            ``tokenizer.json``) as `rlaif export` and optimum write it. One with ``onnx/model.onnx``, as
            sentence-transformers writes it, takes ONNX where it has no safetensors, or where ``backend`` says so.
        backend: ``auto`` decides as above.
        device: ``cpu``, ``cuda`` or ``cuda:1``; None takes a CUDA device when one works.
        dtype: ``float32``, ``bfloat16`` or ``float16``; None is float32. An ONNX file has its own.
        max_length: Longest input in tokens; longer ones are cut and counted in `Classifier.truncated`. None is what
            the model takes.
        tokens_per_batch: Most tokens, padding included, in one forward pass; None is 1,024 on a CPU, where 512 to 1,024 is
            fastest, and 16,384 on a GPU.
        truncation_side: Which end of an over-long text is dropped; None is the left for decoders, which are read at
            their last token, and for others what the tokenizer declares. A prompt joined with its completion, and a
            conversation, are cut on the left whatever it says.
        revision: Branch, tag or commit of a hub model.

    Raises:
        ConfigError: There is no such model, or it is no usable classifier; the message says why.
        MissingExtraError: The backend's libraries are not installed.
    """
    options = LoadOptions(device, dtype, max_length, tokens_per_batch, truncation_side)
    folder = local_folder(model)
    if backend == "auto":
        backend = "onnx" if folder and _is_onnx(folder) else "transformers"
    if backend == "onnx":
        from rlaif_sdk.models.onnx_engine import load_onnx_classifier

        if folder is None:
            raise ConfigError(
                f"the ONNX backend takes a local folder, and {str(model)!r} is none",
                hint=f"download it first: hf download {model} --local-dir FOLDER",
            )
        return load_onnx_classifier(folder, options)
    if backend == "transformers":
        from rlaif_sdk.models.torch_engine import load_torch_classifier

        return load_torch_classifier(str(folder or model), options, revision=revision)
    raise ConfigError(f"unknown classifier backend {backend!r}", hint="backends: auto, transformers, onnx")


def _is_onnx(folder: Path) -> bool:
    """Whether a folder is to be run by onnxruntime: it has a graph, and no weights that say otherwise."""
    return any(folder.glob("*.onnx")) or (has_graph(folder) and not any(folder.glob("*.safetensors")))
