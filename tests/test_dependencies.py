"""What is imported is declared: by the SDK for the extra whose feature needs it, and by each plugin of its own."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import rlaif_sdk

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
OF_FEATURES = {
    "cli": ("models", "onnx", "openai"),
    "composer": ("models", "parquet"),
    "conversations": ("models", "onnx"),
    "integrations": ("models",),
    "io": ("openai", "parquet", "serve", "train"),
    "judges": ("models",),
    "models": ("export", "models", "onnx"),
    "preferences": ("models", "review"),
    "quickstart": ("quickstart",),
    "reporting": ("report", "train"),
    "scale": ("ray",),
    "serving": ("serve",),
    "training": ("train",),
}
"""The extras whose features a room has; the others import what every installation has."""
MET_IN_USE = {
    "clearml": "a logger that the run reports to",
    "comet_ml": "likewise",
    "mlflow": "likewise",
    "swanlab": "likewise",
    "trackio": "likewise",
    "wandb": "likewise",
    "openvino": "a faster engine, where it is installed",
    "pandas": "gives back the type of a value that came from it",
}
"""Imported only where the user brought it."""


def imports_of(file: Path) -> Iterator[str]:
    """The top-level packages beyond the standard library that a file imports anywhere."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        yield from {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)


def requirements(project: dict[str, Any], *extras: str) -> list[Requirement]:
    """What a project needs with these extras, those that an extra refers to included."""
    found = [Requirement(text) for text in project["project"]["dependencies"]]
    waiting, seen = list(extras), set(extras)
    while waiting:
        for text in project["project"]["optional-dependencies"][waiting.pop()]:
            requirement = Requirement(text)
            found.append(requirement)
            if requirement.name == project["project"]["name"]:
                waiting += requirement.extras - seen
                seen |= requirement.extras
    return found


@cache
def installed_distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())


def undeclared(folder: Path, declared: set[str]) -> dict[str, list[str]]:
    """Packages that are imported below a folder and are in no declared distribution, with the files."""
    distributions = installed_distributions()
    missing: dict[str, list[str]] = {}
    for file in sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]:
        for package in imports_of(file):
            offered = {canonicalize_name(name) for name in distributions.get(package, [package])}
            if package not in {folder.name, *MET_IN_USE} and not offered & declared:
                missing.setdefault(package, []).append(file.relative_to(ROOT).as_posix())
    return missing


def names(found: list[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in found}


ROOMS = sorted(
    path for path in (ROOT / "rlaif_sdk").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
)


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.stem)
def test_a_room_imports_what_every_installation_or_its_extra_has(room: Path) -> None:
    """Nobody who installs the extra that a feature asks for meets a ModuleNotFoundError."""
    declared = names(requirements(PROJECT, *OF_FEATURES.get(room.stem, ())))
    assert undeclared(room, declared | {"rlaif-sdk"}) == {}


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_a_plugin_declares_what_it_imports(plugin: Path) -> None:
    """What comes with the SDK or with one of its extras is declared too: the SDK may stop to need it."""
    project = tomllib.loads((plugin / "pyproject.toml").read_text(encoding="utf-8"))
    found = requirements(project, *project["project"].get("optional-dependencies", {}))
    sdk = [requirement for requirement in found if requirement.name == "rlaif-sdk"]
    extras = {extra for requirement in sdk for extra in requirement.extras}
    beside = {name for extra in extras for name in names(requirements(PROJECT, extra))} - names(requirements(PROJECT))
    assert undeclared(plugin / f"rlaif_{plugin.name}", names(found) | beside) == {}
    assert all(requirement.specifier.contains(rlaif_sdk.__version__) for requirement in sdk)


def pins() -> dict[str, Requirement]:
    """The tested versions."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(found.name): found for found in map(Requirement, lines)}


def asked_for() -> list[Requirement]:
    """What the SDK with all extras, its plugins and its groups ask for, the SDK and the plugins themselves left out."""
    asked = requirements(PROJECT, *PROJECT["project"]["optional-dependencies"])
    for group in PROJECT["dependency-groups"].values():
        asked += [Requirement(text) for text in group]
    for plugin in PLUGINS:
        project = tomllib.loads((plugin / "pyproject.toml").read_text(encoding="utf-8"))
        asked += requirements(project, *project["project"].get("optional-dependencies", {}))
    own = {"rlaif-sdk", *(f"rlaif-{plugin.name}" for plugin in PLUGINS)}
    return [requirement for requirement in asked if requirement.name not in own]


def test_every_direct_dependency_has_a_tested_version_that_fits() -> None:
    """``constraints.txt`` pins what the project asks for, within the bounds that it states."""
    tested = pins()
    assert sorted(names(asked_for()) - set(tested)) == []
    for requirement in asked_for():
        (pin,) = tested[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(pin.version), f"{requirement} and the tested {pin.version}"


def test_the_lock_has_the_tested_versions_with_hashes() -> None:
    """``requirements.lock`` has all that the project asks for, each file by its hash, and names no place to take it from."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    _comment, *entries = re.split(r"\n(?=\w)", text)
    assert "://" not in text
    assert [entry for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)] == []
    found = [Requirement(entry.partition(" --hash")[0]) for entry in entries]
    assert sorted(names(asked_for()) - names(found)) == []
    tested = pins()
    differ = [one for one in found if tested.get(canonicalize_name(one.name), one).specifier != one.specifier]
    assert differ == [], "run nox -s lock"


def test_an_error_about_a_missing_extra_names_one_that_there_is() -> None:
    """Its next step, ``pip install "rlaif-sdk[EXTRA]"``, works."""
    extras = PROJECT["project"]["optional-dependencies"]
    told = re.compile(r"(?:MissingExtraError\([^)]*extra=|needs_extra\()\"(\w+)\"")
    found = {
        extra for file in (ROOT / "rlaif_sdk").rglob("*.py") for extra in told.findall(file.read_text(encoding="utf-8"))
    }
    assert len(found) > 5
    assert found <= set(extras)
