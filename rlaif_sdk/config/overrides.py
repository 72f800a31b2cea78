"""``--set a.b=c``: changes to a config from the command line."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlaif_sdk.config.documents import Document, Location, load_document, parse_document
from rlaif_sdk.exceptions import ConfigError

_KINDS = {str: "text", bool: "true or false", int: "a number", float: "a number", type(None): "null"}
"""What a YAML value without keys is called."""


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
    assigned = set(document.assigned)
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(
                f"--set {assignment} has no key and value", hint=f"write --set {key.strip() or 'KEY'}=VALUE"
            )
        assigned.add(_set(data, key.strip().split("."), _value(key, value), assignment))
    return replace(document, data=data, assigned=frozenset(assigned))


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


def _set(data: Any, parts: Sequence[str], value: Any, assignment: str) -> Location:
    """Set one value; returns the location of what is new: of the value, or of a mapping that was made on the way."""
    location: Location = ()
    new: Location | None = None
    for part in parts[:-1]:
        place = part if isinstance(data, dict) else _place(data, part, assignment)
        location = (*location, place)
        if isinstance(data, dict) and data.get(place) is None:
            data[place] = {}
            new = new or location
        data = data[place]
    place = parts[-1] if isinstance(data, dict) else _place(data, parts[-1], assignment)
    data[place] = value
    return new or (*location, place)


def _place(data: Any, part: str, assignment: str) -> int:
    """Where in a list a part of a key leads."""
    if not isinstance(data, list):
        raise ConfigError(
            f"--set {assignment}: there is no {part!r} to set, since what holds it is {_KINDS.get(type(data), 'a value')}",
            hint="if it names a file, set the key in that file" if isinstance(data, str) else None,
        )
    try:
        range(len(data))[int(part)]
    except (ValueError, IndexError):
        raise ConfigError(f"--set {assignment}: the list has no entry {part!r}, it has {len(data)}") from None
    return int(part)
