r"""The answer within a text: in a tag, in a box, after a mark, on the last line, or all of it.

All takes time linear in the text's length, whatever a candidate writes.
"""

from __future__ import annotations

from typing import Annotated, Literal

import regex
from pydantic import AfterValidator

PATTERN_SECONDS = 1.0
"""How long a pattern of a config may take on one text."""

Place = Literal["whole", "last_line", "boxed", "tag", "hashes"]
r"""Where the answer of a text stands: all of it; its last line with words; the last ``\boxed{}``; the last
``<answer>...</answer>``; after the last ``####``, as GSM8K writes it."""


def _checked(pattern: str) -> str:
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    if compiled.fullmatch(""):
        raise ValueError(f"{pattern!r} matches an empty text, so nothing would be checked")
    return pattern


Pattern = Annotated[str, AfterValidator(_checked)]
"""A regular expression that does not match an empty text."""


def extract(text: str, place: Place) -> str | None:
    """The answer in a text; None where the place is not there."""
    if place == "whole":
        return text.strip()
    if place == "last_line":
        return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), None)
    if place == "boxed":
        return last_boxed(text)
    if place == "hashes":
        _, mark, rest = text.rpartition("####")
        return rest.strip().partition("\n")[0].strip() if mark else None
    before, closing, _ = text.rpartition("</answer>")
    _, opening, answer = before.rpartition("<answer>")
    return answer.strip() if closing and opening else None


def last_boxed(text: str) -> str | None:
    r"""What stands in the last ``\boxed{...}``, braces within it included; None where its braces do not close."""
    opened: list[int] = []
    found = None
    for brace in regex.finditer(r"[{}]", text):
        if brace.group() == "{":
            opened.append(brace.start())
        elif opened:
            start = opened.pop()
            if _opens_box(text, start) and (found is None or start > found[0]):
                found = start, brace.start()
    if found and any(start > found[0] and _opens_box(text, start) for start in opened):
        return None
    return None if found is None else text[found[0] + 1 : found[1]].strip()


def _opens_box(text: str, brace: int) -> bool:
    r"""Whether the brace at a place of a text follows ``\boxed``."""
    return text[max(0, brace - 32) : brace].rstrip().endswith("\\boxed")
