"""From a trained model to a folder that scores: traced, optimised, compared with PyTorch, described, and only then there."""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import ConfigError, MissingExtraError
from rlaif_sdk.io.digests import bytes_digest, file_digest
from rlaif_sdk.io.files import atomic_folder, write_text
from rlaif_sdk.models.encoding import TextEncoder, TruncationSide
from rlaif_sdk.models.manifest import MANIFEST_FILE, InputKind, Manifest, Variant
from rlaif_sdk.models.onnx_engine import OnnxClassifier, open_classifier
from rlaif_sdk.models.onnx_providers import cuda_device_count, offers_cuda
from rlaif_sdk.models.scoring_config import DEFAULT_MAX_LENGTH

if TYPE_CHECKING:
    from rlaif_sdk.models.parity import Floats
    from rlaif_sdk.models.probes import ProbeInput
    from rlaif_sdk.models.torch_engine import LoadedNetwork
    from rlaif_sdk.models.variants import GraphFiles, VariantName

LONGEST_BY_DEFAULT = 2048
"""Models that take more tokens are declared to take so many: parity is measured up to the length that is declared."""

_FOR_GPUS = ("fp16", "bf16")
"""Variants that a CPU computes otherwise than a GPU."""

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

    from rlaif_sdk.models.torch_engine import load_network
    from rlaif_sdk.models.variants import checked_variants

    wanted = checked_variants(variants)
    report(f"loading {model}")
    source = load_network(model, revision=revision)
    try:
        with atomic_folder(target) as unfinished:
            export = _Export(source, unfinished, max_length, truncation_side, texts, min_agreement, report)
            return export.run(wanted, input)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        raise ConfigError(f"another process has made {str(folder)!r} meanwhile", hint="name a new folder") from error


class _Export:
    """One export into a folder that has no name yet."""

    def __init__(
        self,
        source: LoadedNetwork,
        folder: Path,
        max_length: int | None,
        truncation_side: TruncationSide | None,
        texts: Sequence[str] | None,
        min_agreement: float | None,
        report: Callable[[str], None],
    ) -> None:
        from rlaif_sdk.models.tracing import ScoringNetwork

        self._source = source
        self._folder = folder
        self._texts = texts
        self._min_agreement = min_agreement
        self._report = report
        self._network = ScoringNetwork(source.network)
        self._config: dict[str, Any] = source.network.config.to_dict()
        reading = source.reading
        limit = reading.max_length
        if max_length is not None and not 1 <= max_length <= (limit or max_length):
            raise ConfigError(f"max_length is {max_length} where the model takes 1 to {limit} tokens")
        self._max_length = max_length or min(limit or DEFAULT_MAX_LENGTH, LONGEST_BY_DEFAULT)
        self._truncation_side: TruncationSide = truncation_side or reading.truncation_side
        self._takes_token_types = reading.takes_token_types
        self._encoder = TextEncoder(
            source.tokenizer.backend_tokenizer,
            max_length=self._max_length,
            truncation_side=self._truncation_side,
            pad_id=reading.fill_id,
        )

    def run(self, names: Sequence[VariantName], input_kind: InputKind) -> Manifest:
        """Make and check the variants, and write the folder; nothing loads it before its last file, ``config.json``."""
        from rlaif_sdk.models.parity import reference_logits
        from rlaif_sdk.models.probes import make_probes
        from rlaif_sdk.models.variants import GraphMaker

        vocabulary = int(self._source.network.config.get_text_config().vocab_size)
        probes = make_probes(self._encoder, vocabulary=vocabulary, pairs=self._takes_token_types, texts=self._texts)
        self._report(f"scoring {len(probes)} inputs with PyTorch")
        comparison = _Comparison(
            probes, reference_logits(self._source.network, probes, takes_token_types=self._takes_token_types)
        )
        maker = GraphMaker(self._network, self._folder, self._takes_token_types, self._encoder.pad_id, self._report)
        graphs = maker.make(names, probes)
        variants = {name: self._checked(name, graphs[name], comparison) for name in names}
        tokenizer = self._source.tokenizer
        tokenizer.model_max_length = self._max_length
        tokenizer.truncation_side = self._truncation_side
        tokenizer.init_kwargs["truncation_side"] = self._truncation_side  # of which alone save_pretrained writes it
        tokenizer.save_pretrained(self._folder)
        _readable_before_transformers_5(self._folder / "tokenizer_config.json")
        config = {key: value for key, value in self._config.items() if key != "auto_map"}
        config_text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        manifest = Manifest(
            source=self._source_from_here(),
            revision=self._source.revision,
            architecture=type(self._source.network).__name__,
            labels=self._source.reading.labels,
            problem_type=self._source.reading.problem_type,
            max_length=self._max_length,
            truncation_side=self._truncation_side,
            input=input_kind,
            chat_template=self._source.chat.template,
            special_tokens=dict(self._source.chat.special_tokens),
            variants=variants,
            files={
                **{file.name: file_digest(file) for file in sorted(self._folder.iterdir())},
                "config.json": bytes_digest(config_text.encode()),
            },
            made_with=_versions(),
        )
        write_text(self._folder / MANIFEST_FILE, manifest.model_dump_json(indent=2) + "\n")
        write_text(self._folder / "config.json", config_text)
        return manifest

    def _source_from_here(self) -> str:
        """The source's name; a folder's relative to the export, which says nothing of where the user keeps both."""
        name = self._source.name
        return os.path.relpath(name, self._folder) if Path(name).is_dir() else name

    def _checked(self, name: VariantName, graph: GraphFiles, comparison: _Comparison) -> Variant:
        """The variant, once every graph of it has passed where it is to run; the last figures stand for it."""
        on_cpu = self._measured(self._open("cpu", name, graph), name, graph, comparison)
        if name not in _FOR_GPUS or not cuda_device_count():
            return on_cpu
        try:
            if not offers_cuda():
                raise ConfigError("this onnxruntime is built for the CPU alone", hint="pip install onnxruntime-gpu")
            on_cuda = self._open("cuda", name, graph)
        except ConfigError as error:
            self._report(f"{name} is not compared on the CUDA device: {error}")
            return on_cpu
        return self._measured(on_cuda, name, graph, comparison)

    def _open(self, device: str, name: VariantName, graph: GraphFiles) -> OnnxClassifier:
        return open_classifier(
            graph.file,
            cpu_file=graph.cpu_file,
            reading=self._source.reading,
            chat=self._source.chat,
            encoder=self._encoder,
            name=name,
            device=device,
            tokens_per_batch=1024,
        )

    def _measured(
        self, exported: OnnxClassifier, name: VariantName, graph: GraphFiles, comparison: _Comparison
    ) -> Variant:
        from rlaif_sdk.models.parity import check, describe, measure
        from rlaif_sdk.models.tracing import OPSET

        pads_left = self._network.pads_left
        figures = measure(exported, comparison.reference_RL, comparison.probes, pads_left=pads_left)
        exported.close()
        check(figures, name, min_agreement=self._min_agreement)
        self._report(f"{name} on {exported.provider}: {describe(figures)}")
        return Variant(
            file=graph.file.name,
            cpu_file=graph.cpu_file and graph.cpu_file.name,
            opset=OPSET,
            parity=figures,
            compared_on=exported.provider,
        )


@dataclass(frozen=True, slots=True)
class _Comparison:
    """R rows, and PyTorch's logits of them."""

    probes: Sequence[ProbeInput]
    reference_RL: Floats


def _versions() -> dict[str, str]:
    versions = {}
    for name in _MADE_WITH:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _readable_before_transformers_5(file: Path) -> None:
    """Name a tokenizer's class and further special tokens as versions before 5 know them, which later ones read too."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(settings.get("extra_special_tokens"), list):
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
