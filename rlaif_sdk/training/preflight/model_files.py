"""The models that a run loads, and what their files say of them, read without loading any.

By convention a reward whose parameters have ``model`` loads that model, at ``revision`` if there is one; with a
``base_url`` it asks a server instead.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.models.model_folder import local_folder, read_json

if TYPE_CHECKING:
    from rlaif_sdk.composer import Composer


_WEIGHTS = ("*.safetensors", "*.bin", "*.onnx", "*.gguf", "*.pt")
"""Names of weight files, the kind that is loaded first coming first."""

_MAX_HEADER = 100_000_000
"""Bytes; the safetensors format allows no longer header."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of one model.

    Attributes:
        name: As the config names it.
        folder: Where they are; None for a model of the hub that has not been downloaded.
        config: The content of ``config.json``; empty without one.
        bytes: Size of the weight files.
        parameters: How many numbers the safetensors headers list; None for weights in another form.
        dtype: The type of most of these numbers, as safetensors names it: ``F32``, ``BF16``.
        digest: Changes with the config, the headers, and the names and sizes of the weight files. The weights
            themselves are not read.
    """

    name: str
    folder: Path | None
    config: Mapping[str, Any]
    bytes: int
    parameters: int | None
    dtype: str | None
    digest: str


def find_model(name: str, revision: str | None = None) -> ModelFiles:
    """Look at a model's files.

    Args:
        name: A folder, or the name of a model on the hub; of the latter, what has been downloaded is looked at.
        revision: Branch, tag or commit on the hub.

    Raises:
        ConfigError: There is no such folder, it holds no weights, a file is damaged or missing; or the model is on the
            hub, was not downloaded, and downloads are switched off.
    """
    folder = local_folder(name)
    if folder is not None:
        return read_folder(name, folder)
    snapshot = _snapshot(name, revision)
    if snapshot is not None:
        return read_folder(name, snapshot)
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise ConfigError(
            f"{name!r} is no folder, was never downloaded, and HF_HUB_OFFLINE forbids it now",
            hint=f"correct the path, or: hf download {name}",
        )
    return ModelFiles(name, None, {}, 0, None, None, "")


def _snapshot(name: str, revision: str | None) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return None
    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError as error:
        raise ConfigError(f"{name!r} is neither a folder nor a name on the hub: {error}") from None
    return Path(found).parent if isinstance(found, str) else None


def read_folder(name: str, folder: Path) -> ModelFiles:
    """Look at the files of a model in a folder; see `find_model`."""
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    files: list[Path] = next((found for kind in _WEIGHTS if (found := sorted(folder.glob(kind)))), [])
    missing = {
        file for index in folder.glob("*.index.json") for file in read_json(index).get("weight_map", {}).values()
    }
    missing -= {path.name for path in folder.iterdir()}
    if missing:
        raise ConfigError(f"{folder} lacks {', '.join(sorted(missing))}", hint="its download is not complete")
    if not files:
        raise ConfigError(f"{folder} holds no weights", hint="a model's folder has config.json and safetensors files")
    numbers: Counter[str] = Counter()
    contents: list[Any] = [config]
    for file in files:
        contents.append([file.name, file.stat().st_size])
        if file.suffix == ".safetensors":
            header = safetensors_header(file)
            contents.append(header)
            for tensor in header.values():
                numbers[tensor["dtype"]] += math.prod(tensor["shape"])
    return ModelFiles(
        name=name,
        folder=folder,
        config=config,
        bytes=sum(file.stat().st_size for file in files),
        parameters=numbers.total() or None,
        dtype=numbers.most_common(1)[0][0] if numbers else None,
        digest=json_digest(contents),
    )


def safetensors_header(file: Path) -> dict[str, Any]:
    """The tensors of a safetensors file by name, each with dtype, shape and place; its data is not read.

    Raises:
        ConfigError: It is no such file, or is truncated.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= min(_MAX_HEADER, size - 8):
            raise ConfigError(f"{file} is no safetensors file", hint="download it again")
        try:
            header: dict[str, Any] = json.loads(stream.read(length))
        except ValueError as error:
            raise ConfigError(f"{file} has no readable header: {error}", hint="download it again") from None
    header.pop("__metadata__", None)
    expected = 8 + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    if size < expected:
        raise ConfigError(f"{file} is truncated: {size:,} of {expected:,} bytes", hint="download it again")
    return header


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that a run will load.

    Attributes:
        role: What for: ``policy``, ``critic``, or ``reward NAME``.
        files: What is known of it.
        copies: How often it is held: the policy and its frozen reference make two.
        dtype: The type that it is held in; None for that of its files.
    """

    role: str
    files: ModelFiles
    copies: int = 1
    dtype: str | None = None

    @property
    def bytes(self) -> int:
        """What one copy takes in memory."""
        if self.dtype is None or self.files.parameters is None:
            return self.files.bytes
        return self.files.parameters * (4 if self.dtype == "float32" else 2)


def reward_models(composer: Composer) -> Iterator[LoadedModel]:
    """The models of a composer's rewards and their fallbacks.

    Raises:
        ConfigError: A model's files are missing or damaged; the message names the reward's parameter.
    """
    parts = [("rewards", composer.components), ("fallbacks", composer.fallbacks)]
    for kind, components in parts:
        for name, component in components.items():
            params = component.params
            model = params.get("model")
            if not isinstance(model, str) or params.get("base_url"):
                continue
            try:
                files = find_model(model, params.get("revision"))
            except ConfigError as error:
                key = f"composition.{kind}.{name}.params.model"
                raise ConfigError(error.message, key=key, hint=error.hint) from error
            from rlaif_sdk.models.rewards import ScoringReward

            scores = isinstance(component.reward, ScoringReward)  # which loads in float32 unless told otherwise
            dtype = (params.get("dtype") or "float32") if scores else None
            yield LoadedModel(f"{kind.removesuffix('s')} {name}", files, dtype=dtype)
