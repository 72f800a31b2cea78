"""Scoring models run by onnxruntime from a folder: an ``.onnx`` file, ``config.json``, ``tokenizer.json``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlaif_sdk.exceptions import ConfigError, RewardError, needs_extra
from rlaif_sdk.models.batching import BatchedClassifier, ChatSource
from rlaif_sdk.models.encoding import TextEncoder, TokenArrays
from rlaif_sdk.models.external_data import external_data_files
from rlaif_sdk.models.manifest import MANIFEST_FILE, Manifest, read_manifest
from rlaif_sdk.models.model_folder import content_digest, read_json
from rlaif_sdk.models.onnx_providers import open_session
from rlaif_sdk.models.scoring_config import (
    POSITIONS_AFTER_PADDING,
    LoadOptions,
    ScoringConfig,
    batch_tokens,
    scoring_config,
)

if TYPE_CHECKING:
    import onnxruntime
    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)

_INTEGER_TYPES: dict[str, type[np.integer[Any]]] = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


class OnnxClassifier(BatchedClassifier):
    """A sequence classifier as an ONNX graph.

    Inputs and output are bound rather than fed, so that on a GPU nothing is copied twice.

    Args:
        session: Takes ``input_ids`` and, if it wants them, ``attention_mask``, ``token_type_ids`` and
            ``position_ids``.
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
            binding.bind_cpu_input(name, np.ascontiguousarray(self._input(name, tokens), dtype=kind))
        binding.bind_output(self._output)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime's exceptions have no common base
            shape = "x".join(map(str, tokens.input_ids.shape))
            raise RewardError(
                f"onnxruntime cannot run {self.name} on a batch of {shape} tokens: {str(error).strip()}"
            ) from error
        (logits_NL,) = binding.copy_outputs_to_cpu()
        return np.asarray(logits_NL, dtype=np.float32)

    def _input(self, name: str, tokens: TokenArrays) -> NDArray[np.int64]:
        if name == "position_ids":
            return (tokens.attention_mask.cumsum(axis=1) - 1).clip(min=0)
        if name == "token_type_ids" and not self.reading.takes_token_types:
            return np.zeros_like(tokens.token_type_ids)
        array: NDArray[np.int64] = getattr(tokens, name)
        return array

    def _release(self) -> None:
        del self._session


def load_onnx_classifier(folder: Path, options: LoadOptions, *, variant: str | None = None) -> OnnxClassifier:
    """Load a folder that `rlaif export`, optimum, sentence-transformers or most other exporters wrote.

    A folder with a manifest is checked against it, byte for byte. One without has its graph beside ``config.json`` or in
    the folder ``onnx``, and its tokenizer likewise.

    Args:
        folder: The folder.
        options: As for `load_classifier`.
        variant: Which of the manifest's variants to run; by default the first.
    """
    if options.dtype is not None:
        raise ConfigError(f"dtype {options.dtype!r} cannot be set: an ONNX file has its own", hint="leave dtype out")
    manifest = read_manifest(folder) if (folder / MANIFEST_FILE).is_file() else None
    graph_file, cpu_file = _graph_files(folder, manifest, variant)
    config_file, tokenizer_file = (
        _beside(folder, graph_file, name) or folder / name for name in ("config.json", "tokenizer.json")
    )
    config = read_json(config_file)
    settings_file = _beside(folder, graph_file, "tokenizer_config.json")
    settings = read_json(settings_file) if settings_file else {}
    reading = scoring_config(config, settings)
    if manifest is not None:
        reading = replace(reading, truncation_side=manifest.truncation_side)
    elif reading.pad_id is None:  # such a graph reads the last column, which padding would be
        reading = replace(reading, unpadded=True)
    return open_classifier(
        graph_file,
        cpu_file=cpu_file,
        reading=reading,
        numbers_positions_from_padding=config.get("model_type") in POSITIONS_AFTER_PADDING,
        chat=ChatSource(manifest.chat_template, manifest.special_tokens)
        if manifest
        else _declared_chat(folder, graph_file, settings),
        encoder=TextEncoder(
            _tokenizer(tokenizer_file),
            max_length=options.length_within(reading.max_length),
            truncation_side=options.truncation_side or reading.truncation_side,
            pad_id=reading.fill_id,
        ),
        revised_by=[config_file, tokenizer_file],
        name=str(folder),
        device=options.device,
        tokens_per_batch=options.tokens_per_batch,
    )


def open_classifier(
    graph_file: Path,
    *,
    cpu_file: Path | None = None,
    reading: ScoringConfig,
    numbers_positions_from_padding: bool = False,
    chat: ChatSource,
    encoder: TextEncoder,
    revised_by: Sequence[Path] = (),
    name: str,
    device: str | None,
    tokens_per_batch: int | None,
) -> OnnxClassifier:
    """A classifier of one graph, checked before and after onnxruntime opens it.

    Args as of `BatchedClassifier`, ``device`` and ``tokens_per_batch`` as of `load_classifier`, and the graph, what a CPU runs in its place, whether
    positions are not counted from 0, so that the graph must count them, and the files beside it that change the logits.

    Raises:
        ConfigError: The graph is no classifier, or reads files outside its folder.
    """
    files = {file: external_data_files(file) for file in (graph_file, cpu_file) if file is not None}
    session, graph_file = open_session(graph_file, device, cpu_file=cpu_file)
    allowed = [name for name in _INPUT_NAMES if name != "position_ids" or not numbers_positions_from_padding]
    output = _checked_output(session, graph_file, reading.labels, allowed)
    if all(node.name != "attention_mask" for node in session.get_inputs()):  # nothing tells the graph what is padding
        reading = replace(reading, unpadded=True)
    how = ", computed in float32 and rounded" if graph_file == cpu_file else ""
    logger.info("%s runs on %s%s", graph_file, session.get_providers()[0], how)
    return OnnxClassifier(
        session,
        output=output,
        name=name,
        reading=reading,
        chat=chat,
        revision=content_digest([graph_file, *files[graph_file], *revised_by]),
        encoder=encoder,
        tokens_per_batch=batch_tokens(tokens_per_batch, on_gpu=session.get_providers()[0] != "CPUExecutionProvider"),
    )


def _tokenizer(file: Path) -> Tokenizer:
    with needs_extra("onnx"):
        from tokenizers import Tokenizer

    if not file.is_file():
        raise ConfigError(
            "the classifier folder has no tokenizer.json",
            file=str(file.parent),
            hint=f"write one with AutoTokenizer.from_pretrained(ORIGINAL).save_pretrained({str(file.parent)!r})",
        )
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exception
        raise ConfigError(f"no usable tokenizer: {error}", file=str(file)) from error


def _beside(folder: Path, graph_file: Path, name: str) -> Path | None:
    """A file of the model, in its folder or in the graph's."""
    return next((home / name for home in (folder, graph_file.parent) if (home / name).is_file()), None)


def _declared_chat(folder: Path, graph_file: Path, settings: Mapping[str, Any]) -> ChatSource:
    """How a folder's tokenizer files render messages."""
    template_file = _beside(folder, graph_file, "chat_template.jinja")
    template = template_file.read_text(encoding="utf-8") if template_file else settings.get("chat_template")
    if isinstance(template, list):  # several, each with its name
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, Mapping)}
        template = named.get("default")
    tokens = {name: value for name, value in settings.items() if name.endswith("_token") and value}
    special = {name: value.get("content") if isinstance(value, Mapping) else value for name, value in tokens.items()}
    return ChatSource(
        template if isinstance(template, str) else None,
        {name: value for name, value in special.items() if isinstance(value, str)},
    )


def _graph_files(folder: Path, manifest: Manifest | None, variant: str | None) -> tuple[Path, Path | None]:
    """The graph to load, and what a CPU runs in its place."""
    if manifest is not None:
        chosen = manifest.variant(variant)
        return folder / chosen.file, folder / chosen.cpu_file if chosen.cpu_file else None
    if variant is not None:
        raise ConfigError(
            f"has no {MANIFEST_FILE}, so it has no variants", file=str(folder), hint="export it with rlaif export"
        )
    files = sorted(folder.glob("*.onnx")) or sorted((folder / "onnx").glob("*.onnx"))
    named_model = next((file for file in files if file.name == "model.onnx"), None)
    if named_model is not None:
        return named_model, None
    if len(files) == 1:
        return files[0], None
    found = ", ".join(file.name for file in files) or "none"
    raise ConfigError(f"the ONNX file to load is not clear: found {found}", file=str(folder), hint="name it model.onnx")


def _checked_output(
    session: onnxruntime.InferenceSession, graph_file: Path, labels: tuple[str, ...], allowed: Sequence[str]
) -> str:
    """The name of the logits output, after checking that the graph's inputs and outputs are a classifier's."""
    inputs = {node.name: node.type for node in session.get_inputs()}
    wrong = [f"{name} {kind}" for name, kind in inputs.items() if name not in allowed or kind not in _INTEGER_TYPES]
    if wrong or "input_ids" not in inputs:
        raise ConfigError(
            f"the graph's inputs are not a text classifier's: {', '.join(wrong) or 'input_ids is missing'}",
            file=str(graph_file),
            hint=f"integer inputs named {', '.join(allowed)} are understood",
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
