"""What is released holds what it must and nothing else: ``python tests/installed/check_dist.py FILE...``."""

import re
import sys
import tarfile
import zipfile
from pathlib import Path

MOST_BYTES = 20 << 20
"""Of a file: the weights of a bundled model have 14."""
FOREIGN = re.compile(
    r"(^|/)(tests?|docs|benchmarks|evaluation|training|__pycache__|\.[^/]+)(/|$)|\.(pyc|pyo|partial|sqlite|log)$"
)
PART_OF_THE_SDK = re.compile(r"^rlaif_sdk/(evaluation|training)/")
"""Rooms that are named as folders of scripts are in plugins."""

for path in map(Path, sys.argv[1:]):
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            names = wheel.namelist()
        package = path.name.split("-")[0]
        lacks = {f"{package}/__init__.py", f"{package}/py.typed"} - set(names)
        lacks |= set() if any(name.endswith(".dist-info/licenses/LICENSE") for name in names) else {"LICENSE"}
        foreign = [name for name in names if not name.startswith((f"{package}/", f"{package}-"))]
        foreign += [name for name in names if FOREIGN.search(name) and not PART_OF_THE_SDK.match(name)]
    else:
        with tarfile.open(path) as archive:
            names = [name.partition("/")[2] for name in archive.getnames()]
        lacks = {"LICENSE", "README.md", "pyproject.toml", "PKG-INFO"} - set(names)
        foreign = [name for name in names if re.search(r"(^|/)__pycache__(/|$)|\.(pyc|partial|sqlite|log)$", name)]
    assert not lacks, f"{path.name} lacks {sorted(lacks)}"
    assert not foreign, f"{path.name} holds {foreign[:5]}"
    assert path.stat().st_size <= MOST_BYTES, f"{path.name} has {path.stat().st_size / 2**20:.0f} MiB"
    sys.stdout.write(f"{path.name}: {len(names)} files, {path.stat().st_size / 2**20:.1f} MiB\n")
