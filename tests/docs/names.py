"""What pages and docstrings name in backticks, and whether it exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "rlaif_sdk"
DOTTED = re.compile(r"(?<!`)`(rlaif_sdk(?:\.\w+)+)(?:\(.*?\))?`(?!`)|(?<=``)(rlaif_sdk(?:\.\w+)+)(?=``)")
PATH = re.compile(r"`((?:rlaif_sdk|plugins|tests|docs|examples|benchmarks)/[\w./-]*)`")


def dotted_names(text: str) -> set[str]:
    """The dotted names of this package that a text names in backticks."""
    return {first or second for first, second in DOTTED.findall(text)}


def paths(text: str) -> set[str]:
    """The paths of this repository that a text names in backticks."""
    return set(PATH.findall(text))


@cache
def exists(name: str) -> bool:
    """Whether a dotted name is a module, or what can be reached from one by attributes."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value = import_module(".".join(parts[:cut]))
        except ModuleNotFoundError as error:
            if not name.startswith(str(error.name)):  # a stack that is not installed here
                return (PACKAGE.parent / Path(*parts[:cut])).with_suffix(".py").exists()
            continue
        for attribute in parts[cut:]:
            fields = {**getattr(value, "__annotations__", {}), **getattr(value, "model_fields", {})}
            if not hasattr(value, attribute):
                return attribute in fields
            value = getattr(value, attribute)
        return True
    return False


def docstrings(path: Path) -> list[tuple[int, str]]:
    """The docstrings of a module's parts, and of its attributes, with their lines."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [
        (node.lineno, node.value.value)
        for node in nodes
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]


def modules() -> list[Path]:
    """Every module of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def pages() -> list[Path]:
    """Every page that a reader of the repository meets; the changelog tells of names that are gone."""
    return sorted((ROOT / "docs").rglob("*.md")) + [
        ROOT / name for name in ("README.md", "CONTRIBUTING.md", "RELEASING.md", "SECURITY.md")
    ]
