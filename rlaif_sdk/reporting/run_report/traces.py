"""The pieces of the plots, as plotly's JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Figure = dict[str, Any]

TOTAL_COLOUR = "#1b1f24"
COLOURS = ("#3366cc", "#d9730d", "#2e8b57", "#b83280", "#7048c6", "#0f8b8d", "#a16207", "#c0392b", "#5f6b7a", "#6aa84f")


def line(x: Sequence[Any], y: Sequence[Any], name: str, stroke: str) -> Figure:
    """A trace: a line through points, with a dot on each where they are few."""
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(x) <= 60 else "lines",
        "x": list(x),
        "y": list(y),
        "name": name,
        "line": {"color": stroke, "width": 1.8},
        "marker": {"size": 4},
        "hovertemplate": "step %{x}: %{y:.4g}<extra>" + name + "</extra>",
    }


def heading(text: str, x: float, y: float) -> Figure:
    """The title of a panel, above it; coordinates are shares of the whole plot."""
    return {
        "text": f"<b>{text}</b>",
        "x": x,
        "y": y,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "center",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 13},
    }


def menu(buttons: list[Figure], kind: str = "buttons") -> Figure:
    """Buttons, or a dropdown, above the plot on the left."""
    return {
        "type": kind,
        "direction": "down" if kind == "dropdown" else "right",
        "buttons": buttons,
        "x": 0,
        "xanchor": "left",
        "y": 1.03,
        "yanchor": "bottom",
        "pad": {"b": 6},
        "showactive": True,
    }


def colour(index: int) -> str:
    """The colour of the reward of that place, the same in every plot."""
    return COLOURS[index % len(COLOURS)]


def json_numbers(values: Any) -> list[float | None]:
    """Numbers as JSON has them: None for NaN and infinities."""
    return [json_number(value) for value in values]


def json_number(value: Any) -> float | None:
    """A number as JSON has it: None for NaN and infinities."""
    return float(value) if math.isfinite(value) else None


def is_number(value: Any) -> bool:
    """Whether a logged value can be drawn."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
