"""Classifiers run by onnxruntime from a folder: an ``.onnx`` file, ``config.json`` for labels, ``tokenizer.json``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlaif_sdk.classifiers.batching import BatchedClassifier
from rlaif_sdk.classifiers.encoding import TextEncoder, TokenArrays
from rlaif_sdk.classifiers.loading import (
    LoadOptions,
    content_digest,
    is_multi_label,
    labels_from,
    longest_input,
    read_json,
)
from rlaif_sdk.classifiers.onnx_files import external_data_files
from rlaif_sdk.classifiers.onnx_providers import open_session
from rlaif_sdk.exceptions import ConfigError, MissingExtraError

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

_INTEGER_TYPES: dict[str, type[np.integer[Any]]] = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids")


class OnnxClassifier(BatchedClassifier):
    """A sequence classifier as an ONNX graph.

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

    def _forward(self, tokens: TokenArrays) -> NDArray[np.float32]:
        feed = {name: getattr(tokens, name).astype(kind, copy=False) for name, kind in self._input_types.items()}
        (logits_NL,) = self._session.run([self._output], feed)
        return np.asarray(logits_NL, dtype=np.float32)

    def _release(self) -> None:
        del self._session


def load_onnx_classifier(folder: Path, options: LoadOptions) -> OnnxClassifier:
    """Load a folder as `optimum` and most exporters write it (see `load_classifier`)."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError("tokenizers", extra="onnx") from error

    if options.dtype is not None:
        raise ConfigError(f"dtype {options.dtype!r} cannot be set: an ONNX file has its own", hint="leave dtype out")
    graph_file = _graph_file(folder)
    config = read_json(folder / "config.json")
    tokenizer_file = folder / "tokenizer.json"
    if not tokenizer_file.is_file():
        raise ConfigError(
            "the classifier folder has no tokenizer.json",
            file=str(folder),
            hint=f"write one with AutoTokenizer.from_pretrained(ORIGINAL).save_pretrained({str(folder)!r})",
        )
    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
    except Exception as error:  # tokenizers raises bare Exception
        raise ConfigError(f"no usable tokenizer: {error}", file=str(tokenizer_file)) from error
    external = external_data_files(graph_file)
    labels = labels_from(config)
    session = open_session(graph_file, options.device)
    output = _checked_output(session, graph_file, labels)
    logger.info("%s runs on %s", graph_file, session.get_providers()[0])

    settings_file = folder / "tokenizer_config.json"
    settings = read_json(settings_file) if settings_file.is_file() else {}
    return OnnxClassifier(
        session,
        output=output,
        name=str(folder),
        labels=labels,
        multi_label=is_multi_label(config),
        revision=content_digest([graph_file, *external, folder / "config.json", tokenizer_file]),
        encoder=TextEncoder(
            tokenizer,
            max_length=options.length_within(longest_input(config, settings.get("model_max_length"))),
            truncation_side=options.truncation_side,
            pad_id=_pad_id(config),
        ),
        tokens_per_batch=options.tokens_per_batch,
    )


def _graph_file(folder: Path) -> Path:
    files = sorted(folder.glob("*.onnx"))
    named_model = folder / "model.onnx"
    if named_model in files:
        return named_model
    if len(files) == 1:
        return files[0]
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


def _pad_id(config: dict[str, Any]) -> int:
    candidates = (config.get("pad_token_id"), config.get("eos_token_id"))
    return next((token for token in candidates if isinstance(token, int)), 0)
