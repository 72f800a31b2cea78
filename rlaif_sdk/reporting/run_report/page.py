"""The page: sections, the plots' data, and a policy that lets no script run but the report's own."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from rlaif_sdk.exceptions import MissingExtraError
from rlaif_sdk.io.digests import bytes_digest
from rlaif_sdk.reporting.run_report.markup import Markup, element, joined, script_json


class Section:
    """A heading, and under it text, tables and plots.

    Args:
        name: Its anchor.
        title: Its heading.
        introduction: What it shows, and how to read it.
    """

    def __init__(self, name: str, title: str, introduction: str = "") -> None:
        self.name = name
        self.title = title
        self.figures: dict[str, Mapping[str, Any]] = {}
        self._parts: list[Markup] = [element("p", introduction, class_="soft")] if introduction else []

    def add(self, part: Markup) -> None:
        """Add HTML."""
        self._parts.append(part)

    def plot(self, figure: Mapping[str, Any]) -> None:
        """Add a plot: plotly's ``data`` and ``layout``."""
        name = f"plot-{self.name}-{len(self.figures) + 1}"
        self.figures[name] = figure
        height = figure["layout"].get("height", 340)
        self._parts.append(element("div", id=name, class_="plot", style=f"min-height: {height}px"))

    def render(self) -> Markup:
        """The section's HTML."""
        return element("section", element("h2", self.title), *self._parts, id=self.name)


def page(title: str, opening: Markup, sections: list[Section]) -> str:
    """A whole HTML document that needs nothing from outside.

    Its content security policy allows the two scripts by their digests, and no connection to anywhere.

    Args:
        title: Its title, as text.
        opening: What stands above the sections.
        sections: The rest.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    figures = {name: figure for section in sections for name, figure in section.figures.items()}
    here = files("rlaif_sdk.reporting.run_report")
    scripts = [_plotly(), here.joinpath("report.js").read_text("utf-8")] if figures else []
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
        f"script-src {' '.join(map(_digest, scripts)) or chr(39) + 'none' + chr(39)}; base-uri 'none'; form-action 'none'"
    )
    navigation = element("nav", *(element("a", section.title, href=f"#{section.name}") for section in sections))
    head = joined(
        [
            Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
            element("title", title),
            element("style", Markup(here.joinpath("report.css").read_text("utf-8"))),
        ]
    )
    body = joined(
        [
            element("h1", title),
            opening,
            navigation,
            *(section.render() for section in sections),
            element("script", script_json(figures), type="application/json", id="figures"),
            *(element("script", Markup(script)) for script in scripts),
        ]
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtraError("plotly, which draws the report,", extra="report") from error
    return str(get_plotlyjs())


def _digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(bytes.fromhex(bytes_digest(script.encode()))).decode()}'"
