"""Rewards named without packaging: ``package.module:attribute`` and ``./file.py:attribute``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from contextvars import ContextVar, copy_context
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from rlaif_sdk.exceptions import ConfigError, exception_text
from rlaif_sdk.io.digests import file_digest, json_digest
from rlaif_sdk.io.files import nearest_file


def is_reference(name: str) -> bool:
    """Whether a name is a reference rather than the name of a plugin's reward."""
    return ":" in name or name.endswith(".py")


IMPORT_LATE = "load models in the reward's setup(), or raise its 'setup_timeout'"
"""The next step where importing a reward's code takes too long."""
_importing: ContextVar[frozenset[str]] = ContextVar("_importing", default=frozenset())
"""The modules that are being imported where this runs."""
_imports: dict[str, Future[ModuleType]] = {}
_lock = threading.Lock()


def load_reference(reference: str, folder: Path, *, limit: float | None = None) -> Any:
    """The object that a reference names. A file or module is imported once, however many threads ask.

    Args:
        reference: ``package.module:attribute``, or ``path/to/file.py:attribute``.
        folder: What a relative path is relative to.
        limit: Seconds that importing it may take, in a thread of its own then; None imports it in this thread.

    Raises:
        ConfigError: There is no such module, file or attribute, or importing it fails or takes longer.
    """
    module_name, _, attribute = reference.rpartition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{reference!r} names no attribute", hint="write file.py:function or package.module:function")
    try:
        module = _imported(module_name, folder, limit)
    except ConfigError:
        raise
    except (Exception, SystemExit, GeneratorExit) as error:
        missing = isinstance(error, ModuleNotFoundError)
        hint = "install it where rlaif is installed, or write ./file.py:function for a file" if missing else None
        raise ConfigError(f"{module_name!r} cannot be imported: {exception_text(error)}", hint=hint) from error
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
    """The digests of the Python files and modules that a composition names, by the name that it has for them."""
    parts = [*composition.get("rewards", {}).items(), *composition.get("fallbacks", {}).items()]
    references = {str((part or {}).get("use") or name) for name, part in parts}
    return reference_digests(filter(is_reference, references), folder)


def reference_digests(references: Iterable[str], folder: Path) -> dict[str, str]:
    """The digests of the Python files and modules of references, by the name that these have for them.

    Of a module it is the one file that has its name, not what that imports.
    """
    files = {name.rpartition(":")[0]: reference_file(name, folder) for name in sorted(references)}
    return {name: file_digest(file) for name, file in files.items() if file is not None}


def is_imported(reference: str, folder: Path) -> bool:
    """Whether this process has imported the file or module of a reference.

    Args:
        reference: As of `load_reference`.
        folder: See there.
    """
    name = reference.rpartition(":")[0]
    return (_module_of((folder / name).resolve()) if name.endswith(".py") else name) in sys.modules


def _module_of(path: Path) -> str:
    """The name that a file's module has in `sys.modules`."""
    return f"rlaif_file_{path.stem}_{json_digest(str(path))[:8]}"


def _imported(name: str, folder: Path, limit: float | None) -> ModuleType:
    if name.endswith(".py"):
        path = (folder / name).resolve()
        if not path.is_file():
            raise ConfigError(f"there is no file {str(path)!r}", hint=nearest_file(path, {".py"}))
        module = _module_of(path)
        run = partial(_run_file, module, path)
    else:
        module, run = name, partial(importlib.import_module, name)
    with _lock:
        under_way = _imports.get(module)
        is_there = module in sys.modules and (under_way is None or module in _importing.get())
        if under_way is None and not is_there:
            future = _imports[module] = Future()
            context, job = copy_context(), partial(_import, module, run, future)
    if is_there:
        return importlib.import_module(module)  # waits for another thread that imports it by a statement
    if under_way is None:
        if limit is None:
            context.run(job)
        else:
            threading.Thread(target=context.run, args=(job,), name=f"rlaif-import-{name}", daemon=True).start()
        under_way = future
    wait([under_way], limit)
    if not under_way.done():
        raise ConfigError(
            f"{name!r} was not imported within its limit of {limit:g} s",
            hint=IMPORT_LATE,
        )
    return under_way.result()


def _import(module: str, run: Callable[[], ModuleType], future: Future[ModuleType]) -> None:
    _importing.set(_importing.get() | {module})
    found, failure = None, None
    try:
        found = run()
    except BaseException as error:  # noqa: BLE001 - told to all who wait for it
        failure = error
    with _lock:
        del _imports[module]
    if found is not None:
        future.set_result(found)
    else:
        future.set_exception(failure)


def _run_file(name: str, path: Path) -> ModuleType:
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
