"""Writes the beginnings of a plugin of any kind."""

from __future__ import annotations

import keyword
import re
from importlib import resources
from pathlib import Path
from string import Template
from typing import Literal, get_args

from rlaif_sdk.exceptions import ConfigError, PluginConflictError

PluginKind = Literal["reward", "normalizer", "aggregator", "judge"]
"""What a plugin offers; ``judge`` is a backend that judges ask."""

_EXAMPLES: dict[PluginKind, str] = {
    "reward": "rewards:\n  $name: {weight: 1.0, params: {limit: 60}}",
    "normalizer": "rewards:\n  conciseness: {normalize: {kind: $name, temperature: 2.0}}",
    "aggregator": "rewards:\n  conciseness: {}\n  toxicity: {}\naggregate: $name",
    "judge": "rewards:\n  judge: {params: {model: any, backend: $name, backend_options: {favourite: 1}}}",
}


def write_plugin(name: str, directory: str | Path = ".", *, kind: PluginKind = "reward") -> Path:
    """Write a package ``rlaif-NAME`` that offers something of that name, with a contract test that passes.

    Args:
        name: The name in configs: lower-case letters, digits and ``-``, beginning with a letter.
        directory: Where the package's folder is made.
        kind: What it offers.

    Returns:
        The folder.

    Raises:
        ConfigError: The name or the kind is no good.
        PluginConflictError: The folder exists, and nothing is written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise ConfigError(f"{name!r} is no name for a plugin", hint="use lower-case letters, digits and '-'")
    if kind not in get_args(PluginKind):
        raise ConfigError(f"{kind!r} is no kind of plugin", hint=f"there are {', '.join(get_args(PluginKind))}")
    folder = Path(directory) / f"rlaif-{name}"
    if folder.exists():
        raise PluginConflictError(f"{folder} exists and is left as it is", hint="choose another name or directory")
    module = f"rlaif_{name.replace('-', '_')}"
    title = "".join(part.title() for part in name.split("-"))
    words = {"name": name, "module": module, "title": title, "kind": "judge backend" if kind == "judge" else kind}
    words["example"] = Template(_EXAMPLES[kind]).substitute(words)
    root = resources.files("rlaif_sdk.plugins").joinpath("templates")
    for template, target in (
        ("pyproject.toml", "pyproject.toml"),
        ("README.md", "README.md"),
        (f"{kind}/module.py", f"{module}/__init__.py"),
        (f"{kind}/test_module.py", f"tests/test_{module.removeprefix('rlaif_')}.py"),
    ):
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        text = root.joinpath(f"{template}.txt").read_text(encoding="utf-8")
        path.write_text(Template(text).substitute(words), encoding="utf-8")
    return folder
