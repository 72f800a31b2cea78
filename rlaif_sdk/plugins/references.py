"""Rewards named without packaging: ``package.module:attribute`` and ``./file.py:attribute``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.io.digests import file_digest, json_digest


def is_reference(name: str) -> bool:
    """Whether a name is a reference rather than the name of a plugin's reward."""
    return ":" in name or name.endswith(".py")


def load_reference(reference: str, folder: Path) -> Any:
    """The object that a reference names.

    Args:
        reference: ``package.module:attribute``, or ``path/to/file.py:attribute``.
        folder: What a relative path is relative to.

    Raises:
        ConfigError: There is no such module, file or attribute, or importing it fails.
    """
    module_name, _, attribute = reference.rpartition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{reference!r} names no attribute", hint="write file.py:function or package.module:function")
    try:
        is_file = module_name.endswith(".py")
        module = _module_from_file(folder / module_name) if is_file else importlib.import_module(module_name)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{module_name!r} cannot be imported: {type(error).__name__}: {error}") from error
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            public = ", ".join(name for name in vars(module) if not name.startswith("_"))
            raise ConfigError(f"{module_name!r} has no attribute {attribute!r}", hint=f"it has: {public}")
        value = getattr(value, part)
    return value


def reference_file(reference: str, folder: Path) -> Path | None:
    """The Python file that a reference names the content of; the module is found and not imported, its packages are.

    Args:
        reference: As of `load_reference`.
        folder: See there.

    Returns:
        None where there is no such file, as of a built-in module.
    """
    name = reference.rpartition(":")[0]
    if name.endswith(".py"):
        file = folder / name
    else:
        try:
            spec = importlib.util.find_spec(name)
        except (Exception, SystemExit):  # noqa: BLE001 - packages run here; loading the reference says what is wrong
            return None
        file = Path((spec and spec.origin) or "")
    return file if file.suffix == ".py" and file.is_file() else None


def code_digests(composition: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """The digests of the Python files and modules that a composition names, by the name that it has for them.

    Of a module it is the one file that has its name, not what that imports.
    """
    parts = [*composition.get("rewards", {}).items(), *composition.get("fallbacks", {}).items()]
    references = {str((part or {}).get("use") or name) for name, part in parts}
    files = {name.rpartition(":")[0]: reference_file(name, folder) for name in sorted(references) if is_reference(name)}
    return {name: file_digest(file) for name, file in files.items() if file is not None}


def _module_from_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise ConfigError(f"there is no file {str(path)!r}")
    name = f"rlaif_file_{path.stem}_{json_digest(str(path))[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
