"""A figure of matplotlib's that needs no display and becomes a PNG file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif_sdk.exceptions import MissingExtraError
from rlaif_sdk.io.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def drawing(file: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure to draw on, which is then written.

    Args:
        file: The PNG to write.
        width: In inches, of 120 pixels.
        height: Likewise.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", extra="train") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    yield figure
    with atomic_path(file) as partial:
        figure.savefig(partial, dpi=120, format=Path(file).suffix.removeprefix(".") or None)
