"""Scores with an exported model: texts, pairs or messages in, numbers out, as fast as the machine has been seen to do."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from rlaif_sdk.conversations.messages import Turn
from rlaif_sdk.exceptions import BatchError, ConfigError
from rlaif_sdk.io.text import short_repr
from rlaif_sdk.models.batching import BatchedClassifier, checked_texts
from rlaif_sdk.models.classifier import ProblemType
from rlaif_sdk.models.encoding import EncoderInput
from rlaif_sdk.models.manifest import MANIFEST_FILE, InputKind, Manifest, read_manifest
from rlaif_sdk.models.model_folder import has_graph
from rlaif_sdk.models.onnx_engine import load_onnx_classifier
from rlaif_sdk.models.scoring_config import LoadOptions
from rlaif_sdk.models.tuning import Choice, Open, cache_choice, cached_choice, choose, engines
from rlaif_sdk.types import Conversation

logger = logging.getLogger(__name__)

BackendChoice = Literal["onnx", "auto"]

Scorable = str | tuple[str, str] | Conversation | Sequence[Turn]
"""A text, a pair of texts, or messages that end with the answer to score."""


class OnnxScorer:
    """A `rlaif_sdk.Classifier` that was exported by `rlaif export`, or by optimum or sentence-transformers.

    Only onnxruntime and tokenizers are needed. Duplicates are scored once, inputs are sorted by length into batches of
    a token budget, and tokenized while others are scored.

    Example:
        >>> from rlaif_sdk import OnnxScorer, export_classifier
        >>> exported = export_classifier("my-classifier", "my-classifier-onnx", input="completion")
        >>> with OnnxScorer("my-classifier-onnx", device="cpu") as scorer:
        ...     scorer.logits(["a kind answer", "an unkind one"]).shape
        (2, 2)

    Args:
        folder: What `rlaif export` wrote, every file of which is compared with the manifest's digest; or another's
            folder with ``model.onnx`` or ``onnx/model.onnx``, which has no variants and nothing to measure.
        variant: Which variant to run; by default the first.
        backend: ``onnx`` runs that variant. ``auto`` measures, once for the machine, every variant that is not imitated
            here (``bf16`` is on a CPU) and whatever else is installed and can run the model (PyTorch in bfloat16 from
            the model's own folder, OpenVINO), and takes the fastest whose ranks agree with the exact variant's.
        device: ``cpu``, ``cuda`` or ``cuda:1``; None takes a CUDA device when one works.
        max_length: Longest input in tokens, if it is to be less than the manifest's.
        tokens_per_batch: Most tokens, padding included, in one forward pass; ``auto`` measures it once for the machine
            and keeps it in the user's cache folder.
        min_agreement: Least rank agreement of what ``backend: auto`` may take.

    Attributes:
        manifest: What the folder says of itself; None of a folder that `rlaif export` did not write.
        engine: What runs the model, such as ``onnx/int8``.
        classifier: The model as that engine runs it.

    Raises:
        ConfigError: The folder is no export, was changed, or a setting cannot be met.
        MissingExtraError: The extra ``onnx`` is not installed.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        variant: str | None = None,
        backend: BackendChoice = "onnx",
        device: str | None = None,
        max_length: int | None = None,
        tokens_per_batch: int | Literal["auto"] = "auto",
        min_agreement: float = 0.99,
    ) -> None:
        if backend not in ("onnx", "auto"):
            raise ConfigError(f"unknown backend {backend!r}", hint="onnx or auto")
        if backend == "auto" and variant is not None:
            raise ConfigError("backend: auto chooses the variant itself", hint="leave out backend or variant")
        path = Path(folder).expanduser()
        budget = tokens_per_batch if isinstance(tokens_per_batch, int) else 1024
        options = LoadOptions(device, None, max_length, budget, None)
        self.manifest: Manifest | None = None
        found: dict[str, Open] = {"onnx": partial(load_onnx_classifier, path, options, variant=variant)}
        choice: Choice | None = None
        if backend == "auto" or variant is not None or (path / MANIFEST_FILE).is_file() or not has_graph(path):
            self.manifest = read_manifest(path)
            if max_length is not None and max_length > self.manifest.max_length:
                raise ConfigError(
                    f"max_length is {max_length} where the model was exported for {self.manifest.max_length}",
                    hint="export it with a greater --max-length",
                )
            if backend == "auto":
                found = engines(path, self.manifest, options)
            else:
                self.manifest.variant(variant)
                name = variant or next(iter(self.manifest.variants))
                found = {f"onnx/{name}": partial(load_onnx_classifier, path, options, variant=name)}
            choice = cached_choice(self.manifest, found, device, min_agreement=min_agreement)
            if choice is None and (len(found) > 1 or tokens_per_batch == "auto"):
                logger.info("measuring %s on this machine, once", ", ".join(found))
                choice = choose(found, self.manifest, min_agreement=min_agreement)
                cache_choice(self.manifest, found, device, choice, min_agreement=min_agreement)
        choice = choice or Choice(next(iter(found)), budget)
        self.engine = choice.engine
        self.classifier: BatchedClassifier = found[choice.engine]()
        self.classifier.tokens_per_batch = budget if isinstance(tokens_per_batch, int) else choice.tokens_per_batch
        logger.info("%s runs by %s in batches of %d tokens", path, choice.engine, self.classifier.tokens_per_batch)

    def __repr__(self) -> str:
        return short_repr(f"OnnxScorer {self.classifier.name!r} {self.engine} labels={self.labels}")

    def score(self, inputs: Sequence[Scorable]) -> NDArray[np.float32]:
        """The logits of N texts, pairs of texts (tuples) or conversations (lists of messages), mixed as they come.

        Returns:
            Shape (N,) of a model with one label, else (N, L), in input order.

        Raises:
            BatchError: An entry is none of these, or the model has no chat template or refuses it; the message names the
                row.
        """
        if isinstance(inputs, str):
            raise BatchError("inputs must be a sequence, not one string")
        logits_NL = self.classifier.logits_of([self._prepared(row, single) for row, single in enumerate(inputs)])
        return logits_NL[:, 0] if len(self.labels) == 1 else logits_NL

    def _prepared(self, row: int, single: Scorable) -> EncoderInput:
        if isinstance(single, str):
            return checked_texts("inputs", [single])[0]
        if isinstance(single, tuple) and len(single) == 2 and all(isinstance(part, str) for part in single):
            first, second = checked_texts("inputs", single)  # type: ignore[arg-type]
            return first, second
        if isinstance(single, Sequence) and single and all(isinstance(part, (dict, Turn)) for part in single):
            try:
                return self.classifier.rendered(single)  # type: ignore[arg-type]
            except BatchError as error:
                raise BatchError(f"inputs[{row}]: {error.message}", hint=error.hint) from error
        raise BatchError(
            f"inputs[{row}] must be a text, a pair of texts or a list of messages, not {type(single).__name__}"
        )

    @property
    def input(self) -> InputKind:
        """What the reward ``onnx`` gives the model of a row of text, as the export was told."""
        return self.manifest.input if self.manifest else "joined"

    @property
    def labels(self) -> tuple[str, ...]:
        """The L label names, in the order of the logits."""
        return self.classifier.labels

    @property
    def problem_type(self) -> ProblemType:
        """What the logits mean."""
        return self.classifier.problem_type

    @property
    def revision(self) -> str:
        """Identifies the weights and how they are run."""
        return f"{self.classifier.revision} by {self.engine}"

    @property
    def truncated(self) -> int:
        """How many inputs were cut to the maximum length."""
        return self.classifier.truncated

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> NDArray[np.float32]:
        """The raw logits, shape (N, L), of texts or pairs (see `Classifier.logits`)."""
        return self.classifier.logits(texts, pairs)

    def close(self) -> None:
        """Release the model (see `Classifier.close`)."""
        self.classifier.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
