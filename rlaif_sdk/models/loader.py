"""Finds out what a user named, a hub model or a folder, and which backend runs it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.io.digests import files_digest
from rlaif_sdk.models.classifier import Classifier
from rlaif_sdk.models.encoding import TruncationSide

Backend: TypeAlias = Literal["auto", "transformers", "onnx"]

_UNBOUNDED = 1_000_000
"""Tokenizers without a maximum length state one beyond this."""

POSITIONS_AFTER_PADDING = frozenset(
    {"camembert", "ibert", "longformer", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl"}
)
"""Model types that number positions from ``pad_token_id + 1``, so that many of ``max_position_embeddings`` are lost."""

_DEFAULT_MAX_LENGTH = 512


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """The arguments of `load_classifier` that both backends share, checked."""

    device: str | None
    dtype: str | None
    max_length: int | None
    tokens_per_batch: int
    truncation_side: TruncationSide | None

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 1:
            raise ConfigError(f"max_length must be at least 1, not {self.max_length}")
        if self.tokens_per_batch < 1:
            raise ConfigError(f"tokens_per_batch must be at least 1, not {self.tokens_per_batch}")
        if self.truncation_side not in (None, "left", "right"):
            raise ConfigError(f"truncation_side must be 'left' or 'right', not {self.truncation_side!r}")

    def length_within(self, limit: int) -> int:
        """The maximum length to use with a model that takes ``limit`` tokens."""
        if self.max_length is not None and self.max_length > limit:
            raise ConfigError(f"max_length is {self.max_length} where the model takes at most {limit} tokens")
        return self.max_length or limit


def load_classifier(
    model: str | Path,
    *,
    backend: Backend = "auto",
    device: str | None = None,
    dtype: str | None = None,
    max_length: int | None = None,
    tokens_per_batch: int = 1024,
    truncation_side: TruncationSide | None = None,
    revision: str | None = None,
) -> Classifier:
    """Load a text classifier.

    Weights are read from safetensors or ONNX only, never from a pickle, and no code of a model repository is run.

    Args:
        model: A Hugging Face hub name, or a local folder. A folder with an ``.onnx`` file (beside ``config.json`` and
            ``tokenizer.json``), such as `rlaif export` writes, takes the ONNX backend.
        backend: ``auto`` decides as above.
        device: ``cpu``, ``cuda`` or ``cuda:1``; None takes a CUDA device when one works.
        dtype: ``float32``, ``bfloat16`` or ``float16``; None is float32. An ONNX file has its own.
        max_length: Longest input in tokens; longer ones are cut and counted in `Classifier.truncated`. None is what
            the model takes.
        tokens_per_batch: Most tokens, padding included, in one forward pass. On a CPU 512 to 1,024 is fastest.
        truncation_side: Which end of an over-long input is dropped; None is what the tokenizer declares, by default
            the right.
        revision: Branch, tag or commit of a hub model.

    Raises:
        ConfigError: There is no such model, or it is no usable classifier; the message says why.
        MissingExtraError: The backend's libraries are not installed.
    """
    options = LoadOptions(device, dtype, max_length, tokens_per_batch, truncation_side)
    folder = Path(model).expanduser()
    local = folder.is_dir()
    if not local and (isinstance(model, Path) or folder.exists() or str(model).startswith((".", "/", "~"))):
        problem = "is a file" if folder.exists() else "does not exist"
        raise ConfigError(
            f"the classifier folder {str(model)!r} {problem}", hint="give the folder that holds config.json"
        )
    if backend == "auto":
        backend = "onnx" if local and any(folder.glob("*.onnx")) else "transformers"
    if backend == "onnx":
        from rlaif_sdk.models.onnx_engine import load_onnx_classifier

        if not local:
            raise ConfigError(
                f"the ONNX backend takes a local folder, and {str(model)!r} is none",
                hint=f"download it first: hf download {model} --local-dir FOLDER",
            )
        return load_onnx_classifier(folder, options)
    if backend == "transformers":
        from rlaif_sdk.models.torch_engine import load_transformers_classifier

        return load_transformers_classifier(str(folder) if local else str(model), options, revision=revision)
    raise ConfigError(f"unknown classifier backend {backend!r}", hint="backends: auto, transformers, onnx")


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file of a model folder.

    Raises:
        ConfigError: The file is absent, or holds no JSON object.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"the classifier folder has no {file.name}", file=str(file.parent)) from None
    except ValueError as error:
        raise ConfigError(f"no valid JSON: {error}", file=str(file)) from error
    if not isinstance(value, dict):
        raise ConfigError(f"must hold a JSON object, not {type(value).__name__}", file=str(file))
    return value


def labels_from(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The label names in a model's config, in the order of the logits; `LABEL_0` and so on where it names none."""
    by_index = {int(index): str(name) for index, name in (config.get("id2label") or {}).items()}
    if not by_index:
        return tuple(f"LABEL_{index}" for index in range(int(config.get("num_labels", 2))))
    if sorted(by_index) != list(range(len(by_index))):
        raise ConfigError(f"id2label of the classifier's config.json must number labels from 0, not {sorted(by_index)}")
    return tuple(by_index[index] for index in range(len(by_index)))


def is_multi_label(config: Mapping[str, Any]) -> bool:
    """Whether a model's config declares one yes-or-no question a label."""
    return config.get("problem_type") == "multi_label_classification"


def longest_input(config: Mapping[str, Any], tokenizer_limit: Any) -> int:
    """How many tokens a model takes: the least that its tokenizer and its position embeddings state, else 512."""
    limits = [tokenizer_limit] if isinstance(tokenizer_limit, int) and tokenizer_limit < _UNBOUNDED else []
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and positions > 0:
        lost = config.get("pad_token_id", 1) + 1 if config.get("model_type") in POSITIONS_AFTER_PADDING else 0
        limits.append(positions - lost)
    return min(limits, default=_DEFAULT_MAX_LENGTH)


def content_digest(files: Iterable[Path]) -> str:
    """A short digest of the names and contents of some files, the same in whatever order they come."""
    return f"sha256:{files_digest(files)[:16]}"
