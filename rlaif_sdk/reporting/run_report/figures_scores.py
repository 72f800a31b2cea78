"""The plots of how scores relate: variance, correlation, length, saturation. Plotly's ``data`` and ``layout``."""

from __future__ import annotations

import html

import numpy as np

from rlaif_sdk.diagnostics import variance_shares
from rlaif_sdk.reporting.run_report.findings import Measures
from rlaif_sdk.reporting.run_report.observations import Observations
from rlaif_sdk.reporting.run_report.traces import Figure, colour, json_number, json_numbers, menu

POINTS = 2000
"""A scatter plot shows so many rows at most, evenly spread over the run."""
BINS = 40


def variance_bars(seen: Observations, measured: Measures) -> Figure | None:
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


def correlation_map(seen: Observations, measured: Measures) -> Figure | None:
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


def length_scatter(seen: Observations) -> Figure:
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


def score_histograms(seen: Observations) -> Figure:
    """How each reward's scores are spread over its range, or over what they span; a reward is chosen from a menu."""
    data: list[Figure] = []
    buttons: list[Figure] = []
    titles: list[str] = []
    for index, (name, facts) in enumerate(seen.rewards.items()):
        raw_N = seen.raw_RN[index]
        counts, edges = np.histogram(raw_N[~np.isnan(raw_N)], bins=BINS, range=facts.declared_range)
        label = html.escape(name)
        data.append(
            {
                "type": "bar",
                "x": ((edges[:-1] + edges[1:]) / 2).tolist(),
                "y": counts.tolist(),
                "width": (np.diff(edges) * 0.96).tolist(),
                "name": label,
                "visible": index == 0,
                "marker": {"color": colour(index)},
                "hovertemplate": "about %{x:.4g}: %{y} scores<extra></extra>",
            }
        )
        visible = [other == index for other in range(len(seen.rewards))]
        titles.append(f"{label}, {'declared range' if facts.declared_range else 'no declared range'}")
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


def _coloured_by_step(steps: list[int]) -> Figure:
    """A colour a step, with its key; of a single step there is nothing to tell apart."""
    if len(set(steps)) == 1:
        return {"color": colour(0)}
    return {"color": steps, "colorscale": "Viridis", "colorbar": {"title": {"text": "step"}}}
