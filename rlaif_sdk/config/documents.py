"""Configs read from files with the line of every key, and validated so that each refusal names file and line."""

from __future__ import annotations

import difflib
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.io.files import config_text
from rlaif_sdk.io.redaction import is_secret
from rlaif_sdk.io.text import is_safe_text

ModelT = TypeVar("ModelT", bound=BaseModel)
Location = tuple[str | int, ...]

MAX_VALUES = 100_000
"""More values than a config can need: YAML aliases that expand to more are refused."""
_TOO_MANY = f"holds more than {MAX_VALUES:,} values, aliases expanded"


_TAG = "tag:yaml.org,2002:"
_INT, _FLOAT, _BOOL = f"{_TAG}int", f"{_TAG}float", f"{_TAG}bool"
_NULL, _MERGE = f"{_TAG}null", f"{_TAG}merge"
_TAGS = frozenset({_INT, _FLOAT, _BOOL, _NULL, f"{_TAG}str", f"{_TAG}map", f"{_TAG}seq"})
"""What a value may be: the types that JSON has."""


class _Loader(yaml.SafeLoader):
    """PyYAML's loader with the core schema of YAML 1.2, and the merge keys of 1.1.

    So ``1e-5`` is a number, ``010`` is 10, and ``1:30``, ``1_000``, ``yes``, ``off`` and ``2026-11-30`` are text.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML declares it
        first: [(tag, pattern) for tag, pattern in found if tag in (_NULL, _MERGE)]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _composed = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, up to `MAX_VALUES`."""
        self._composed += 1
        if self._composed > MAX_VALUES:
            raise yaml.MarkedYAMLError(None, None, _TOO_MANY, self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        """``0o17`` and ``0xf`` by their prefix, everything else decimal (YAML 1.2.2, 10.3.2)."""
        text = str(self.construct_scalar(node))
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


_Loader.add_implicit_resolver(_INT, re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)
_Loader.add_constructor(_INT, _Loader.construct_integer)
_Loader.add_implicit_resolver(_BOOL, re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


class _JsonLoader(_Loader):
    """For the lines of JSON, whose keys have any length and may stand on another line than their colon."""

    def stale_possible_simple_keys(self) -> None:
        """Keep every key."""


_JSON_LINES = re.compile("[\x85\u2028\u2029]")
"""Line breaks to YAML, and ordinary characters of a string to JSON."""


@dataclass(frozen=True, slots=True)
class Document:
    """Plain data, and where each part of it stands.

    Attributes:
        data: Mappings, lists and scalars.
        file: The path it was read from, or None for data made in Python.
        lines: The 1-based line of each location, such as ``("rewards", "toxicity", "weight")``.
        assigned: The locations whose value was set on the command line, and stands in no file.
    """

    data: Any
    file: str | None = None
    lines: Mapping[Location, int] = field(default_factory=dict)
    assigned: frozenset[Location] = frozenset()

    @property
    def folder(self) -> Path:
        """What relative paths in it are relative to: its file's folder, or the working directory."""
        return Path(self.file).parent if self.file else Path()

    def line(self, location: Location) -> int | None:
        """The line of a location, or of the nearest enclosing one; None of a value that stands in no file."""
        if self._is_assigned(location):
            return None
        for end in range(len(location), -1, -1):
            if location[:end] in self.lines:
                return self.lines[location[:end]]
        return None

    def place(self, location: Location) -> str:
        """``FILE:LINE`` of a location, or empty where it stands in no file."""
        line = self.line(location)
        return f"{self.file}:{line}" if self.file and line else ""

    def error(self, message: str, location: Location = (), hint: str | None = None) -> ConfigError:
        """A `ConfigError` that points at a location of this document, or at the command line that set it."""
        key = ".".join(map(str, location)) or None
        file = "--set" if self._is_assigned(location) else self.file
        return ConfigError(message, file=file, line=self.line(location), key=key, hint=hint)

    def _is_assigned(self, location: Location) -> bool:
        return any(location[: len(where)] == where for where in self.assigned)

    def at(self, *location: str | int) -> Document:
        """The part of the document at a location, which must exist."""
        data = self.data
        for part in location:
            data = data[part]
        size = len(location)
        lines = {where[size:]: line for where, line in self.lines.items() if where[:size] == location}
        assigned = frozenset(where[size:] for where in self.assigned if where[:size] == location)
        return Document(data, self.file, lines, assigned)


class Described:
    """What a config describes, for a dataclass with the fields below.

    Attributes:
        config: The checked config, with the name of an ``output`` folder.
        document: What it was read from, which knows the folder and the lines.
    """

    __slots__ = ()

    config: Any
    document: Document

    @property
    def folder(self) -> Path:
        """What relative paths are relative to."""
        return self.document.folder

    @property
    def output(self) -> Path:
        """The folder of the results."""
        return self.folder / str(self.config.output)


def load_document(path: str | Path) -> Document:
    """Read a YAML or JSON file (by its suffix: ``.json`` is JSON, anything else YAML 1.2, in which ``no`` is a text).

    Its ``data`` are plain mappings, lists and scalars, and its ``error`` points at a line.

    Raises:
        ConfigError: The file is missing, no valid YAML or JSON, or has a duplicate key.
    """
    return parse_document(config_text(path), file=str(path), is_json=Path(path).suffix == ".json")


def parse_document(text: str, *, file: str | None = None, is_json: bool = False) -> Document:
    """Read YAML or JSON text. See `load_document`."""
    data, lines = _parse(text, file, is_json=is_json)
    return Document(data, file, lines)


def named_document(name: str, shipped: Traversable, folder: Path, *, what: str) -> Document:
    """A document that comes with the SDK, or one of the user's own.

    Args:
        name: The name of one in ``shipped``, or a .yaml, .yml or .json file.
        shipped: The folder of those that come with the SDK, a YAML file each.
        folder: What a file's path is relative to.
        what: What messages call it.

    Raises:
        ConfigError: There is none of that name, or the file is refused; names the line.
    """
    if Path(name).suffix in _SUFFIXES:
        return load_document(folder / name)
    known = sorted(file.name.removesuffix(".yaml") for file in shipped.iterdir() if file.name.endswith(".yaml"))
    if name not in known:
        raise ConfigError(f"there is no {what} {name!r}", hint=f"there is {', '.join(known)}; or name a YAML file")
    file = shipped.joinpath(f"{name}.yaml")
    return parse_document(file.read_text(encoding="utf-8"), file=file.name)


def validate(model: type[ModelT], document: Document, *, at: Location = ()) -> ModelT:
    """The pydantic model of a document.

    Args:
        model: What the data must fit.
        document: The data; `at` is where in its file it stands.
        at: Prefix for the keys in messages.

    Raises:
        ConfigError: The data does not fit; the message lists every problem, with file and line.
    """
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise from_validation_error(error, model, document, at=at) from None


def from_validation_error(
    error: ValidationError, model: type[BaseModel], document: Document, *, at: Location = ()
) -> ConfigError:
    """A `ConfigError` with the place of the first problem, listing all of them."""
    told: dict[Location, dict[str, str | None]] = {}
    for item in error.errors(include_url=False):
        location = _real_location(at, item["loc"], document)
        message, hint = _wording(dict(item), model)
        told.setdefault(location, {})[message] = hint
    problems = [
        document.error(_alternatives(list(messages)), location, next(filter(None, messages.values()), None))
        for location, messages in told.items()
    ]
    first, *others = sorted(problems, key=lambda problem: problem.line or 0)
    if not others:
        return first
    message = "".join((first.message, f" ({first.hint})" if first.hint else "", *(f"\n  {other}" for other in others)))
    return ConfigError(message, file=first.file, line=first.line, key=first.key)


def _alternatives(messages: list[str]) -> str:
    """One message of those about one value, which is none of the kinds that it may be."""
    starts = [message.partition(", found ")[0] for message in messages]
    found = messages[-1][len(starts[-1]) :]
    return starts[0] + "".join(f" or {start.removeprefix('input should be ')}" for start in starts[1:]) + found


def _real_location(at: Location, loc: Location, document: Document) -> Location:
    """Drop the parts that pydantic adds for unions and discriminators, which stand nowhere in the file."""
    real = at
    data = document.data
    for part in at:
        data = _inside(data, part)
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        if _inside(data, part) is not _ABSENT:
            data = _inside(data, part)
            real = (*real, part)
        elif last and (isinstance(data, Mapping) or data is _ABSENT) and isinstance(part, str) and "[" not in part:
            real = (*real, part)
    return real


_ABSENT = object()


def _inside(data: Any, part: str | int) -> Any:
    if isinstance(data, Mapping):
        return data.get(part, _ABSENT)
    return data[part] if isinstance(data, list) and isinstance(part, int) and part < len(data) else _ABSENT


def _wording(item: dict[str, Any], model: type[BaseModel]) -> tuple[str, str | None]:
    kind, found = item["type"], item.get("input")
    if kind == "extra_forbidden":
        fields = _fields_at(model, item["loc"][:-1])
        if item["loc"][-1] in fields:
            return "unknown key", "it does not go with the others that are given here"
        close = difflib.get_close_matches(str(item["loc"][-1]), fields, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(fields)}" if fields else None
        return "unknown key", hint
    if kind == "missing":
        return "is missing", (_described_at(model, item["loc"]) or "").partition(". ")[0] or None
    message = item["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    hint = None
    if kind == "too_short" and isinstance(found, Sized):
        least = item["ctx"]["min_length"]
        message = f"needs at least {least} {'entry' if least == 1 else 'entries'}"
        hint = _described_at(model, item["loc"])
    if isinstance(found, bool) and kind in {"string_type", "float_type", "int_type"}:
        hint = "YAML reads true and false as truth values: quote it" if kind == "string_type" else None
    if isinstance(found, str) and kind in {"int_type", "float_type", "int_parsing", "float_parsing"}:
        hint = _as_number(found)
    if kind in {"model_type", "model_attributes_type"}:
        fields = _fields_at(model, item["loc"])
        message = "must be a mapping"
        hint = "write {} for the defaults" if found is None and item["loc"] else f"its keys: {', '.join(fields)}"
    if kind == "dict_type":
        message = "must be a mapping"
        hint = _described_at(model, item["loc"])
    if kind != "value_error" and not any(is_secret(str(part).removesuffix("_env")) for part in item["loc"][-1:]):
        shown = _WORDS.get(repr(found), repr(found))
        message += f", found {shown}" if len(shown) <= 80 else ""
    return message, hint


_WORDS = {"None": "nothing", "True": "true", "False": "false"}
"""What a config calls the values that Python writes otherwise."""


def _as_number(text: str) -> str | None:
    """How a number is written that YAML reads as text."""
    plain = text.replace("_", "")
    if plain != text and plain.isdecimal():
        return f"write {plain}: YAML 1.2 has no underscores in numbers"
    try:
        return f"write {text} without quotes" if math.isfinite(float(text)) else None
    except ValueError:
        return None


def _described_at(model: type[BaseModel], location: Location) -> str | None:
    """What the docstring of a field says that it is, without its full stop."""
    *outer, name = location
    found = [each.model_fields[name] for each in _models_at(model, outer) if name in each.model_fields]
    text = " ".join((found[0].description or "").split()).removesuffix(".") if found else ""
    return (text[:1].lower() + text[1:]).replace("``", "'") or None


def _fields_at(model: type[BaseModel], location: Location) -> list[str]:
    return sorted({name for each in _models_at(model, location) for name in _keys(each)})


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _models_at(model: type[BaseModel], location: Iterable[str | int]) -> list[type[BaseModel]]:
    annotation: Any = model
    for part in location:
        models = _models_in(annotation)
        fields = [m.model_fields[part] for m in models if isinstance(part, str) and part in m.model_fields]
        annotation = fields[0].annotation if fields else annotation
    return _models_in(annotation)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]


_SUFFIXES = {".yaml", ".yml", ".json"}


def _where_to_look(file: str | None, *, is_json: bool = False, tab: bool = False) -> str:
    """What may be wrong with text that is no YAML or JSON."""
    if file and Path(file).suffix not in _SUFFIXES:
        return f"a config ends in {', '.join(sorted(_SUFFIXES))}: is this one?"
    if tab:
        return "indent with spaces, not tabs"
    if is_json:
        return "look for a bracket, quote or comma there or above"
    return "look there or above for an open bracket or quote, or for ': ' in text without quotes"


def _parse(text: str, file: str | None, *, is_json: bool) -> tuple[Any, dict[Location, int]]:
    """Read YAML or JSON text.

    Args:
        text: The text.
        file: Where it comes from, for errors.
        is_json: Whether it is JSON.

    Returns:
        Mappings, lists and scalars; and the 1-based line of each location, such as ``("rewards", "toxicity", "weight")``.

    Raises:
        ConfigError: It is no valid YAML or JSON, or has a duplicate key.
    """
    if is_json:
        json_data = _parse_json(text, file)
        for only_json in (_Loader.NON_PRINTABLE, _JSON_LINES):
            text = only_json.sub(lambda found: f"\\U{ord(found[0]):08x}", text)
        text = text.replace("\t", " ")
    lines: dict[Location, int] = {}
    try:
        loader = (_JsonLoader if is_json else _Loader)(text)
        root = loader.get_single_node()
        if root is None:
            raise ConfigError("is empty", file=file, line=1, hint="write the keys of a config, or name another file")
        _record(root, (), lines, file, loader)
        data = json_data if is_json else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        if error.problem == _TOO_MANY:
            raise ConfigError(_TOO_MANY, file=file, line=line) from error
        hint = _where_to_look(file, tab="'\\t'" in str(error.problem))
        raise ConfigError(f"no valid YAML: {error.problem}", file=file, line=line, hint=hint) from error
    except RecursionError as error:
        raise ConfigError("is nested too deeply", file=file, line=1) from error
    except ConfigError:
        raise
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"no valid YAML: the character {chr(error.character)!r}", file=file, line=line) from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"no valid YAML: {error}", file=file, line=1) from error
    return data, lines


def _parse_json(text: str, file: str | None) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        problem = f"no valid JSON: {error.msg}, at column {error.colno}"
        raise ConfigError(problem, file=file, line=error.lineno, hint=_where_to_look(file, is_json=True)) from error
    except (RecursionError, ValueError) as error:
        problem = "is nested too deeply" if isinstance(error, RecursionError) else f"no valid JSON: {error}"
        raise ConfigError(problem, file=file, line=1) from error


def _record(
    node: yaml.Node, location: Location, lines: dict[Location, int], file: str | None, loader: yaml.SafeLoader
) -> None:
    line = node.start_mark.line + 1
    if len(lines) > MAX_VALUES:
        raise ConfigError(_TOO_MANY, file=file, line=line)
    lines.setdefault(location, line)
    _check_value(node, line, file, loader)
    if isinstance(node, yaml.MappingNode):
        seen: dict[Any, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError("a key must be plain text", file=file, line=line)
            _check_value(key_node, line, file, loader)
            key = key_node.value if key_node.tag == _MERGE else loader.construct_object(key_node)
            if isinstance(key, str) and not is_safe_text(key):
                problem = f"half a character (a lone surrogate) in the key {key[:40]!r}"
                raise ConfigError(problem, file=file, line=line, hint="write the whole one")
            if isinstance(key, bool):
                hint = "quote it"
                raise ConfigError(
                    f"YAML reads the key {key_node.value} as a truth value", file=file, line=line, hint=hint
                )
            if key in seen:
                raise ConfigError(f"the key {key!r} stands twice, first on line {seen[key]}", file=file, line=line)
            seen[key] = line
            lines[(*location, key)] = line
            _record(value_node, (*location, key), lines, file, loader)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _record(item, (*location, index), lines, file, loader)


def _check_value(node: yaml.Node, line: int, file: str | None, loader: yaml.SafeLoader) -> None:
    """Refuse what JSON has not, and numbers that are none."""
    if node.tag == _MERGE:
        return
    if node.tag not in _TAGS:
        hint = "a config has what JSON has: text, numbers, truth values, null, lists and mappings"
        raise ConfigError(f"the tag {node.tag.replace(_TAG, '!!')} is not read here", file=file, line=line, hint=hint)
    if isinstance(node, yaml.ScalarNode):
        if not is_safe_text(node.value):  # JSON escapes one character as a pair
            node.value = node.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        try:
            loader.construct_object(node)
        except (ValueError, LookupError) as error:
            problem = f"{node.value[:40]!r} is no {node.tag.removeprefix(_TAG)}"
            raise ConfigError(f"no valid YAML: {problem}", file=file, line=line) from error
