"""HTML out of text: everything is escaped that is not marked as HTML already."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(value: object) -> Markup:
    """HTML that shows a value as it is."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """An element; children that are not `Markup` are escaped. ``class_`` gives the attribute ``class``."""
    written = "".join(f' {name.rstrip("_")}="{html.escape(str(value))}"' for name, value in attributes.items())
    return Markup(f"<{tag}{written}>{joined(children)}</{tag}>")


def joined(parts: Iterable[object]) -> Markup:
    """The parts one after the other."""
    return Markup("".join(escaped(part) for part in parts))


def table(headings: Sequence[object], rows: Iterable[Sequence[object]], **attributes: object) -> Markup:
    """A table that scrolls within the page where it is too wide for it."""
    head = element("tr", *(element("th", heading) for heading in headings))
    body = joined(element("tr", *(element("td", cell) for cell in row)) for row in rows)
    whole = element("table", element("thead", head), element("tbody", body), **attributes)
    return element("div", whole, class_="scroll")


def items(texts: Sequence[object], **attributes: object) -> Markup:
    """A list of points; nothing for no points."""
    return element("ul", *(element("li", text) for text in texts), **attributes) if texts else Markup()


def script_json(value: Any) -> Markup:
    """JSON that cannot end the script element that it stands in.

    Raises:
        ValueError: There is a NaN in it, which is no JSON.
    """
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
