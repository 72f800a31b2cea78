"""The tutorial, run as a reader would run it: its files written, its commands typed, in an environment of its own."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.docs.markdown_blocks import blocks

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial" / "first-plugin.md"


@pytest.fixture
def reader(tmp_path):
    """A folder and a virtual environment that sees this environment's packages, with the SDK installed in it."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    bin_folder = tmp_path / "venv" / "bin"
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "parent.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "COLUMNS": "120", "PYTHONPATH": ""}
    install = [bin_folder / "python", "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "-e", ROOT]
    subprocess.run(install, check=True, env=environment)
    folder = tmp_path / "work"
    folder.mkdir()
    return folder, environment


@pytest.mark.timeout(300)
def test_the_tutorial_runs_as_written_and_prints_what_it_says(reader):
    """Every file of the tutorial is written, every command exits with 0, and each shown output is the real one."""
    folder, environment = reader
    output = ""
    for block in blocks(PAGE):
        if block.file:
            (folder / block.file).write_text(block.code, encoding="utf-8")
        elif block.language == "bash":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.code],
                cwd=folder, env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{block.code}\n{done.stdout}\n{done.stderr}"
            output = done.stdout
        elif block.language == "text":
            assert [line.rstrip() for line in output.splitlines()] == block.code.splitlines()
    assert shutil.which("rlaif", path=environment["PATH"]).startswith(str(folder.parent))
