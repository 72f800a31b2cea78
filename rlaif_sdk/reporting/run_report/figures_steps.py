"""The plots over optimiser steps, as plotly's ``data`` and ``layout``."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlaif_sdk.diagnostics import Drift, group_spread
from rlaif_sdk.diagnostics.drift import TOTAL
from rlaif_sdk.diagnostics.saturation import TOLERANCE, width
from rlaif_sdk.reporting.run_report.observations import Observations
from rlaif_sdk.reporting.run_report.traces import (
    COLOURS,
    TOTAL_COLOUR,
    Figure,
    colour,
    heading,
    is_number,
    json_numbers,
    line,
    menu,
)
from rlaif_sdk.statistics.arrays import Array


def rewards_over_steps(seen: Observations) -> Figure:
    """The mean of the total and of each reward at every step, a panel each, with a band of one standard error."""
    values = [("total", seen.totals_N, TOTAL_COLOUR)]
    values += [(_label(seen, name), seen.raw_RN[index], colour(index)) for index, name in enumerate(seen.rewards)]
    columns = min(3, len(values))
    rows = math.ceil(len(values) / columns)
    data: list[Figure] = []
    layout: Figure = {"showlegend": False, "height": 60 + 230 * rows, "annotations": []}
    for place, (label, values_N, stroke) in enumerate(values):
        row, column = divmod(place, columns)
        axis = "" if place == 0 else str(place + 1)
        left, right = column / columns + 0.025, (column + 1) / columns - 0.025
        top, bottom = 1 - row / rows - 0.28 / rows / 2, 1 - (row + 1) / rows + 0.22 / rows / 2
        layout[f"xaxis{axis}"] = {"domain": [left, right], "anchor": f"y{axis}"}
        layout[f"yaxis{axis}"] = {"domain": [bottom, top], "anchor": f"x{axis}", "automargin": True}
        layout["annotations"].append(heading(label, (left + right) / 2, top))
        data += _band(seen, values_N, stroke, label, axis)
    return {"data": data, "layout": layout}


def weights_over_steps(seen: Observations) -> Figure | None:
    """The weights in force; None if none ever changed."""
    data = [
        {
            **line([*facts.weights], [*facts.weights.values()], html.escape(name), colour(index)),
            "line": {"shape": "hv", "color": colour(index)},
        }
        for index, (name, facts) in enumerate(seen.rewards.items())
    ]
    if all(len(set(facts.weights.values())) == 1 for facts in seen.rewards.values()):
        return None
    return {"data": data, "layout": {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": "weight"}}}}


def flat_groups_over_steps(seen: Observations) -> Figure | None:
    """The share of groups whose scores are all alike, at every step; None without groups."""
    grouped_N = seen.group_N >= 0
    if not grouped_N.any():
        return None
    _, first_G, group_B = np.unique(seen.group_N[grouped_N], return_index=True, return_inverse=True)
    step_G = seen.step_N[grouped_N][first_G]
    steps, code_G = np.unique(step_G, return_inverse=True)
    values_RN = np.vstack([seen.totals_N, seen.raw_RN])
    ranges = [None, *(facts.declared_range for facts in seen.rewards.values())]
    names = ["total", *map(html.escape, seen.rewards)]
    data = []
    for index, spread_G in enumerate(group_spread(values_RN[:, grouped_N], group_B)):
        known_G = ~np.isnan(spread_G)
        flat_G = spread_G[known_G] <= TOLERANCE * width(values_RN[index], ranges[index])
        with np.errstate(invalid="ignore"):
            shares = np.bincount(code_G[known_G], weights=flat_G, minlength=len(steps)) / np.bincount(
                code_G[known_G], minlength=len(steps)
            )
        stroke = TOTAL_COLOUR if index == 0 else colour(index - 1)
        data.append(line(steps.tolist(), json_numbers(shares), names[index], stroke))
    layout = {
        "xaxis": {"title": {"text": "step"}},
        "yaxis": {"title": {"text": "share of groups"}, "tickformat": ".0%", "range": [-0.02, 1.02]},
    }
    return {"data": data, "layout": layout}


def drift_curves(seen: Observations, drift: Drift) -> Figure:
    """The proxy and the held-out reward, each on its own axis, with the two windows that are compared."""
    steps = seen.steps_T.tolist()
    names = list(seen.rewards)
    if drift.proxy == TOTAL:
        proxy_T, proxy, stroke = seen.by_step(seen.totals_N)[0], TOTAL, TOTAL_COLOUR
    else:
        proxy_T, proxy = seen.by_step(seen.oriented(drift.proxy))[0], _turned(seen, drift.proxy)
        stroke = colour(names.index(drift.proxy))
    reward_T, _ = seen.by_step(seen.oriented(drift.held_out))
    label = _turned(seen, drift.held_out)
    windows = [
        {
            "type": "rect",
            "xref": "x",
            "yref": "paper",
            "x0": first - 0.5,
            "x1": last + 0.5,
            "y0": 0,
            "y1": 1,
            "fillcolor": shade,
            "opacity": 0.35,
            "line": {"width": 0},
            "layer": "below",
        }
        for (first, last), shade in ((drift.earlier, "#dfe7f5"), (drift.later, "#fbe3cf"))
    ]
    data = [
        line(steps, json_numbers(proxy_T), proxy, stroke),
        {**line(steps, json_numbers(reward_T), label, colour(names.index(drift.held_out))), "yaxis": "y2"},
    ]
    layout = {
        "xaxis": {"title": {"text": "step"}},
        "yaxis": {"title": {"text": proxy}},
        "yaxis2": {"title": {"text": label}, "overlaying": "y", "side": "right", "showgrid": False, "tickmode": "auto"},
        "shapes": windows,
        "legend": {"orientation": "h", "y": 1.12},
    }
    return {"data": data, "layout": layout}


def failures_over_steps(seen: Observations) -> Figure | None:
    """How many rows each reward failed on at every step; None if none did."""
    steps, code_N = np.unique(seen.step_N, return_inverse=True)
    data = [
        {
            "type": "bar",
            "x": steps.tolist(),
            "y": np.bincount(code_N, weights=failed_N, minlength=len(steps)).tolist(),
            "name": html.escape(name),
            "marker": {"color": colour(index)},
        }
        for index, (name, failed_N) in enumerate(zip(seen.rewards, seen.failed_RN, strict=True))
        if failed_N.any()
    ]
    if not data:
        return None
    layout = {"barmode": "stack", "xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": "failed rows"}}}
    return {"data": data, "layout": {**layout, "showlegend": True}}


def logged_numbers(history: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Everything that the trainer logged, one number at a time, chosen from a menu; None if there is nothing."""
    keys = sorted({key for entry in history for key, value in entry.items() if key != "step" and is_number(value)})
    series = {
        key: [(entry["step"], entry[key]) for entry in history if "step" in entry and is_number(entry.get(key))]
        for key in keys
    }
    series = {key: points for key, points in series.items() if points}
    if not series:
        return None
    first = "reward" if "reward" in series else next(iter(series))
    labels = {key: html.escape(key) for key in (first, *series)}
    axes = {key: [[step for step, _ in series[key]], [value for _, value in series[key]]] for key in labels}
    buttons = [
        {"label": label, "method": "restyle", "args": [{"x": [axes[key][0]], "y": [axes[key][1]], "name": [label]}]}
        for key, label in labels.items()
    ]
    layout = {"xaxis": {"title": {"text": "step"}}, "updatemenus": [menu(buttons, kind="dropdown")], "height": 380}
    return {"data": [line(axes[first][0], axes[first][1], labels[first], COLOURS[0])], "layout": layout}


def _turned(seen: Observations, name: str) -> str:
    facts, label = seen.rewards[name], html.escape(name)
    return label if facts.higher_is_better == (facts.weight >= 0) else f"−{label} (turned: lower is better)"


def _label(seen: Observations, name: str) -> str:
    return html.escape(name) + (" (weight 0)" if seen.rewards[name].is_held_out else "")


def _band(seen: Observations, values_N: Array, stroke: str, label: str, axis: str) -> list[Figure]:
    """A line through the means of the steps, within a band of one standard error."""
    mean_T, error_T = seen.by_step(values_N)
    steps = seen.steps_T.tolist()
    error_T = np.nan_to_num(error_T)
    known = np.flatnonzero(~np.isnan(mean_T))
    around = [*(mean_T + error_T)[known], *(mean_T - error_T)[known[::-1]]]
    axes = {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}
    band = {
        "type": "scatter",
        "x": [steps[place] for place in (*known, *known[::-1])],
        "y": json_numbers(around),
        "fill": "toself",
        "fillcolor": stroke,
        "opacity": 0.18,
        "line": {"width": 0},
        "mode": "lines",
        "hoverinfo": "skip",
        **axes,
    }
    return [band, {**line(steps, json_numbers(mean_T), label, stroke), **axes}]
