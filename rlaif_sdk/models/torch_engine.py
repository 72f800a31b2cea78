"""Scoring models run by transformers and PyTorch."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlaif_sdk.exceptions import ConfigError, needs_extra
from rlaif_sdk.io.devices import own_device
from rlaif_sdk.models.batching import BatchedClassifier, ChatSource
from rlaif_sdk.models.encoding import TextEncoder, TokenArrays
from rlaif_sdk.models.model_folder import folder_revision, local_folder, read_json
from rlaif_sdk.models.scoring_config import LoadOptions, ScoringConfig, batch_tokens, scoring_config

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_DTYPES = ("float32", "bfloat16", "float16")
_ADAPTER_FILE = "adapter_config.json"
_RUN_MODEL = "model"
"""Where a training run keeps its model."""
_OTHER_TASKS = ("ForTokenClassification", "ForMultipleChoice", "ForQuestionAnswering")
"""Ends of the architectures whose heads have the names and shapes that a sequence classifier's may have."""

_TOKEN_HEADS = {"ctrl": "classifier", "modernbert-decoder": "classifier"}
"""What the head on every token is called, where it is not ``score``."""


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """A sequence classifier as its files have it.

    Attributes:
        network: In evaluation mode, on the CPU; an adapter is merged into it.
        tokenizer: Its fast tokenizer.
        name: What the user named, a run's folder resolved to the model in it.
        revision: Identifies the weights.
        reading: How it is read.
    """

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    revision: str
    reading: ScoringConfig

    @property
    def chat(self) -> ChatSource:
        """How it renders messages."""
        template = self.tokenizer.chat_template
        return ChatSource(
            template.get("default") if isinstance(template, dict) else template,
            {name: str(token) for name, token in self.tokenizer.special_tokens_map.items()},
        )


class TorchClassifier(BatchedClassifier):
    """An ``AutoModelForSequenceClassification``.

    Args:
        network: In evaluation mode, on its device.
        **options: As for `BatchedClassifier`.
    """

    def __init__(self, network: PreTrainedModel, **options: Any) -> None:
        super().__init__(**options)
        self._network = network
        self._text_config: Any = network.config.get_text_config()
        self._finds_last_token_by_padding = self.reading.pad_id is None and token_head(network) is not None

    def forward(self, tokens: TokenArrays) -> NDArray[np.float32]:
        if self._finds_last_token_by_padding:
            return self._forward_with_padding_token(tokens)
        if self._text_config.is_encoder_decoder:
            return self._forward_by_ends(tokens)
        return self._forward(tokens)

    def _forward_with_padding_token(self, tokens: TokenArrays) -> NDArray[np.float32]:
        """A batch of a model without a padding token: what fills it up is, for this batch, a token that it has not."""
        free = np.setdiff1d(np.arange(tokens.input_ids.size + 1), tokens.input_ids[tokens.attention_mask == 1])[0]
        if free >= self._text_config.vocab_size:
            width = tokens.attention_mask.sum(axis=1).clip(min=1)
            rows = [_part(tokens, [row], int(width[row])) for row in range(len(width))]
            self._text_config.pad_token_id = None
            return np.concatenate([self._forward(row) for row in rows])
        self._text_config.pad_token_id = int(free)
        filled = np.where(tokens.attention_mask == 1, tokens.input_ids, free)
        return self._forward(replace(tokens, input_ids=filled))

    def _forward_by_ends(self, tokens: TokenArrays) -> NDArray[np.float32]:
        """An encoder-decoder is read at its last end token, and takes only rows that have equally many of them."""
        logits_NL = np.full((len(tokens.input_ids), len(self.labels)), np.nan, dtype=np.float32)
        ends_N = ((tokens.input_ids == self._text_config.eos_token_id) & (tokens.attention_mask == 1)).sum(axis=1)
        reads_last_token = token_head(self._network) is not None
        for count in np.unique(ends_N):
            rows = np.flatnonzero(ends_N == count).tolist()
            if count or reads_last_token:
                logits_NL[rows] = self._forward(_part(tokens, rows, tokens.input_ids.shape[1]))
        return logits_NL

    def _forward(self, tokens: TokenArrays) -> NDArray[np.float32]:
        import torch

        arrays = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
        if self.reading.takes_token_types:
            arrays["token_type_ids"] = tokens.token_type_ids
        inputs = {name: torch.from_numpy(array).to(self._network.device) for name, array in arrays.items()}
        with torch.inference_mode():
            logits_NL: NDArray[np.float32] = self._network(**inputs).logits.float().cpu().numpy()
        return logits_NL

    def _release(self) -> None:
        del self._network


def load_torch_classifier(model: str, options: LoadOptions, *, revision: str | None) -> TorchClassifier:
    """Load a hub model or a local folder (see `load_classifier`)."""
    with needs_extra("models", "transformers with torch"):
        device = own_device(options.device)
    loaded = load_network(model, dtype=options.dtype or "float32", revision=revision)
    try:
        loaded.network.to(device)  # type: ignore[arg-type]
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"the device {device!r} cannot be used: {_first_line(error)}") from error

    return TorchClassifier(
        loaded.network,
        name=model,
        reading=loaded.reading,
        chat=loaded.chat,
        revision=loaded.revision,
        encoder=TextEncoder(
            loaded.tokenizer.backend_tokenizer,
            max_length=options.length_within(loaded.reading.max_length),
            truncation_side=options.truncation_side or loaded.reading.truncation_side,
            pad_id=loaded.reading.fill_id,
        ),
        tokens_per_batch=batch_tokens(options.tokens_per_batch, on_gpu=loaded.network.device.type == "cuda"),
    )


def load_network(model: str | Path, *, dtype: str = "float32", revision: str | None = None) -> LoadedNetwork:
    """Load a sequence classifier.

    Weights are read from safetensors only, and no code of a model repository is run.

    Args:
        model: A hub name, a folder of ``save_pretrained``, the output folder of a training run, or a folder with a
            LoRA adapter of a sequence classifier.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        revision: Branch, tag or commit on the hub.

    Raises:
        ConfigError: There is no such model, its head is not trained, or its tokenizer has no fast version.
        MissingExtraError: A library is not installed.
    """
    if dtype not in _DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r} for a classifier", hint=f"one of {', '.join(_DTYPES)}")
    folder = local_folder(model)
    if folder is None:
        network, tokenizer = _pretrained(str(model), dtype, revision)
        commit = getattr(network.config, "_commit_hash", None) or revision or "unknown"
        return _read(network, tokenizer, str(model), f"{model}@{commit}")
    if not _is_model(folder) and _is_model(folder / _RUN_MODEL):
        folder /= _RUN_MODEL
    if not _is_model(folder):
        raise ConfigError("has no config.json: it is no model's folder", file=str(folder), hint="name another folder")
    digest = folder_revision(folder)
    if (folder / _ADAPTER_FILE).is_file():
        network, tokenizer, base = _merged(folder, dtype)
        return _read(network, tokenizer, str(folder), f"{digest} on {base}")
    network, tokenizer = _pretrained(str(folder), dtype, None)
    return _read(network, tokenizer, str(folder), digest)


def token_head(network: PreTrainedModel) -> nn.Module | None:
    """The head that a decoder has on every token, of which the last one is read; None of any other model."""
    from torch import nn

    head = getattr(network, _TOKEN_HEADS.get(network.config.get_text_config().model_type, "score"), None)
    return head if isinstance(head, nn.Linear) else None


_KERNELS = {"mra": "mra_cuda_kernel"}
"""Model types whose attention is left out where a kernel of their module is not there, and the kernel."""


def _read(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, revision: str) -> LoadedNetwork:
    if not tokenizer.is_fast:
        raise ConfigError(f"the tokenizer of {name!r} has no fast version", hint="save it with a tokenizer.json")
    kernel = _KERNELS.get(network.config.model_type)
    if kernel and getattr(sys.modules[type(network).__module__], kernel, None) is None:
        raise ConfigError(
            f"{name!r} is of the type {network.config.model_type!r}, whose attention needs a CUDA kernel that is not "
            "loaded: every text would get the same score",
            hint="use a model of another type, or load it where transformers finds its kernel",
        )
    settings = {
        "model_max_length": tokenizer.model_max_length,
        "truncation_side": "left" if token_head(network) is not None else tokenizer.truncation_side,
        "model_input_names": tokenizer.model_input_names,
    }
    reading = scoring_config(network.config.to_dict(), settings)
    if reading.pad_id is None:
        network.config.get_text_config().pad_token_id = None
    network.eval()  # type: ignore[no-untyped-call]
    return LoadedNetwork(network, tokenizer, name, revision, reading)


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", _ADAPTER_FILE))


def _pretrained(model: str, dtype: str, revision: str | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    with needs_extra("models", "transformers with torch"):
        import torch
        import transformers

    source: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, **source)
        network, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
            model, use_safetensors=True, dtype=getattr(torch, dtype), output_loading_info=True, **source
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, AssertionError) as error:
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
    for architecture in network.config.architectures or ():
        if architecture.endswith(_OTHER_TASKS):
            raise ConfigError(
                f"the model {model!r} is a {architecture}: it scores no sequence",
                hint="a head of the same name was trained on another task, as a process reward model's is on the end of "
                "each step; name a model that was fine-tuned for sequence classification",
            )
    return network, tokenizer


def _merged(folder: Path, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    """The base model with the adapter's weights added to its own, the tokenizer, and the base model's name."""
    with needs_extra("export"):
        import torch
        from peft import AutoPeftModelForSequenceClassification
        from transformers import AutoTokenizer

    base = str(read_json(folder / _ADAPTER_FILE).get("base_model_name_or_path"))
    labels = _head_labels(folder)
    try:
        adapted: Any = AutoPeftModelForSequenceClassification.from_pretrained(
            folder, num_labels=labels, use_safetensors=True, trust_remote_code=False
        )
        home = folder if (folder / "tokenizer.json").is_file() else base
        tokenizer = AutoTokenizer.from_pretrained(home, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(
            f"the adapter cannot be loaded onto {base!r}: {_first_line(error)}",
            file=str(folder),
            hint="an adapter of task type SEQ_CLS is needed, and its base model as adapter_config.json names it",
        ) from error
    return adapted.merge_and_unload().to(getattr(torch, dtype)), tokenizer, base


def _head_labels(folder: Path) -> int:
    """How many labels the adapter's own head has."""
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", framework="pt") as tensors:
        heads = [name for name in tensors.keys() if name.endswith(("score.weight", "classifier.weight"))]  # noqa: SIM118
        if len(heads) != 1:
            raise ConfigError(
                "the adapter has no classification head of its own",
                file=str(folder),
                hint="train it with task_type SEQ_CLS, which keeps the head beside the adapter",
            )
        return int(tensors.get_slice(heads[0]).get_shape()[0])


def _part(tokens: TokenArrays, rows: list[int], width: int) -> TokenArrays:
    """Some rows of a batch, in its first columns."""
    return TokenArrays(
        tokens.input_ids[rows, :width], tokens.attention_mask[rows, :width], tokens.token_type_ids[rows, :width]
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
