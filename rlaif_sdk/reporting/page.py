"""A web page of text, tables and plots that needs no network, and a policy that lets no script run but its own."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import needs_extra
from rlaif_sdk.io.digests import bytes_digest
from rlaif_sdk.io.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.environment import TemplateModule
    from markupsafe import Markup


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
        self.plots: dict[str, Mapping[str, Any]] = {}
        self.parts: list[Markup] = [part("paragraph", introduction, "soft")] if introduction else []

    def add(self, name: str, *arguments: object) -> None:
        """Add a part of the page; see `part`."""
        self.parts.append(part(name, *arguments))

    def plot(self, plot: Mapping[str, Any]) -> None:
        """Add a plot: plotly's ``data`` and ``layout``."""
        name = f"plot-{self.name}-{len(self.plots) + 1}"
        self.plots[name] = plot
        self.add("plot", name, plot["layout"].get("height", 340))


def part(name: str, *arguments: object) -> Markup:
    """A part of a page, by a macro of ``templates/parts.html``: whatever is not markup already is escaped, control characters too.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    markup: Markup = getattr(_parts(), name)(*arguments)
    return markup


def joined(parts: Iterable[Markup]) -> Markup:
    """The parts one after the other."""
    from markupsafe import Markup

    return Markup().join(parts)


def page(title: str, sections: Sequence[Section], *, opening: Markup | None = None) -> str:
    """A whole HTML document that needs nothing from outside.

    Its content security policy allows the two scripts by their digests, and no connection to anywhere.

    Args:
        title: Its title, as text.
        sections: What it says.
        opening: What stands above them.

    Raises:
        MissingExtraError: jinja2 or plotly is not installed.
        ValueError: A plot has a NaN, which is no JSON.
    """
    environment = _environment()
    from markupsafe import Markup

    plots = {name: plot for section in sections for name, plot in section.plots.items()}
    scripts = [_plotly(), _file("page.js")] if plots else []
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
        f"script-src {' '.join(map(_digest, scripts)) or chr(39) + 'none' + chr(39)}; base-uri 'none'; form-action 'none'"
    )
    return environment.get_template("page.html").render(
        title=title,
        opening=opening or Markup(),
        sections=sections,
        plots=plots,
        policy=Markup(policy),  # noqa: S704 - ours, as are style and scripts
        style=Markup(_file("page.css")),  # noqa: S704
        scripts=[Markup(script) for script in scripts],  # noqa: S704
    )


@cache
def _environment() -> Environment:
    with needs_extra("report", "jinja2, which writes the page,"):
        from jinja2 import Environment, PackageLoader, StrictUndefined
    environment = Environment(
        loader=PackageLoader("rlaif_sdk.reporting"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "ensure_ascii": True, "separators": (",", ":")}
    return environment


def _shown(value: Any) -> Any:
    """What an expression of a template gives: in text of others no control character acts, and no mark turns a line round."""
    return printable(value) if type(value) is str else value


@cache
def _parts() -> TemplateModule:
    return _environment().get_template("parts.html").module


def _file(name: str) -> str:
    return files("rlaif_sdk.reporting").joinpath("templates", name).read_text("utf-8")


def _plotly() -> str:
    with needs_extra("report", "plotly, which draws the plots,"):
        from plotly.offline import get_plotlyjs
    return str(get_plotlyjs())


def _digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(bytes.fromhex(bytes_digest(script.encode()))).decode()}'"
