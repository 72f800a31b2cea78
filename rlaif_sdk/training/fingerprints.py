"""Digests of what a run reads: its rows, its config, the Python files that its rewards come from."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlaif_sdk.plugins.references import is_reference, reference_file

_SECRET = re.compile(r"(api_?key|secret|password|(^|_)(hub|auth|access)_token|^token)$", re.IGNORECASE)

UNSET = "unset"
"""Stands for the value of a key that is not there."""


def digest(value: Any) -> str:
    """A short digest of a JSON-like value, whatever the order of its keys."""
    return _short(hashlib.sha256(_canonical(value)))


def rows_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """A short digest of a table's rows in their order."""
    content = hashlib.sha256()
    for row in rows:
        content.update(_canonical(row) + b"\n")
    return _short(content)


def code_digests(composition: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """The digests of the Python files and modules that a composition names, by the name that it has for them.

    Of a module it is the one file that has its name, not what that imports.
    """
    parts = [*composition.get("rewards", {}).items(), *composition.get("fallbacks", {}).items()]
    references = {str((part or {}).get("use") or name) for name, part in parts}
    files = {name.rpartition(":")[0]: reference_file(name, folder) for name in sorted(references) if is_reference(name)}
    return {name: _short(hashlib.sha256(file.read_bytes())) for name, file in files.items() if file is not None}


def without_secrets(value: Any, key: str = "") -> Any:
    """The same value, with what stands under the name of a secret hidden."""
    if isinstance(value, Mapping):
        return {str(name): without_secrets(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(item) for item in value]
    return "(hidden)" if _SECRET.search(key) and value is not None else value


def differences(old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """What differs between two JSON-like values.

    Yields:
        The dotted key, the old and the new value of each leaf; `UNSET` where there is none. Lists are leaves.
    """
    before, after = dict(_leaves(old, "")), dict(_leaves(new, ""))
    for key in dict.fromkeys([*before, *after]):
        if before.get(key, UNSET) != after.get(key, UNSET):
            yield key, before.get(key, UNSET), after.get(key, UNSET)


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping) or not value:
        if value not in (None, {}):
            yield key, value
        return
    for name, item in value.items():
        yield from _leaves(item, f"{key}.{name}" if key else str(name))


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")


def _short(content: Any) -> str:
    return f"sha256:{content.hexdigest()[:16]}"
