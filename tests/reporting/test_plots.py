"""The curves of a run as a picture."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from rlaif_sdk.reporting.plots import plot_curves

PANELS = {"reward": {"reward": "total"}, "KL": {"kl": "KL"}}


def test_the_plot_is_a_png(tmp_path: Path):
    """A gap in a curve (None) does not end the plot."""
    history = [
        {"step": 1, "reward": 0.1, "kl": 0.0},
        {"step": 2, "reward": None, "kl": 0.1},
        {"step": 3, "reward": 0.3},
    ]
    plot_curves(history, PANELS, tmp_path / "curves.png", title="a run")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_panel_without_numbers_is_left_out(tmp_path: Path):
    """A run without a reference model logs no KL: the picture is then smaller, not half empty."""
    from matplotlib.image import imread

    with_kl = [{"step": step, "reward": 0.1, "kl": 0.1} for step in (1, 2)]
    plot_curves(with_kl, PANELS, tmp_path / "two.png", title="a run")
    plot_curves([{"step": 1, "reward": 0.1}], PANELS, tmp_path / "one.png", title="a run")
    assert imread(tmp_path / "one.png").shape[1] < imread(tmp_path / "two.png").shape[1]


def test_an_empty_history_is_refused(tmp_path: Path):
    """An empty picture would look like a run without reward."""
    with pytest.raises(ValueError, match="none of the curves"):
        plot_curves([], PANELS, tmp_path / "curves.png", title="a run")
