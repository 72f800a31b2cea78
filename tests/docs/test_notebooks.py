"""The tutorial's notebooks, run as a reader would run them; the models are tiny ones behind the hub's names."""

from pathlib import Path

import pytest

from tests.docs.names import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "tutorial").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_runs_to_its_end(notebook: Path, hub: dict[str, str], tmp_path: Path) -> None:
    """No cell raises."""
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient").NotebookClient
    shown = nbformat.read(notebook, as_version=4)
    client(shown, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute(env=hub)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_shows_what_every_cell_gave(notebook: Path) -> None:
    """Every code cell was run in order, and those that end with a value have it; `nox -s notebooks` runs them."""
    nbformat = pytest.importorskip("nbformat")
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    assert any(output.output_type == "execute_result" for cell in cells for output in cell.outputs)
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
