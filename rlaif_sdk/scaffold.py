"""Writes the beginnings of a reward plugin."""

from __future__ import annotations

import keyword
import re
from importlib import resources
from pathlib import Path
from string import Template

from rlaif_sdk.exceptions import ConfigError, PluginConflictError

_TEMPLATES = "templates/plugin"


def write_plugin(name: str, directory: str | Path = ".") -> Path:
    """Write a package ``rlaif-NAME`` that offers a reward of that name, with tests that pass.

    Args:
        name: The reward's name: lower-case letters, digits and ``-``, beginning with a letter.
        directory: Where the package's folder is made.

    Returns:
        The folder.

    Raises:
        ConfigError: The name is no good.
        PluginConflictError: The folder exists, and nothing is written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise ConfigError(f"{name!r} is no name for a plugin", hint="use lower-case letters, digits and '-'")
    module = name.replace("-", "_")
    folder = Path(directory) / f"rlaif-{name}"
    if folder.exists():
        raise PluginConflictError(f"{folder} exists and is left as it is", hint="choose another name or directory")
    title = "".join(part.title() for part in name.split("-"))
    names = {"name": name, "module": f"rlaif_{module}", "title": title}
    root = resources.files("rlaif_sdk").joinpath(_TEMPLATES)
    for template in ("pyproject.toml", "README.md", "module/__init__.py", "tests/test_module.py"):
        target = folder / template.replace("test_module", f"test_{module}").replace("module/", f"rlaif_{module}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        source = root.joinpath(f"{template}.txt").read_text(encoding="utf-8")
        target.write_text(Template(source).substitute(names), encoding="utf-8")
    return folder
