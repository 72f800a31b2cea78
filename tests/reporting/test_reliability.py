"""The reliability of a model's confidence, as table and plot."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from rlaif_sdk.reporting.plots import plot_reliability
from rlaif_sdk.reporting.tables import reliability_table
from rlaif_sdk.statistics.calibration import calibrate

FOUND = calibrate([0.1, -0.1, 3.0, 4.0], [0.5, 0.4, 1.0, 0.0])


def test_the_table_shows_the_bins_that_hold_pairs_and_the_error() -> None:
    """Empty bins are left out; the number of bins is stated beside the error."""
    console = Console(width=100)
    with console.capture() as captured:
        console.print(reliability_table(FOUND))
    text = captured.get()
    assert "0.50 to 0.55" in text
    assert "0.60 to 0.65" not in text
    assert f"expected calibration error {FOUND.error:.3f} over 10 bins" in text


def test_the_plot_is_a_png(tmp_path: Path) -> None:
    """It is written where it was asked for."""
    pytest.importorskip("matplotlib")
    plot_reliability(FOUND, tmp_path / "reliability.png")
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")
