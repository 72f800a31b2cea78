"""The plots of a report, as plotly's ``data`` and ``layout``: how scores relate, and what happens over the steps."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rlaif_sdk.composer.layout import ends_in_words
from rlaif_sdk.diagnostics import Drift, group_spread, variance_shares
from rlaif_sdk.diagnostics.drift import TOTAL
from rlaif_sdk.diagnostics.saturation import TOLERANCE, width
from rlaif_sdk.reporting.run_report.findings import Measures
from rlaif_sdk.reporting.run_report.observations import Observations
from rlaif_sdk.statistics.arrays import Array, json_number

Plot = dict[str, Any]

TOTAL_COLOUR = "#1b1f24"
COLOURS = ("#3366cc", "#d9730d", "#2e8b57", "#b83280", "#7048c6", "#0f8b8d", "#a16207", "#c0392b", "#5f6b7a", "#6aa84f")


def line(x: Sequence[Any], y: Sequence[Any], name: str, stroke: str) -> Plot:
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


def histogram(values_N: Array, declared: tuple[float, float] | None, label: str, stroke: str) -> Plot:
    """Bars over a declared range, or over what the values span; what is missing is left out."""
    counts, edges = np.histogram(values_N[~np.isnan(values_N)], bins=BINS, range=declared)
    return {
        "type": "bar",
        "x": ((edges[:-1] + edges[1:]) / 2).tolist(),
        "y": counts.tolist(),
        "width": (np.diff(edges) * 0.96).tolist(),
        "name": label,
        "marker": {"color": stroke},
        "hovertemplate": "about %{x:.4g}: %{y}<extra></extra>",
    }


def heading(text: str, x: float, y: float) -> Plot:
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


def menu(buttons: list[Plot], kind: str = "buttons") -> Plot:
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


def is_number(value: Any) -> bool:
    """Whether a logged value can be drawn."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


POINTS = 2000
"""A scatter plot shows so many rows at most, evenly spread over the run."""
BINS = 40
_ALARM, _E_VALUE = "alarm/", "/e_value"
_GREATEST_LOG = 690.0


def variance_bars(seen: Observations, measured: Measures) -> Plot | None:
    """Each reward's share in the variance of the total: of the whole run, its first quarter and its last."""
    if not seen.has_parts or np.isnan(measured.shares_R).all():
        return None
    early, late = np.quantile(seen.step_N, [0.25, 0.75])
    shares = {"whole run": measured.shares_R}
    if len(seen.steps_T) >= 4:
        for label, among_N in (("first quarter", seen.step_N <= early), ("last quarter", seen.step_N >= late)):
            shares[label] = variance_shares(seen.parts_RN[:, among_N], seen.totals_N[among_N])
    names = [html.escape(name) for name in seen.rewards]
    shades = {"whole run": "#3366cc", "first quarter": "#b9c7e4", "last quarter": "#6f8fd0"}
    data = []
    for label, shares_R in shares.items():
        rest = 1.0 - float(shares_R.sum())
        labels, lengths = list(names), shares_R.tolist()
        if abs(1.0 - float(measured.shares_R.sum())) > 1e-6:
            labels.append("gates and constraints")
            lengths.append(rest)
        data.append(
            {
                "type": "bar",
                "x": labels,
                "y": json_numbers(lengths),
                "name": label,
                "marker": {"color": shades[label]},
                "hovertemplate": "%{x}: %{y:.1%}<extra>" + label + "</extra>",
            }
        )
    return {"data": data, "layout": {"yaxis": {"tickformat": ".0%", "title": {"text": "share of the variance"}}}}


def correlation_map(seen: Observations, measured: Measures) -> Plot | None:
    """Correlations between the rewards, the total and the length, with buttons for the two kinds; None without any."""
    if np.isnan(measured.pearson).all():
        return None
    names = [*map(html.escape, seen.rewards), "total", f"length ({seen.length_unit})"]
    kinds = {"Pearson": measured.pearson, "Spearman (ranks)": measured.spearman}
    shown = {kind: [[json_number(value) for value in row] for row in matrix] for kind, matrix in kinds.items()}
    texts = {
        kind: [["" if value is None else f"{value:+.2f}" for value in row] for row in matrix]
        for kind, matrix in shown.items()
    }
    heat = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": shown["Pearson"],
        "text": texts["Pearson"],
        "texttemplate": "%{text}",
        "zmin": -1,
        "zmax": 1,
        "colorscale": [[0, "#c0392b"], [0.5, "#f7f7f7"], [1, "#2457a6"]],
        "hovertemplate": "%{x} and %{y}: %{z:.3f}<extra></extra>",
    }
    buttons = [
        {"label": kind, "method": "restyle", "args": [{"z": [shown[kind]], "text": [texts[kind]]}]} for kind in kinds
    ]
    size = 120 + 46 * len(names)
    layout = {
        "height": max(360, size),
        "yaxis": {"autorange": "reversed", "automargin": True},
        "xaxis": {"automargin": True},
        "updatemenus": [menu(buttons)],
    }
    return {"data": [heat], "layout": layout}


def length_scatter(seen: Observations) -> Plot:
    """Each completion's length and its total, or a reward chosen from a menu, coloured by step."""
    chosen = np.unique(np.linspace(0, len(seen) - 1, min(POINTS, len(seen))).astype(int))
    values = {"total": seen.totals_N[chosen]}
    values |= {html.escape(name): seen.raw_RN[index, chosen] for index, name in enumerate(seen.rewards)}
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": seen.length_N[chosen].tolist(),
        "y": json_numbers(values["total"]),
        "text": [f"step {step}" for step in seen.step_N[chosen]],
        "marker": {"size": 5, "opacity": 0.6, **_coloured_by_step(seen.step_N[chosen].tolist())},
        "hovertemplate": f"%{{x}} {seen.length_unit}: %{{y:.4g}}<extra>%{{text}}</extra>",
    }
    buttons = [
        {"label": label, "method": "update", "args": [{"y": [json_numbers(values_N)]}, {"yaxis.title.text": label}]}
        for label, values_N in values.items()
    ]
    layout = {
        "height": 420,
        "xaxis": {"title": {"text": f"length ({seen.length_unit})"}},
        "yaxis": {"title": {"text": "total"}},
        "updatemenus": [menu(buttons, kind="dropdown")],
    }
    return {"data": [points], "layout": layout}


def score_histograms(seen: Observations) -> Plot:
    """How each reward's scores are spread over its range, or over what they span; a reward is chosen from a menu."""
    data: list[Plot] = []
    buttons: list[Plot] = []
    titles: list[str] = []
    for index, (name, facts) in enumerate(seen.rewards.items()):
        label = html.escape(name)
        bars = histogram(seen.raw_RN[index], facts.declared_range, label, colour(index))
        data.append({**bars, "visible": index == 0})
        visible = [other == index for other in range(len(seen.rewards))]
        said = [
            label,
            "declared range" if facts.declared_range else "no declared range",
            html.escape(ends_in_words(facts.ends)),
        ]
        titles.append(", ".join(filter(None, said)))
        buttons.append(
            {"label": label, "method": "update", "args": [{"visible": visible}, {"xaxis.title.text": titles[index]}]}
        )
    layout = {
        "height": 340,
        "showlegend": False,
        "xaxis": {"title": {"text": titles[0]}},
        "yaxis": {"title": {"text": "scores"}},
        "updatemenus": [menu(buttons, kind="dropdown")],
    }
    return {"data": data, "layout": layout}


def _coloured_by_step(steps: list[int]) -> Plot:
    """A colour a step, with its key; of a single step there is nothing to tell apart."""
    if len(set(steps)) == 1:
        return {"color": colour(0)}
    return {"color": steps, "colorscale": "Viridis", "colorbar": {"title": {"text": "step"}}}


def rewards_over_steps(seen: Observations) -> Plot:
    """The mean of the total and of each reward at every step, a panel each, with a band of one standard error."""
    return _panels(seen, lambda values_N, stroke, label, _: _band(seen, values_N, stroke, label))


def rewards_of_rows(seen: Observations) -> Plot:
    """How the totals and the scores of each reward are spread over the rows, a panel each."""
    return _panels(seen, lambda values_N, stroke, label, declared: [histogram(values_N, declared, label, stroke)])


def _panels(seen: Observations, traces: Callable[[Array, str, str, tuple[float, float] | None], list[Plot]]) -> Plot:
    """A panel for the total and for each reward, with what is drawn of its values, colour, label and declared range."""
    values: list[tuple[str, Array, str, tuple[float, float] | None]] = [("total", seen.totals_N, TOTAL_COLOUR, None)]
    values += [
        (_label(seen, name), seen.raw_RN[index], colour(index), facts.declared_range)
        for index, (name, facts) in enumerate(seen.rewards.items())
    ]
    columns = min(3, len(values))
    rows = math.ceil(len(values) / columns)
    data: list[Plot] = []
    layout: Plot = {"showlegend": False, "height": 60 + 230 * rows, "annotations": []}
    for place, (label, values_N, stroke, declared) in enumerate(values):
        row, column = divmod(place, columns)
        axis = "" if place == 0 else str(place + 1)
        left, right = column / columns + 0.025, (column + 1) / columns - 0.025
        top, bottom = 1 - row / rows - 0.28 / rows / 2, 1 - (row + 1) / rows + 0.22 / rows / 2
        layout[f"xaxis{axis}"] = {"domain": [left, right], "anchor": f"y{axis}"}
        layout[f"yaxis{axis}"] = {"domain": [bottom, top], "anchor": f"x{axis}", "automargin": True}
        layout["annotations"].append(heading(label, (left + right) / 2, top))
        axes = {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}
        data += [{**trace, **axes} for trace in traces(values_N, stroke, label, declared)]
    return {"data": data, "layout": layout}


def weights_over_steps(seen: Observations) -> Plot | None:
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


def flat_groups_over_steps(seen: Observations) -> Plot | None:
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


def drift_curves(seen: Observations, drift: Drift) -> Plot:
    """The proxy and the held-out reward, each on its own axis, with the two windows that are compared."""
    steps = seen.steps_T.tolist()
    names = list(seen.rewards)
    if drift.proxy == TOTAL:
        proxy_T, proxy, stroke = seen.by_step(seen.totals_N)[0], TOTAL, TOTAL_COLOUR
    else:
        proxy_T, proxy = seen.by_step(seen.oriented(drift.proxy))[0], _oriented_label(seen, drift.proxy)
        stroke = colour(names.index(drift.proxy))
    reward_T, _ = seen.by_step(seen.oriented(drift.held_out))
    label = _oriented_label(seen, drift.held_out)
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


def evidence_over_steps(history: Sequence[Mapping[str, Any]], alarms: Sequence[Mapping[str, Any]]) -> Plot | None:
    """The e-value of each watch of the alarm with its threshold, and the steps at which one rang; None where none was logged."""
    watches = dict.fromkeys(
        key.removeprefix(_ALARM).removesuffix(_E_VALUE)
        for entry in history
        for key in entry
        if key.startswith(_ALARM) and key.endswith(_E_VALUE)
    )
    if not watches:
        return None
    data = []
    for index, name in enumerate(watches):
        for part, label, dash in ((_E_VALUE, name, "solid"), ("/threshold", f"{name}, threshold", "dash")):
            key = f"{_ALARM}{name}{part}"
            seen = [(entry["step"], entry[key]) for entry in history if is_number(entry.get(key)) and "step" in entry]
            trace = line([step for step, _ in seen], [value for _, value in seen], html.escape(label), colour(index))
            shape = (
                {"mode": "lines", "line": {"color": colour(index), "width": 1, "dash": dash}} if dash == "dash" else {}
            )
            data.append({**trace, **shape})
    rung = {
        "type": "scatter",
        "mode": "markers",
        "x": [alarm["step"] for alarm in alarms],
        "y": [math.exp(min(alarm["log_e"], _GREATEST_LOG)) for alarm in alarms],
        "text": [html.escape(str(alarm["watch"])) for alarm in alarms],
        "name": "alarm",
        "marker": {"size": 11, "symbol": "star", "color": "#c0392b"},
        "hovertemplate": "step %{x}: %{text}, %{y:.4g}<extra>alarm</extra>",
    }
    layout = {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": "e-value"}, "type": "log"}}
    return {"data": [*data, *([rung] if alarms else [])], "layout": layout}


def failures_over_steps(seen: Observations) -> Plot | None:
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


def logged_numbers(history: Sequence[Mapping[str, Any]]) -> Plot | None:
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


def _oriented_label(seen: Observations, name: str) -> str:
    facts, label = seen.rewards[name], html.escape(name)
    return label if facts.higher_is_better == (facts.weight >= 0) else f"−{label} (inverted: lower is better)"


def _label(seen: Observations, name: str) -> str:
    return html.escape(name) + (" (weight 0)" if seen.rewards[name].is_held_out else "")


def _band(seen: Observations, values_N: Array, stroke: str, label: str) -> list[Plot]:
    """A line through the means of the steps, within a band of one standard error."""
    mean_T, error_T = seen.by_step(values_N)
    steps = seen.steps_T.tolist()
    error_T = np.nan_to_num(error_T)
    known = np.flatnonzero(~np.isnan(mean_T))
    around = [*(mean_T + error_T)[known], *(mean_T - error_T)[known[::-1]]]
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
    }
    return [band, line(steps, json_numbers(mean_T), label, stroke)]
