"""The types of a trainer's settings: values from a config checked against the annotations of the settings' dataclass."""

from __future__ import annotations

import sys
import typing
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from rlaif_sdk.exceptions import ConfigError


def typed_arguments(kind: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values in the types that the dataclass states: the text ``"5"`` becomes a number where one is wanted.

    Args:
        kind: The dataclass.
        given: Values by name; each name is one of its fields.

    Raises:
        ConfigError: A value is of another type; ``key`` is its name.
    """
    return {name: _typed(value, name, _annotation(kind, name)) for name, value in given.items()}


def _typed(value: Any, name: str, annotation: Any) -> Any:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # pydantic takes no config for a type that has one of its own
        adapter = TypeAdapter(annotation)
    try:
        typed = adapter.validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        wanted = getattr(annotation, "__name__", None) if isinstance(annotation, type) else str(annotation)
        raise ConfigError(f"{value!r} is refused: {problem}", key=name, hint=f"its type is {wanted}") from error
    return value if typed == value else typed  # transformers tells a step of 500 from a share of 500.0


def _annotation(kind: type[Any], name: str) -> Any:
    """The type of a field, as the class states it that declares it last; `Any` where it cannot be resolved."""
    for base in kind.__mro__:
        if name not in getattr(base, "__annotations__", {}):
            continue
        stated = SimpleNamespace(__annotations__={name: base.__annotations__[name]})
        try:
            return typing.get_type_hints(stated, vars(sys.modules[base.__module__]))[name]
        except (NameError, TypeError):
            return Any
    return Any
