"""Classifiers run by transformers and PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlaif_sdk.exceptions import ConfigError, MissingExtraError
from rlaif_sdk.models.batching import BatchedClassifier
from rlaif_sdk.models.encoding import TextEncoder, TokenArrays
from rlaif_sdk.models.loader import LoadOptions, content_digest, is_multi_label, labels_from, longest_input

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_DTYPES = ("float32", "bfloat16", "float16")
_REVISION_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")


class TransformersClassifier(BatchedClassifier):
    """An ``AutoModelForSequenceClassification``.

    Args:
        model: In evaluation mode, on its device.
        takes_token_types: Whether the model tells the two texts of a pair apart by ``token_type_ids``.
        **options: As for `BatchedClassifier`.
    """

    def __init__(self, model: PreTrainedModel, *, takes_token_types: bool, **options: Any) -> None:
        super().__init__(**options)
        self._model = model
        self._takes_token_types = takes_token_types

    def forward(self, tokens: TokenArrays) -> NDArray[np.float32]:
        import torch

        arrays = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
        if self._takes_token_types:
            arrays["token_type_ids"] = tokens.token_type_ids
        inputs = {name: torch.from_numpy(array).to(self._model.device) for name, array in arrays.items()}
        with torch.inference_mode():
            logits_NL: NDArray[np.float32] = self._model(**inputs).logits.float().cpu().numpy()
        return logits_NL

    def _release(self) -> None:
        del self._model


def load_transformers_classifier(model: str, options: LoadOptions, *, revision: str | None) -> TransformersClassifier:
    """Load a hub model or a folder saved by ``save_pretrained`` (see `load_classifier`)."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("transformers with torch", extra="models") from error
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    network, tokenizer = load_network(model, dtype=options.dtype or "float32", revision=revision)
    try:
        network.to(device)  # type: ignore[arg-type]
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"the device {device!r} cannot be used: {_first_line(error)}") from error

    config = network.config.to_dict()
    return TransformersClassifier(
        network,
        takes_token_types="token_type_ids" in tokenizer.model_input_names,
        name=model,
        labels=labels_from(config),
        multi_label=is_multi_label(config),
        revision=_weights_revision(model, network),
        encoder=TextEncoder(
            tokenizer.backend_tokenizer,
            max_length=options.length_within(longest_input(config, tokenizer.model_max_length)),
            truncation_side=options.truncation_side or ("left" if tokenizer.truncation_side == "left" else "right"),
            pad_id=_settle_pad_id(network, tokenizer),
        ),
        tokens_per_batch=options.tokens_per_batch,
    )


def load_network(
    model: str, *, dtype: str = "float32", revision: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A sequence classifier, in evaluation mode on the CPU, and its fast tokenizer.

    Weights are read from safetensors only, and no code of a model repository is run.

    Raises:
        ConfigError: There is no such model, its head is not trained, or its tokenizer has no fast version.
        MissingExtraError: torch or transformers is not installed.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers with torch", extra="models") from error

    if dtype not in _DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r} for a classifier", hint=f"one of {', '.join(_DTYPES)}")
    source: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, **source)
        network, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
            model, use_safetensors=True, dtype=getattr(torch, dtype), output_loading_info=True, **source
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(
            f"the classifier {model!r} cannot be loaded: {_first_line(error)}",
            hint="a sequence classifier with safetensors weights and a tokenizer is needed, from the hub or a folder; "
            "pickled weights and a repository's own code are not loaded",
        ) from error
    if loading["missing_keys"]:
        missing = ", ".join(sorted(loading["missing_keys"])[:3])
        raise ConfigError(
            f"the model {model!r} is no trained classifier: its weights lack {missing}",
            hint="name a model that was fine-tuned for sequence classification",
        )
    if not tokenizer.is_fast:
        raise ConfigError(f"the tokenizer of {model!r} has no fast version", hint="save it with a tokenizer.json")
    return network.eval(), tokenizer


def _settle_pad_id(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Choose the id that fills short rows; a decoder finds each row's last token by it, so its config must know it."""
    candidates = (network.config.pad_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
    pad_id = next((token for token in candidates if token is not None), 0)
    network.config.pad_token_id = pad_id
    return int(pad_id)


def _weights_revision(model: str, network: PreTrainedModel) -> str:
    folder = Path(model)
    if folder.is_dir():
        return content_digest(file for pattern in _REVISION_FILES for file in folder.glob(pattern))
    return f"{model}@{getattr(network.config, '_commit_hash', None) or 'unknown'}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
