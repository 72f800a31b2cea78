"""Importing asks nobody on a network: no module of the SDK or of a plugin looks a name up, connects or sends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = [ROOT / "rlaif_sdk", *sorted(path.parent for path in ROOT.glob("plugins/*/rlaif_*/__init__.py"))]
PROGRAM = """
import importlib, json, sys

FORBIDDEN = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}
asked, missing = [], {}

def refuse(event, arguments):
    if event in FORBIDDEN:
        asked.append([module, event, repr(arguments[1:])])
        raise ConnectionRefusedError(event)

sys.addaudithook(refuse)
done = 0
for module in json.loads(sys.argv[1]):
    try:
        importlib.import_module(module)
    except ImportError as error:
        missing[module] = str(error)
print(json.dumps([asked, missing]))
"""


def modules(folder: Path) -> list[str]:
    """The names of all modules below the folder of a package, which ``python -m`` runs left out."""
    files = [path.relative_to(folder.parent).with_suffix("") for path in folder.rglob("*.py")]
    return sorted(".".join(file.parts).removesuffix(".__init__") for file in files if file.name != "__main__")


def imported(folders: list[Path]) -> tuple[list[list[str]], dict[str, str]]:
    """What asked a network when it was imported, and what could not be imported."""
    paths = os.pathsep.join(str(folder.parent) for folder in folders)
    environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}
    names = [name for folder in folders for name in modules(folder)]
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, json.dumps(names)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    asked, missing = json.loads(ended.stdout.splitlines()[-1])
    return asked, missing


@pytest.mark.slow
def test_no_module_asks_a_network_when_it_is_imported() -> None:
    """With every library that it imports, and without the switches that keep those offline."""
    asked, missing = imported(FOLDERS)
    assert asked == []
    assert missing == {}


@pytest.mark.parametrize(
    "act",
    ["socket.getaddrinfo('localhost', 80)", "socket.socket().connect(('127.0.0.1', 9))",
     "socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('127.0.0.1', 9))"],
)  # fmt: skip
def test_a_module_that_asks_one_is_found(tmp_path: Path, act: str) -> None:
    """Even where it takes the refusal for an outage and hides it."""
    (tmp_path / "telling").mkdir()
    (tmp_path / "telling" / "__init__.py").write_text("")
    (tmp_path / "telling" / "home.py").write_text(f"import socket\ntry:\n    {act}\nexcept OSError:\n    pass\n")
    asked, _ = imported([tmp_path / "telling"])
    assert [module for module, *_ in asked] == ["telling.home"]
