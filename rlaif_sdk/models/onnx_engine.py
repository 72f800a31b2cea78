"""Classifiers run by onnxruntime from a folder: an ``.onnx`` file, ``config.json`` for labels, ``tokenizer.json``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlaif_sdk.exceptions import ConfigError, MissingExtraError
from rlaif_sdk.models.batching import BatchedClassifier
from rlaif_sdk.models.encoding import TextEncoder, TokenArrays, TruncationSide
from rlaif_sdk.models.external_data import external_data_files
from rlaif_sdk.models.loader import (
    LoadOptions,
    content_digest,
    is_multi_label,
    labels_from,
    longest_input,
    read_json,
)
from rlaif_sdk.models.manifest import MANIFEST_FILE, read_manifest
from rlaif_sdk.models.onnx_providers import open_session

if TYPE_CHECKING:
    import onnxruntime
    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)

_INTEGER_TYPES: dict[str, type[np.integer[Any]]] = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids")


class OnnxClassifier(BatchedClassifier):
    """A sequence classifier as an ONNX graph.

    Inputs and output are bound rather than fed, so that on a GPU nothing is copied twice.

    Args:
        session: Takes ``input_ids`` and, if it wants them, ``attention_mask`` and ``token_type_ids``.
        output: Name of the output that holds the logits (N, L).
        **options: As for `BatchedClassifier`.

    Attributes:
        provider: The execution provider that runs the graph.
    """

    def __init__(self, session: onnxruntime.InferenceSession, *, output: str, **options: Any) -> None:
        super().__init__(**options)
        self.provider: str = session.get_providers()[0]
        self._session = session
        self._output = output
        self._input_types = {node.name: _INTEGER_TYPES[node.type] for node in session.get_inputs()}

    def forward(self, tokens: TokenArrays) -> NDArray[np.float32]:
        binding = self._session.io_binding()
        for name, kind in self._input_types.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(getattr(tokens, name), dtype=kind))
        binding.bind_output(self._output)
        self._session.run_with_iobinding(binding)
        (logits_NL,) = binding.copy_outputs_to_cpu()
        return np.asarray(logits_NL, dtype=np.float32)

    def _release(self) -> None:
        del self._session


def load_onnx_classifier(folder: Path, options: LoadOptions, *, variant: str | None = None) -> OnnxClassifier:
    """Load a folder that `rlaif export`, `optimum` or most other exporters wrote (see `load_classifier`).

    A folder with a manifest is checked against it, byte for byte.

    Args:
        folder: The folder.
        options: As for `load_classifier`.
        variant: Which of the manifest's variants to run; by default the first.
    """
    if options.dtype is not None:
        raise ConfigError(f"dtype {options.dtype!r} cannot be set: an ONNX file has its own", hint="leave dtype out")
    graph_file, cpu_file = _graph_files(folder, variant)
    config = read_json(folder / "config.json")
    settings_file = folder / "tokenizer_config.json"
    settings = read_json(settings_file) if settings_file.is_file() else {}
    return open_classifier(
        graph_file,
        cpu_file=cpu_file,
        config=config,
        encoder=TextEncoder(
            _tokenizer(folder),
            max_length=options.length_within(longest_input(config, settings.get("model_max_length"))),
            truncation_side=options.truncation_side or _declared_side(settings),
            pad_id=pad_id_of(config),
        ),
        revised_by=[folder / "config.json", folder / "tokenizer.json"],
        name=str(folder),
        device=options.device,
        tokens_per_batch=options.tokens_per_batch,
    )


def open_classifier(
    graph_file: Path,
    *,
    cpu_file: Path | None = None,
    config: dict[str, Any],
    encoder: TextEncoder,
    revised_by: Sequence[Path] = (),
    name: str,
    device: str | None,
    tokens_per_batch: int,
) -> OnnxClassifier:
    """A classifier of one graph, checked before and after onnxruntime opens it.

    Args:
        graph_file: The graph.
        cpu_file: What a CPU runs in its place.
        config: The model's ``config.json``, for the labels.
        encoder: Makes its inputs.
        revised_by: Files beside the graph that change the logits.
        name: As `BatchedClassifier.name`.
        device: As for `load_classifier`, with ``tokens_per_batch``.
        tokens_per_batch: See there.

    Raises:
        ConfigError: The graph is no classifier, or reads files outside its folder.
    """
    files = {file: external_data_files(file) for file in (graph_file, cpu_file) if file is not None}
    labels = labels_from(config)
    session, graph_file = open_session(graph_file, device, cpu_file=cpu_file)
    output = _checked_output(session, graph_file, labels)
    how = ", computed in float32 and rounded" if graph_file == cpu_file else ""
    logger.info("%s runs on %s%s", graph_file, session.get_providers()[0], how)
    return OnnxClassifier(
        session,
        output=output,
        name=name,
        labels=labels,
        multi_label=is_multi_label(config),
        revision=content_digest([graph_file, *files[graph_file], *revised_by]),
        encoder=encoder,
        tokens_per_batch=tokens_per_batch,
    )


def _tokenizer(folder: Path) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError("tokenizers", extra="onnx") from error

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ConfigError(
            "the classifier folder has no tokenizer.json",
            file=str(folder),
            hint=f"write one with AutoTokenizer.from_pretrained(ORIGINAL).save_pretrained({str(folder)!r})",
        )
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exception
        raise ConfigError(f"no usable tokenizer: {error}", file=str(file)) from error


def _declared_side(settings: Mapping[str, Any]) -> TruncationSide:
    return "left" if settings.get("truncation_side") == "left" else "right"


def _graph_files(folder: Path, variant: str | None) -> tuple[Path, Path | None]:
    """The graph to load, and what a CPU runs in its place."""
    if (folder / MANIFEST_FILE).is_file():
        chosen = read_manifest(folder).variant(variant)
        return folder / chosen.file, folder / chosen.cpu_file if chosen.cpu_file else None
    if variant is not None:
        raise ConfigError(
            f"has no {MANIFEST_FILE}, so it has no variants", file=str(folder), hint="export it with rlaif export"
        )
    files = sorted(folder.glob("*.onnx"))
    named_model = folder / "model.onnx"
    if named_model in files:
        return named_model, None
    if len(files) == 1:
        return files[0], None
    found = ", ".join(file.name for file in files) or "none"
    raise ConfigError(f"the ONNX file to load is not clear: found {found}", file=str(folder), hint="name it model.onnx")


def _checked_output(session: onnxruntime.InferenceSession, graph_file: Path, labels: tuple[str, ...]) -> str:
    """The name of the logits output, after checking that the graph's inputs and outputs are a classifier's."""
    inputs = {node.name: node.type for node in session.get_inputs()}
    wrong = [
        f"{name} {kind}" for name, kind in inputs.items() if name not in _INPUT_NAMES or kind not in _INTEGER_TYPES
    ]
    if wrong or "input_ids" not in inputs:
        raise ConfigError(
            f"the graph's inputs are not a text classifier's: {', '.join(wrong) or 'input_ids is missing'}",
            file=str(graph_file),
            hint=f"integer inputs named {', '.join(_INPUT_NAMES)} are understood",
        )
    outputs = {node.name: node.shape for node in session.get_outputs()}
    name = "logits" if "logits" in outputs else next(iter(outputs))
    if name != "logits" and len(outputs) > 1:
        raise ConfigError(f"no output is called logits; outputs: {', '.join(outputs)}", file=str(graph_file))
    shape = outputs[name]
    if len(shape) != 2 or (isinstance(shape[1], int) and shape[1] != len(labels)):
        raise ConfigError(
            f"the output {name!r} has shape {shape} where (texts, {len(labels)}) is needed",
            file=str(graph_file),
            hint=f"config.json lists the labels {', '.join(labels)}; export the model for text classification",
        )
    return name


def pad_id_of(config: Mapping[str, Any]) -> int:
    """The token that fills up short rows; a decoder finds each last token by it."""
    candidates = (config.get("pad_token_id"), config.get("eos_token_id"))
    return next((token for token in candidates if isinstance(token, int)), 0)
