"""Runs the tutorial's notebooks and keeps what they print; `nox -s notebooks` runs it.

The outputs are committed: a reader on GitHub sees them, and the build of the pages needs no model. They are of the real
SmolLM2-135M-Instruct, from its package.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tests.local_hub import fill

NOTEBOOKS = sorted((Path(__file__).parent / "tutorial").glob("*.ipynb"))


def run(notebook: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a run in a folder."""
    shown = nbformat.read(notebook, as_version=4)
    NotebookClient(shown, timeout=3600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    for cell in shown.cells:
        cell.metadata.pop("execution", None)  # when each cell ran
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]  # what libraries log
    shown.metadata["language_info"] = {"name": "python"}
    return shown


def main() -> None:
    """Runs those that are named, or all."""
    from rlaif_sdk.quickstart.model import prepare_policy

    wanted = sys.argv[1:]
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary, "home")
        os.environ |= fill(home, real={"HuggingFaceTB/SmolLM2-135M-Instruct": Path(prepare_policy())})
        for notebook in NOTEBOOKS:
            if not wanted or notebook.stem in wanted:
                folder = Path(temporary, notebook.stem)
                folder.mkdir()
                nbformat.write(run(notebook, folder), notebook)
                shutil.rmtree(folder)
                print(notebook.name)


if __name__ == "__main__":
    main()
