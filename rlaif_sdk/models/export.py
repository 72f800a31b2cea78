"""From a trained model to a folder that scores: traced, compared with PyTorch, described, and only then there."""

from __future__ import annotations

import copy
import errno
import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rlaif_sdk.exceptions import ConfigError, MissingExtraError, RewardError
from rlaif_sdk.io.digests import bytes_digest, file_digest
from rlaif_sdk.io.files import atomic_folder, write_text
from rlaif_sdk.io.versions import installed_versions
from rlaif_sdk.models.encoding import TextEncoder, TruncationSide
from rlaif_sdk.models.manifest import MANIFEST_FILE, InputKind, Manifest, Variant
from rlaif_sdk.models.onnx_engine import OnnxClassifier, open_classifier
from rlaif_sdk.models.onnx_providers import cuda_device_count, offers_cuda
from rlaif_sdk.models.scoring_config import DEFAULT_MAX_LENGTH

if TYPE_CHECKING:
    import torch

    from rlaif_sdk.models.parity import Floats, ProbeInput
    from rlaif_sdk.models.torch_engine import LoadedNetwork
    from rlaif_sdk.models.tracing import ScoringNetwork

VariantName = Literal["fp32", "fp16", "bf16", "int8"]
VARIANTS: tuple[VariantName, ...] = ("fp32", "fp16", "bf16", "int8")

LONGEST_BY_DEFAULT = 2048
"""Models that take more tokens are declared to take so many: parity is measured up to the length that is declared."""

_FOR_GPUS = ("fp16", "bf16")
"""Variants that a CPU computes otherwise than a GPU."""

_CALIBRATION_ROWS = 48

_MADE_WITH = ("rlaif-sdk", "torch", "transformers", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu")


def export_classifier(
    model: str | Path,
    folder: str | Path,
    *,
    variants: Sequence[str] = ("fp32",),
    max_length: int | None = None,
    truncation_side: TruncationSide | None = None,
    input: InputKind = "joined",  # noqa: A002 - the word of the manifest and of the reward's parameters
    texts: Sequence[str] | None = None,
    revision: str | None = None,
    min_agreement: float | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Export a reward model or classifier to ONNX, if the export scores as the model does.

    Everything is made in a hidden folder beside ``folder`` and renamed at the end, so that a run that is killed leaves
    nothing that loads; the next export clears it away.

    Args:
        model: A hub name, a model's or an adapter's folder, or the output folder of a training run.
        folder: The new folder; it must not exist, or be empty.
        variants: ``fp32``, ``fp16``, ``bf16`` and ``int8``, the default one first. Each is compared on the CPU, where
            ``fp16`` and ``bf16`` are computed in float32 and rounded after each operation; these two are compared on a
            CUDA device as well if there is one, and reported if onnxruntime cannot use it.
        max_length: Longest input in tokens; by default what the model takes, and at most 2,048.
        truncation_side: Where longer ones are cut; by default the left for decoders, which are read at their last
            token, and for others what the tokenizer declares.
        input: What the reward ``onnx`` gives the model of a row of text.
        texts: Texts of the kind that will be scored, to compare on; by default built-in ones.
        revision: Branch, tag or commit of a hub model.
        min_agreement: Least rank agreement with PyTorch in place of each variant's own.
        report: Called with a line of text at each stage.

    Returns:
        What was written into the folder's ``manifest.json``.

    Raises:
        ConfigError: The model or a setting is refused.
        ParityError: A variant is too far from PyTorch; nothing is written.
        MissingExtraError: The extra ``export`` is not installed.
    """
    target = Path(folder).expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{str(folder)!r} exists already", hint="name a new folder")
    for module in ("torch", "transformers", "onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(module, extra="export")

    from rlaif_sdk.models.parity import make_probes, reference_logits
    from rlaif_sdk.models.torch_engine import load_network
    from rlaif_sdk.models.tracing import ScoringNetwork

    wanted = checked_variants(variants)
    report(f"loading {model}")
    source = load_network(model, revision=revision)
    network, reading = ScoringNetwork(source.network), source.reading
    limit = reading.max_length
    if max_length is not None and not 1 <= max_length <= (limit or max_length):
        raise ConfigError(f"max_length is {max_length} where the model takes 1 to {limit} tokens")
    encoder = TextEncoder(
        source.tokenizer.backend_tokenizer,
        max_length=max_length or min(limit or DEFAULT_MAX_LENGTH, LONGEST_BY_DEFAULT),
        truncation_side=truncation_side or reading.truncation_side,
        pad_id=reading.fill_id,
    )
    vocabulary = int(source.network.config.get_text_config().vocab_size)
    probes = make_probes(encoder, vocabulary=vocabulary, pairs=reading.takes_token_types, texts=texts)
    report(f"scoring {len(probes)} inputs with PyTorch")
    reference_RL = reference_logits(source.network, probes, takes_token_types=reading.takes_token_types)
    try:
        with atomic_folder(target) as unfinished:
            export = _Export(source, network, unfinished, encoder, probes, reference_RL, min_agreement, report)
            return export.run(wanted, input)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        raise ConfigError(f"another process has made {str(folder)!r} meanwhile", hint="name a new folder") from error


def checked_variants(variants: Sequence[str]) -> list[VariantName]:
    """The variants in the user's order.

    Raises:
        ConfigError: There is none, one is unknown, or one stands twice.
    """
    wanted = [name for name in VARIANTS if name in variants]
    if not variants or len(wanted) != len(variants):
        unknown = ", ".join(name for name in variants if name not in VARIANTS) or "none or one twice"
        raise ConfigError(f"the variants to export are wrong: {unknown}", hint=f"of {', '.join(VARIANTS)}, each once")
    return sorted(wanted, key=list(variants).index)


@dataclass(frozen=True, slots=True)
class _Graph:
    """The file of a variant, and what a CPU runs in its place if it cannot run that."""

    file: Path
    cpu_file: Path | None = None


@dataclass(frozen=True, slots=True)
class _Export:
    """One export into a folder that has no name yet, compared with R logits of PyTorch's."""

    source: LoadedNetwork
    network: ScoringNetwork
    folder: Path
    encoder: TextEncoder
    probes: Sequence[ProbeInput]
    reference_RL: Floats
    min_agreement: float | None
    report: Callable[[str], None]

    def run(self, names: Sequence[VariantName], input_kind: InputKind) -> Manifest:
        """Make and check the variants, and write the folder; nothing loads it before its last file, ``config.json``."""
        graphs = self._graphs(names)
        variants = {name: self._checked(name, graphs[name]) for name in names}
        source, encoder, tokenizer = self.source, self.encoder, self.source.tokenizer
        tokenizer.model_max_length = encoder.max_length
        tokenizer.truncation_side = encoder.truncation_side
        tokenizer.init_kwargs["truncation_side"] = encoder.truncation_side  # of which alone save_pretrained writes it
        tokenizer.save_pretrained(self.folder)
        _readable_before_transformers_5(self.folder / "tokenizer_config.json")
        config = {key: value for key, value in source.network.config.to_dict().items() if key != "auto_map"}
        config_text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        here = os.path.relpath(source.name, self.folder) if Path(source.name).is_dir() else source.name
        manifest = Manifest(
            source=here,
            revision=source.revision,
            architecture=type(source.network).__name__,
            labels=source.reading.labels,
            problem_type=source.reading.problem_type,
            max_length=encoder.max_length,
            truncation_side=encoder.truncation_side,
            input=input_kind,
            chat_template=source.chat.template,
            special_tokens=dict(source.chat.special_tokens),
            variants=variants,
            files={
                **{file.name: file_digest(file) for file in sorted(self.folder.iterdir())},
                "config.json": bytes_digest(config_text.encode()),
            },
            made_with=installed_versions(_MADE_WITH),
        )
        write_text(self.folder / MANIFEST_FILE, manifest.model_dump_json(indent=2) + "\n")
        write_text(self.folder / "config.json", config_text)
        return manifest

    def _graphs(self, names: Sequence[VariantName]) -> dict[VariantName, _Graph]:
        import torch

        from rlaif_sdk.models import quantize, widening
        from rlaif_sdk.models.parity import padded_probes

        graphs = {
            name: _Graph(self.folder / ("model.onnx" if name == "fp32" else f"model.{name}.onnx")) for name in names
        }
        exact = graphs["fp32"].file if "fp32" in graphs else self.folder / "exact.onnx"
        if {"fp32", "int8"} & graphs.keys():
            self._trace("fp32", exact)
        if "int8" in graphs:
            self.report("quantising to int8")
            spoken = [probe for probe in self.probes if probe.kind == "text"][:_CALIBRATION_ROWS] or self.probes
            rows = [padded_probes([probe], pad_id=self.encoder.pad_id) for probe in spoken]
            quantize.quantize(exact, graphs["int8"].file, calibration=rows)
        for leftover in self.folder.glob("exact.onnx*"):
            leftover.unlink()
        if "fp16" in graphs:
            self._trace("fp16", graphs["fp16"].file, dtype=torch.float16)
        if "bf16" in graphs:
            widened = self.folder / "model.bf16.cpu.onnx"
            self._trace("bf16", graphs["bf16"].file, dtype=torch.bfloat16, separate_weights=True)
            widening.widen(graphs["bf16"].file, widened)
            graphs["bf16"] = _Graph(graphs["bf16"].file, widened)
        return graphs

    def _trace(
        self,
        name: VariantName,
        file: Path,
        *,
        dtype: torch.dtype | None = None,
        separate_weights: bool | None = None,
    ) -> None:
        from rlaif_sdk.models.tracing import trace

        self.report(f"tracing the model in {name}")
        network = copy.deepcopy(self.network).to(dtype) if dtype else self.network
        takes_token_types = self.source.reading.takes_token_types
        trace(network, file, takes_token_types=takes_token_types, separate_weights=separate_weights)

    def _checked(self, name: VariantName, graph: _Graph) -> Variant:
        """The variant, once its graphs have passed wherever they are to run; the last metrics stand for it."""
        on_cpu = self._measured(self._open("cpu", name, graph), name, graph)
        if name not in _FOR_GPUS or not cuda_device_count():
            return on_cpu
        try:
            if not offers_cuda():
                raise ConfigError("this onnxruntime is built for the CPU alone", hint="pip install onnxruntime-gpu")
            on_cuda = self._open("cuda", name, graph)
        except ConfigError as error:
            self.report(f"{name} is not compared on the CUDA device: {error}")
            return on_cpu
        return self._measured(on_cuda, name, graph)

    def _open(self, device: str, name: VariantName, graph: _Graph) -> OnnxClassifier:
        return open_classifier(
            graph.file,
            cpu_file=graph.cpu_file,
            reading=self.source.reading,
            chat=self.source.chat,
            encoder=self.encoder,
            name=name,
            device=device,
            tokens_per_batch=1024,
        )

    def _measured(self, exported: OnnxClassifier, name: VariantName, graph: _Graph) -> Variant:
        from rlaif_sdk.models.parity import check, describe, measure
        from rlaif_sdk.models.tracing import OPSET

        try:
            metrics = measure(exported, self.reference_RL, self.probes, pads_left=self.network.reads_last_token)
        except RewardError as error:
            raise ConfigError(f"{type(self.source.network).__name__} cannot be exported: {error.message}") from error
        finally:
            exported.close()
        check(metrics, name, min_agreement=self.min_agreement)
        self.report(f"{name} on {exported.provider}: {describe(metrics)}")
        return Variant(
            file=graph.file.name,
            cpu_file=graph.cpu_file and graph.cpu_file.name,
            opset=OPSET,
            parity=metrics,
            compared_on=exported.provider,
        )


def _readable_before_transformers_5(file: Path) -> None:
    """Name a tokenizer's class and further special tokens as versions before 5 know them, which later ones read too."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(settings.get("extra_special_tokens"), list):
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
