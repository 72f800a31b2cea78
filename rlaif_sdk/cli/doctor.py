"""``rlaif doctor``: what is installed, what would run where, and what is wrong."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import typer

from rlaif_sdk import __version__
from rlaif_sdk.cli.defaults import find_file
from rlaif_sdk.cli.exits import ExitCode
from rlaif_sdk.cli.output import print_table

if TYPE_CHECKING:
    from rlaif_sdk.plugins import Registry

_OPTIONAL = {
    "torch": "models",
    "transformers": "models",
    "trl": "train",
    "datasets": "train",
    "peft": "train",
    "onnxscript": "export",
    "aiohttp": "openai",
    "pyarrow": "parquet",
}
_OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        state: ``ok``, ``absent`` (optional and not installed) or ``wrong``.
        subject: What was looked at.
        message: What was found, and the next step where it is wrong.
    """

    state: Literal["ok", "absent", "wrong"]
    subject: str
    message: str


def doctor() -> None:
    """Check this installation: versions, devices, plugins, and known conflicts. Exits with 1 if something is wrong."""
    from rich.text import Text

    findings = list(_findings())
    marks = {"ok": Text("ok", "green"), "absent": Text("-", "dim"), "wrong": Text("wrong", "red")}
    rows = [(marks[finding.state], finding.subject, finding.message) for finding in findings]
    print_table(("", "what", "found"), rows)
    if any(finding.state == "wrong" for finding in findings):
        raise typer.Exit(ExitCode.NOT_IN_ORDER)


def _findings() -> Iterator[Finding]:
    """Look at everything, one finding at a time."""
    from rlaif_sdk.io.versions import installed_versions
    from rlaif_sdk.plugins import Registry

    supported = sys.version_info >= _OLDEST_PYTHON
    yield Finding("ok" if supported else "wrong", "Python", f"{platform.python_version()} on {platform.platform()}")
    yield Finding("ok", "rlaif_sdk", __version__)
    if (file := find_file()) is not None:
        yield Finding("ok", file.name, f"{file} has defaults of options")
    installed = installed_versions(_OPTIONAL)
    for package, extra in _OPTIONAL.items():
        version = installed.get(package)
        message = version or f'not installed; pip install "rlaif-sdk[{extra}]"'
        yield Finding("ok" if version else "absent", package, message)
    yield _onnxruntime()
    if "torch" in installed:
        yield _torch_device()
    yield from _plugins(Registry.default())


def _onnxruntime() -> Finding:
    from rlaif_sdk.io.versions import installed_versions

    found = installed_versions(("onnxruntime-gpu", "onnxruntime"))
    if len(found) > 1:
        names = " and ".join(f"{name} {version}" for name, version in found.items())
        return Finding("wrong", "onnxruntime", f"{names} share one module: uninstall both, install one")
    if not found:
        return Finding("absent", "onnxruntime", 'not installed; pip install "rlaif-sdk[onnx]"')
    try:
        import onnxruntime

        providers = ", ".join(onnxruntime.get_available_providers())
    except Exception as error:  # noqa: BLE001 - whatever keeps it from loading is the finding
        return Finding("wrong", "onnxruntime", f"is installed and does not load: {error}")
    name, version = next(iter(found.items()))
    return Finding("ok", "onnxruntime", f"{name} {version}; built with {providers}")


def _torch_device() -> Finding:
    try:
        import torch
    except Exception as error:  # noqa: BLE001 - whatever keeps it from loading is the finding
        return Finding("wrong", "device", f"torch is installed and does not load: {error}")
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Finding("ok", "device", f"CUDA {torch.version.cuda}: {names}")
    return Finding("ok", "device", f"CPU, {torch.get_num_threads()} threads")


def _plugins(registry: Registry) -> Iterator[Finding]:
    for source in registry:
        offered = "; ".join(f"{kind} {', '.join(names)}" for kind, names in registry.offered_by(source).items())
        owner = source.distribution or "registered in this process"
        yield Finding("ok", f"plugin {source.plugin}", f"{owner}: {offered or 'offers nothing by name'}")
    for broken in registry.broken:
        yield Finding("wrong", f"plugin {broken.source.plugin}", str(broken.error))
    for name, sources in registry.conflicts.items():
        yield Finding("wrong", f"reward {name}", f"offered by {' and '.join(map(str, sources))}: uninstall one")
