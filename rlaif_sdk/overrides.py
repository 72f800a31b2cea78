"""``--set a.b=c``: changes to a config from the command line."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlaif_sdk.documents import Document, load_document, parse_document
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.parsing import Location


def with_overrides(document: Document, assignments: Iterable[str]) -> Document:
    """A document with some of its values set.

    Args:
        document: The config; it is left as it was.
        assignments: ``key=value`` each; the key is dotted (a number counts in a list), the value is read as YAML.
            Mappings on the way to the key are made if they are missing.

    Raises:
        ConfigError: An assignment has no ``=``, its value is no YAML, or its key leads through a value that is neither
            mapping nor list.
    """
    data = copy.deepcopy(document.data)
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {assignment} has no key and value", hint="write --set ppo.learning_rate=1e-6")
        _set(data, tuple(key.strip().split(".")), _value(key, value), assignment)
    return replace(document, data=data)


def overridden(source: str | Path | Mapping[str, Any], assignments: Iterable[str]) -> Document:
    """The document of a YAML or JSON file, or of a mapping, with some of its values set; see `with_overrides`.

    Raises:
        ConfigError: The file cannot be read, or an assignment is refused.
    """
    document = Document(dict(source)) if isinstance(source, Mapping) else load_document(source)
    return with_overrides(document, assignments)


def _value(key: str, text: str) -> Any:
    if not text.strip():
        return None
    try:
        return parse_document(text).data
    except ConfigError as error:
        raise ConfigError(f"the value is {error.message}", key=key, hint="quote it for YAML") from error


def _set(data: Any, location: Location, value: Any, assignment: str) -> None:
    for part in location[:-1]:
        data = data.setdefault(part, {}) if isinstance(data, dict) else _in_list(data, part, assignment)
    if isinstance(data, dict):
        data[location[-1]] = value
    else:
        _in_list(data, location[-1], assignment)
        data[int(location[-1])] = value


def _in_list(data: Any, part: str | int, assignment: str) -> Any:
    if not isinstance(data, list):
        raise ConfigError(f"--set {assignment}: {part!r} stands under a {type(data).__name__}, which has no keys")
    try:
        return data[int(part)]
    except (ValueError, IndexError):
        raise ConfigError(f"--set {assignment}: the list has no entry {part!r}, it has {len(data)}") from None
