"""Writes the beginnings of a plugin of any kind, of a reward in a file, and of a composition."""

from __future__ import annotations

import inspect
import keyword
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any, Literal, get_args

from pydantic import ValidationError

from rlaif_sdk.exceptions import ConfigError, PluginConflictError, UnknownPluginError
from rlaif_sdk.io.files import write_text
from rlaif_sdk.plugins.references import is_reference, load_reference
from rlaif_sdk.plugins.registry import Registry
from rlaif_sdk.plugins.specs import RewardSpec
from rlaif_sdk.rewards import FunctionReward, Reward, as_reward

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
    _refuse_existing(folder)
    module = f"rlaif_{name.replace('-', '_')}"
    title = "".join(part.title() for part in name.split("-"))
    words = {"name": name, "module": module, "title": title, "kind": "judge backend" if kind == "judge" else kind}
    words["example"] = Template(_EXAMPLES[kind]).substitute(words)
    for template, target in (
        ("pyproject.toml", "pyproject.toml"),
        ("README.md", "README.md"),
        (f"{kind}/module.py", f"{module}/__init__.py"),
        (f"{kind}/test_module.py", f"tests/test_{module.removeprefix('rlaif_')}.py"),
    ):
        path = folder / target
        write_text(path, _filled(template, words))
    return folder


def write_reward(name: str, directory: str | Path = ".") -> tuple[Path, Path]:
    """Write a reward as a function in a file ``NAME.py``, and a test of it, which passes.

    Args:
        name: The function's and the file's name: lower-case letters, digits and ``_``, beginning with a letter.
        directory: Where the two files are written.

    Returns:
        The reward's file and the test's.

    Raises:
        ConfigError: The name is no good.
        PluginConflictError: One of the files exists, and nothing is written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ConfigError(f"{name!r} is no name for a function", hint="use lower-case letters, digits and '_'")
    reward, test = Path(directory) / f"{name}.py", Path(directory) / f"test_{name}.py"
    for file in (reward, test):
        _refuse_existing(file)
    if find_spec(name) is not None:
        raise ConfigError(f"{name!r} is the name of a module, which {reward} would hide", hint="choose another name")
    write_text(reward, _filled("function/module.py", {"name": name}))
    write_text(test, _filled("function/test_module.py", {"name": name}))
    return reward, test


def write_composition(rewards: Sequence[str], file: str | Path, *, registry: Registry | None = None) -> Path:
    """Write a commented composition of rewards, of equal weight.

    Args:
        rewards: Names of installed rewards, or references such as ``./brevity.py:brevity``, relative to the working
            folder.
        file: A YAML file.
        registry: Where names are looked up; the installed plugins if None.

    Returns:
        The file.

    Raises:
        ConfigError: No reward is named, one twice, or a reference leads nowhere.
        UnknownPluginError: No reward of that name is installed; the message has the nearest.
        PluginConflictError: The file exists, and is left as it is.
    """
    file, registry = Path(file), registry or Registry.default()
    if file.suffix not in {".yaml", ".yml"}:
        raise ConfigError("the composition is YAML", file=str(file), hint="name a file that ends in .yaml")
    _refuse_existing(file)
    if not rewards:
        installed = ", ".join(registry.rewards) or "none"
        hint = f"installed: {installed}; or write one: rlaif init reward brevity, then name it as ./brevity.py:brevity"
        raise ConfigError("no reward is named", hint=hint)
    entries: dict[str, str] = {}
    for reward in rewards:
        name = reward.rpartition(":")[2].replace(".", "_") if is_reference(reward) else reward
        if name in entries:
            raise ConfigError(f"{name!r} is named twice", hint="a composition has a name once; `use:` gives it another")
        entries[name] = _referred(name, reward, file) if is_reference(reward) else _installed(_spec(name, registry))
    others = ", ".join(name for name in registry.rewards if name not in entries)
    words = {
        "rewards": "\n".join(entries.values()),
        "first": next(iter(entries)),
        "others": f"Also installed: {others}." if others else "No other reward is installed.",
    }
    write_text(file, _filled("composition.yaml", words))
    return file


def _spec(name: str, registry: Registry) -> RewardSpec:
    try:
        return registry.reward(name)
    except UnknownPluginError as error:
        own = f"to write one: rlaif init reward {name}, then name it as ./{name}.py:{name}"
        raise UnknownPluginError(error.message, hint=f"{own}; {error.hint}") from None


def _installed(spec: RewardSpec) -> str:
    """The lines of a composition that have an installed reward; its parameters count where it does not do without."""
    example: Mapping[str, Any] = spec.example.get("params", {})
    try:
        spec.params.model_validate({})
    except ValidationError:
        counts = True
    else:
        counts = False
    lines = [] if spec.example.get("normalize") is None else [f"normalize: {_inline(spec.example['normalize'])}"]
    if example:
        lines.append(f"{'' if counts else '# '}params: {_inline(example)}")
    return _entry(spec.name, spec, spec.description, lines)


def _referred(name: str, reference: str, file: Path) -> str:
    """The lines of a composition that have a reward of a file or module."""
    reward = as_reward(load_reference(reference, Path.cwd()))
    module, _, attribute = reference.rpartition(":")
    if module.endswith(".py"):
        module = Path(os.path.relpath(module, file.parent)).as_posix()
        module = module if module.startswith(".") else f"./{module}"
    documented = reward.function if isinstance(reward, FunctionReward) else reward
    about = (inspect.getdoc(documented) or "").partition("\n")[0]
    return _entry(name, reward, about, [f"use: {_inline(f'{module}:{attribute}')}"])


def _entry(name: str, described: RewardSpec | Reward, about: str, lines: Sequence[str]) -> str:
    if described.range is not None:
        low, high = described.ends or ("", "")
        about += f" Scores: {described.range[0]:g} {low}".rstrip() + f" … {described.range[1]:g} {high}".rstrip() + "."
    if columns := described.default_columns if isinstance(described, RewardSpec) else described.columns:
        about += f" Reads the table's {', '.join(columns)}."
    body = "".join(f"    {line}\n" for line in ("weight: 1.0", *lines))
    comment = f"  # {about.strip()}\n" if about else ""
    return f"{comment}  {_inline(name)}:\n{body}"


def _inline(value: Any) -> str:
    """A value in one line of YAML."""
    import yaml

    shown: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=float("inf"))
    return shown.removesuffix("\n").removesuffix("\n...")


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise PluginConflictError(f"{path} exists and is left as it is", hint="choose another name or directory")


def _filled(template: str, words: Mapping[str, str]) -> str:
    root = resources.files("rlaif_sdk.plugins").joinpath("templates")
    return Template(root.joinpath(f"{template}.txt").read_text(encoding="utf-8")).substitute(words)
