"""Models and tokenizers of local judges, loaded; what stands for them before they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlaif_sdk.exceptions import ConfigError, MissingExtraError
from rlaif_sdk.io.digests import json_digest


def load_model(source: str, device: str, dtype: str, options: Mapping[str, Any]) -> Any:
    """A causal language model from a folder or the hub.

    Raises:
        ConfigError: It cannot be loaded.
        MissingExtraError: transformers or torch is not installed.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        raise MissingExtraError("a local judge's library, transformers with torch,", extra="models") from error
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **options)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the judge's model {source!r} cannot be loaded: {error}",
            hint="give a local folder or a hub name of a causal language model",
        ) from error
    return model.to(device)


def load_tokenizer(source: str, options: Mapping[str, Any]) -> Any:
    """The tokenizer beside a model.

    Raises:
        ConfigError: It cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the tokenizer of the judge's model {source!r} cannot be loaded: {error}",
            hint="save it beside the model: AutoTokenizer.from_pretrained(ORIGINAL).save_pretrained(FOLDER)",
        ) from error


def fingerprint(source: str) -> str:
    """What stands for a model in an identity: a hub name, or a digest of a folder's files by size and time."""
    folder = Path(source)
    if not folder.is_dir():
        return source
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return json_digest([[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files])
