"""YAML and JSON read with the line of every key; what neither should say is refused with its line."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from rlaif_sdk.exceptions import ConfigError

Location = tuple[str | int, ...]

MAX_VALUES = 100_000
"""More values than a config can need: YAML aliases that expand to more are refused."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but ``1e-5`` is a number (as in YAML 1.2) and duplicate keys are refused."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


_JSON_ONLY = re.compile("[\x85\u2028\u2029]")
"""Line breaks to YAML, and ordinary characters of a string to JSON."""


def parse(text: str, file: str | None, *, is_json: bool) -> tuple[Any, dict[Location, int]]:
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
        try:
            json_data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"no valid JSON: {error.msg}", file=file, line=error.lineno) from error
        except RecursionError as error:
            raise ConfigError("is nested too deeply", file=file) from error
        text = _JSON_ONLY.sub("?", _Loader.NON_PRINTABLE.sub("?", text.replace("\t", " ")))
    lines: dict[Location, int] = {}
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            raise ConfigError("is empty", file=file)
        _record(root, (), lines, file, loader)
        data = json_data if is_json else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        raise ConfigError(f"no valid YAML: {error.problem}", file=file, line=line) from error
    except RecursionError as error:
        raise ConfigError("is nested too deeply", file=file) from error
    except ConfigError:
        raise
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"no valid YAML: the character {chr(error.character)!r}", file=file, line=line) from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"no valid YAML: {error}", file=file) from error
    return data, lines


def _record(
    node: yaml.Node, location: Location, lines: dict[Location, int], file: str | None, loader: yaml.SafeLoader
) -> None:
    line = node.start_mark.line + 1
    if len(lines) > MAX_VALUES:
        raise ConfigError(f"holds more than {MAX_VALUES:,} values, aliases expanded", file=file, line=line)
    lines.setdefault(location, line)
    if isinstance(node, yaml.MappingNode):
        seen: dict[Any, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError("a key must be plain text", file=file, line=line)
            is_merge = key_node.tag == "tag:yaml.org,2002:merge"
            key = key_node.value if is_merge else loader.construct_object(key_node)
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
