"""What is exported: a sequence classifier from a hub, a folder, a training run, or a base model with an adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import ConfigError, MissingExtraError
from rlaif_sdk.models.loader import content_digest, read_json
from rlaif_sdk.models.torch_engine import load_network

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_ADAPTER_FILE = "adapter_config.json"
_RUN_MODEL = "model"
"""Where a training run keeps its model."""


@dataclass(frozen=True, slots=True)
class Source:
    """A loaded model.

    Attributes:
        network: In evaluation mode, float32, on the CPU; an adapter is merged into it.
        tokenizer: Its fast tokenizer.
        name: What the user named, a run's folder resolved to the model in it.
        revision: Identifies the weights.
    """

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    revision: str


def load_source(model: str | Path, *, revision: str | None = None) -> Source:
    """Load what is to be exported.

    Args:
        model: A hub name, a folder of ``save_pretrained``, the output folder of a training run, or a folder with a
            LoRA adapter of a sequence classifier.
        revision: Branch, tag or commit on the hub.

    Raises:
        ConfigError: There is no such model, or it is no trained sequence classifier.
        MissingExtraError: A library is not installed.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if isinstance(model, Path) or folder.exists() or str(model).startswith((".", "/", "~")):
            raise ConfigError(f"the model folder {str(model)!r} does not exist")
        network, tokenizer = load_network(str(model), revision=revision)
        commit = getattr(network.config, "_commit_hash", None) or revision or "unknown"
        return Source(network, tokenizer, str(model), f"{model}@{commit}")
    if not _is_model(folder) and _is_model(folder / _RUN_MODEL):
        folder /= _RUN_MODEL
    digest = content_digest(file for pattern in ("*.safetensors", "*.json") for file in folder.glob(pattern))
    if (folder / _ADAPTER_FILE).is_file():
        network, tokenizer, base = _merged(folder)
        return Source(network, tokenizer, str(folder), f"{digest} on {base}")
    network, tokenizer = load_network(str(folder))
    return Source(network, tokenizer, str(folder), digest)


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", _ADAPTER_FILE))


def _merged(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    """The base model with the adapter's weights added to its own, the tokenizer, and the base model's name."""
    try:
        from peft import AutoPeftModelForSequenceClassification
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingExtraError("peft", extra="export") from error

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
            f"the adapter cannot be loaded onto {base!r}: {str(error).partition(chr(10))[0]}",
            file=str(folder),
            hint="an adapter of task type SEQ_CLS is needed, and its base model as adapter_config.json names it",
        ) from error
    return adapted.merge_and_unload().float().eval(), tokenizer, base


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
