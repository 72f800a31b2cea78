"""The files of a model's folder: read as JSON, and identified by what they hold."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.io.digests import file_digest, json_digest
from rlaif_sdk.io.files import other_kind

_REVISION_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")


def local_folder(model: str | Path) -> Path | None:
    """The folder that a user named; None where it is the name of a hub model.

    Raises:
        ConfigError: It can only be a folder, and there is none.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if isinstance(model, Path) or folder.exists() or model.startswith((".", "/", "~")) or model.count("/") > 1:
        problem = "is a file" if folder.exists() else "does not exist"
        raise ConfigError(
            f"the model folder {str(model)!r} {problem}",
            hint="name the folder that holds config.json, or a model on the hub as owner/name",
        )
    return None


def check_file(file: Path) -> None:
    """Refuse what is no file in a model's folder: a pipe or a device would be waited for, or read without end.

    Raises:
        ConfigError: It is something else.
        OSError: It is not there.
    """
    kind = other_kind(file.stat().st_mode)
    if kind is not None:
        raise ConfigError(f"is {kind}, where a file of a model is wanted", file=str(file), hint="take the model anew")


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file of a model folder.

    Raises:
        ConfigError: The file is absent, or holds no JSON object.
    """
    try:
        check_file(file)
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"the classifier folder has no {file.name}", file=str(file.parent)) from None
    except ConfigError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot be read as JSON: {error}", file=str(file)) from error
    if not isinstance(value, dict):
        raise ConfigError(f"must hold a JSON object, not {type(value).__name__}", file=str(file))
    return value


def has_graph(folder: Path) -> bool:
    """Whether a folder has an ONNX file, of its own or in its folder ``onnx``."""
    return any(folder.glob("*.onnx")) or any((folder / "onnx").glob("*.onnx"))


def folder_revision(folder: Path) -> str:
    """Identifies the weights and settings in a model's folder."""
    return content_digest(file for pattern in _REVISION_FILES for file in folder.glob(pattern))


def content_digest(files: Iterable[Path]) -> str:
    """A short digest of the names and contents of some files, the same in whatever order they come."""
    named = []
    for file in files:
        check_file(file)
        named.append((file.name, file_digest(file)))
    named.sort()
    return f"sha256:{json_digest(named)[:16]}"
