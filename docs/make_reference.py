"""Writes the reference pages of configs, from the schemas that `rlaif schema` prints; `nox -s reference` runs it.

Each page is a Markdown file that reads on its own, with a table for every part of the config.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib.metadata
import json
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlaif_sdk.cli.schema import config_schema
from rlaif_sdk.plugins import Registry, Spec
from rlaif_sdk.training.arguments import setting_range
from rlaif_sdk.training.config import SET_ELSEWHERE
from rlaif_sdk.training.methods import METHODS, get_method, resolve

Schema = Mapping[str, Any]

REFERENCE = Path(__file__).parent / "reference"
STATED = "<!-- Written by `nox -s reference`; what it says is changed where it is defined. -->\n\n"
BUNDLED = sorted(f"rlaif_{path.parent.name}" for path in Path(__file__).parents[1].glob("plugins/*/pyproject.toml"))
LIBRARIES = ("trl", "transformers")
COMMON = "settings-of-all-trainers"
COMMON_CLASSES = ("_BaseConfig", "TrainingArguments")
COMPOSITION = """# Keys of a composition

Every key of a composition's config, with its type, default and range. `rlaif schema composition` prints the same for
editors; [Compose rewards in a config file](../howto/compose-rewards.md) explains them by example. The parameters of each
reward are on a page of [their own](rewards.md).
"""
REWARDS = """# Parameters of the rewards

What stands under `params` of each reward that comes with the SDK, as in
`judge: {params: {model: Qwen/Qwen3-4B-Instruct-2507}}`. `rlaif rewards show NAME` prints the same for every installed
reward, a stranger's too.
"""
NORMALIZERS = """
## Normalizers

What `normalize` names, as in `normalize: {kind: quantile, seed: 1}`, with the parameters beside `kind`.
"""
AGGREGATORS = """
## Aggregators

What `aggregate` names, with the parameters beside `kind`.
"""
BACKENDS = """
## Judge backends

What asks a judge: of the reward `judge`, of `rlaif label` and of the models that `rlaif make` samples from. The parameters
stand beside `model`.
"""
METHOD = """# Keys of `rlaif train {command}`

Every key of a run's config, with its type, default and range. `rlaif schema {command}` prints the same for editors.
What stands under `composition` is on [a page of its own](composition.md).
"""
JOBS = {
    "iterate": "rlaif iterate",
    "distill": "rlaif distill",
    "sweep": "rlaif sweep",
    "label": "rlaif label",
    "make-candidates": "rlaif make candidates",
    "make-contrastive": "rlaif make contrastive",
    "make-revisions": "rlaif make revisions",
    "make-rubrics": "rlaif make rubrics",
    "make-pairs": "rlaif make pairs",
    "make-best": "rlaif make best",
    "make-merge": "rlaif make merge",
}
JOB = """# Keys of `{command}`

Every key of its config, with its type, default and range. `rlaif schema {kind}` prints the same for editors.
"""
METHOD_SETTINGS = """
## `{name}`

The trainer's settings. Those that every trainer has are on [a page of their own]({common}.md).
"""
INHERITED = """
Of [`{name}`]({address}) in {version}, whose page says what each means:

"""
ALL_TRAINERS = """# Settings of all trainers

The settings that every method of `rlaif train` takes under its own key (`ppo`, `sft`, …) beside those on its page. A run
has other defaults for four: `report_to: none`, `save_strategy: "no"`, `logging_steps: 1` (10 for `sft`, `dpo` and
`reward_model`), and `bf16` where the machine has it. Set elsewhere in a run: {elsewhere}.
"""
ADDRESSES = {
    "trl": "https://huggingface.co/docs/trl/v{version}/en/{page}#trl.{name}",
    "transformers": "https://huggingface.co/docs/transformers/v{version}/en/main_classes/trainer#transformers.{name}",
}
"""Where the libraries say what their settings mean: their words are theirs, and are not repeated here."""


def pages() -> dict[str, str]:
    """The text of each page by the name of its file."""
    registry = Registry.default()
    extensions = [NORMALIZERS, *_params(registry, "normalizers", level=3)]
    extensions += [AGGREGATORS, *_params(registry, "aggregators", level=3)]
    composition = _parts(_without_params(config_schema("composition")))
    backends = [BACKENDS, *_params(registry, "judge backends", level=3)]
    written = {
        "composition.md": "".join([COMPOSITION, composition, *extensions]),
        "rewards.md": "".join([REWARDS, *_params(registry, "rewards", level=2), *backends]),
    }
    written[f"{COMMON}.md"] = _of_all_trainers()
    for name, entry in METHODS.items():
        if not entry.overrides:
            command = name.replace("_", "-")
            written[f"settings-{command}.md"] = _method(name, command)
    for kind, command in JOBS.items():
        written[f"settings-{kind}.md"] = JOB.format(command=command, kind=kind) + _parts(
            _without_composition(config_schema(kind))
        )
    return {name: STATED + text for name, text in written.items()}


def _without_params(schema: dict[str, Any]) -> Schema:
    """A schema in which each entry of ``rewards`` is described once, and not by the parameters of each reward."""
    for part in (schema, *schema["$defs"].values()):
        part.get("properties", {}).get("rewards", {}).pop("properties", None)
    return schema


def _without_composition(schema: dict[str, Any]) -> Schema:
    """A schema in which a composition is a link to its page."""
    return schema | {"$defs": {key: value for key, value in schema["$defs"].items() if key != "CompositionConfig"}}


def _params(registry: Registry, kind: str, *, level: int) -> Iterator[str]:
    """The parameters of each extension that comes with the SDK and is of a kind, under its name."""
    ours = {"rlaif_sdk", *BUNDLED}
    for name in sorted({name for source in registry for name in registry.offered_by(source).get(kind, ())}):
        spec = registry.find(f"rlaif_{kind}".replace(" ", "_"), name, Spec)
        if spec.factory.__module__.split(".")[0] in ours:
            has_some = bool(spec.params.model_fields)
            text = _parts(spec.params.model_json_schema(), level=level + 1) if has_some else "\nIt has no parameters.\n"
            meaning = f"{spec.description[:1].upper()}{spec.description[1:].rstrip('.')}."
            yield f"\n{'#' * level} `{name}`\n\n{meaning}\n{text}"


def _method(name: str, command: str) -> str:
    schema = config_schema(command)
    run = schema | {"properties": {key: value for key, value in schema["properties"].items() if key != name}}
    tables = _settings(resolve(get_method(name).settings), common=False)
    heading = METHOD_SETTINGS.format(name=name, common=COMMON)
    return "".join([METHOD.format(command=command), _parts(_without_composition(run)), heading, *tables])


def _of_all_trainers() -> str:
    elsewhere = ", ".join(f"`{name}` ({hint})" for name, hint in SET_ELSEWHERE.items())
    tables = _settings(resolve(get_method("sft").settings), common=True)
    return "".join([ALL_TRAINERS.format(elsewhere=elsewhere), *tables])


def _settings(kind: type[Any], *, common: bool) -> Iterator[str]:
    """A table of the settings of each class that states some: of those that every trainer has, or of the others."""
    rows: dict[type[Any], list[list[str]]] = {}
    for field in sorted(dataclasses.fields(kind), key=lambda field: field.name):
        if not field.init or field.name in SET_ELSEWHERE or field.name.startswith("_"):
            continue
        default = None if field.default is dataclasses.MISSING else field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        owner = next(base for base in kind.__mro__ if field.name in vars(base).get("__annotations__", {}))
        ours = owner.__module__.startswith("rlaif_sdk.")
        row = [
            f"`{field.name}`",
            _python_type(setting_type(kind, field.name)),
            setting_range(field.name),
            _value(default),
            _prose(field.metadata["help"]) if ours else "",
        ]
        rows.setdefault(owner, []).append(row)
    for owner in kind.__mro__:
        if owner in rows and (owner.__name__ in COMMON_CLASSES) == common:
            yield _origin(owner, kind) + _table(rows[owner])


def setting_type(kind: type[Any], name: str) -> Any:
    """The type of a field, as the class states it that declares it last; `Any` where it cannot be resolved."""
    for base in kind.__mro__:
        if name not in getattr(base, "__annotations__", {}):
            continue
        stated = types.SimpleNamespace(__annotations__={name: base.__annotations__[name]})
        try:
            return typing.get_type_hints(stated, vars(sys.modules[base.__module__]))[name]
        except (NameError, TypeError):
            return Any
    return Any


def _origin(owner: type[Any], kind: type[Any]) -> str:
    """What stands above the settings that a class states: where it explains them, if it is another project's."""
    library = owner.__module__.split(".")[0]
    if library not in LIBRARIES:
        return "\n"
    shown = kind if owner.__name__.startswith("_") else owner  # a private class has no page: one that inherits has
    version = importlib.metadata.version(library)
    page = shown.__module__.rpartition(".")[2].replace("_config", "_trainer")
    address = ADDRESSES[library].format(version=version, page=page, name=shown.__name__)
    return INHERITED.format(name=f"{library}.{shown.__name__}", address=address, version=f"{library} {version}")


def _python_type(annotation: Any) -> str:
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null", Any: "any"}
    if annotation in names:
        return names[annotation]
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " or ".join(f"`{choice}`" for choice in inner)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(dict.fromkeys(map(_python_type, inner)))
    if origin is list:
        return f"list of {_python_type(inner[0])}"
    if origin is tuple:
        return f"[{', '.join(map(_python_type, inner))}]"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " or ".join(f"`{member.value}`" for member in annotation)
    return "list" if annotation is list else "mapping"


def _parts(schema: Schema, *, level: int = 2) -> str:
    """A table of the keys at the top, and one for every mapping below, under the path at which it stands."""
    headings: dict[str, str] = {}
    waiting: list[tuple[str, str]] = []
    texts = [f"\n{_table(_rows(schema, '', schema, waiting, headings))}"]
    while waiting:
        name, path = waiting.pop(0)
        definition = schema["$defs"][name]
        meaning = _prose(definition.get("description", ""))
        table = _table(_rows(definition, path, schema, waiting, headings))
        texts.append(f"\n{'#' * level} {headings[name]}\n\n{meaning}\n\n{table}")
    return "".join(texts)


def _rows(
    part: Schema, path: str, schema: Schema, waiting: list[tuple[str, str]], headings: dict[str, str]
) -> Iterator[list[str]]:
    for key, value in part.get("properties", {}).items():
        named = [
            (name, f"{path}.{key}".lstrip(".") + suffix) for name, suffix in _named(value) if name in schema["$defs"]
        ]
        for name, place in named:
            if name not in headings:
                headings[name] = f"`{place}`" + (_which(schema["$defs"][name]) if len(dict(named)) > 1 else "")
                waiting.append((name, place))
        optional = value.get("default", {} if value.get("type") == "object" else None)
        default = "**required**" if key in part.get("required", ()) else _value(optional)
        yield [f"`{key}`", _type(value, headings), _range(value), default, _prose(value.get("description", ""))]


def _which(choice: Schema) -> str:
    """What tells one of several mappings at a place from the others."""
    if kinds := choice["properties"].get("schedule"):
        return f" with `schedule`: {_type(kinds, {})}"
    return "".join(f" with `{key}`" for key in choice.get("required", ())[:1])


def _named(value: Schema, suffix: str = "") -> Iterator[tuple[str, str]]:
    """The definitions that a value refers to, each with what its path goes on with."""
    if reference := value.get("$ref"):
        yield reference.rpartition("/")[2], suffix
    for choice in (*value.get("anyOf", ()), *value.get("oneOf", ())):
        yield from _named(choice, suffix)
    if isinstance(items := value.get("items"), dict):
        yield from _named(items, f"{suffix}[]")
    if isinstance(values := value.get("additionalProperties"), dict):
        yield from _named(values, f"{suffix}.NAME")


def _type(value: Schema, headings: Mapping[str, str]) -> str:
    if reference := value.get("$ref"):
        heading = headings.get(reference.rpartition("/")[2])
        return f"[mapping](#{_anchor(heading)})" if heading else "[composition](composition.md)"
    if choices := (*value.get("anyOf", ()), *value.get("oneOf", ())):
        return " or ".join(dict.fromkeys(_type(choice, headings) for choice in choices))
    if "enum" in value or "const" in value:
        return " or ".join(f"`{choice}`" for choice in value.get("enum", [value.get("const")]))
    if prefix := value.get("prefixItems"):
        return f"[{', '.join(_type(item, headings) for item in prefix)}]"
    if value.get("type") == "array":
        return f"list of {_type(value.get('items', {}), headings)}"
    if value.get("type") == "object":
        values = value.get("additionalProperties")
        return f"mapping of name to {_type(values, headings)}" if isinstance(values, dict) and values else "mapping"
    names = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return names.get(value.get("type", ""), value.get("type", "any"))


def _anchor(heading: str) -> str:
    """The link to a heading, as GitHub makes it."""
    return re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-")


def _range(value: Schema) -> str:
    signs = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}
    parts = [f"{word} {_number(value[key])}" for key, word in signs.items() if key in value]
    parts += [
        f"at least {value[key]}"
        for key in ("minItems", "minProperties")
        if value.get(key, 0) and "prefixItems" not in value
    ]
    parts += filter(None, (_range(choice) for choice in (*value.get("anyOf", ()), *value.get("oneOf", ()))))
    return ", ".join(dict.fromkeys(parts))


def _number(value: float) -> str:
    return f"{value:g}"


def _value(default: Any) -> str:
    if isinstance(default, dict) and default:
        return f"`{default['kind']}`" if "kind" in default else "its defaults"
    text = default.value if hasattr(default, "value") else default
    return f"`{text if isinstance(text, str) and text else json.dumps(text, default=str)}`"


def _prose(text: str) -> str:
    """A docstring's text in Markdown, on one line."""
    return " ".join(re.sub(r"``(.+?)``", r"`\1`", text).split())


def _table(rows: Any) -> str:
    """Rows of key, type, range, default and meaning; without a column of ranges or meanings that has none."""
    cells = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    kept = [place for place in range(5) if place in {0, 1, 3} or any(row[place] for row in cells)]
    headings = ("key", "type", "range", "default", "meaning")
    lines = [
        [headings[place] for place in kept],
        ["---"] * len(kept),
        *([row[place] for place in kept] for row in cells),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    for file, text in pages().items():
        (REFERENCE / file).write_text(text, encoding="utf-8")
        print(file)
