"""Text that leaves the process: UTF-8 holds no lone surrogate, which a model's output cut within a character does."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TextIO

REPLACEMENT = "\ufffd"
SURROGATES = "surrogates"
"""The flag of what had a lone surrogate that was replaced."""
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f]")
_DELETE_AND_ORDER = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WIDEST_REPR = 119


def is_safe_text(text: str) -> bool:
    """Whether text can be written as UTF-8, that is, holds no lone surrogate."""
    return text.isascii() or _SURROGATE.search(text) is None


def safe_text(text: str) -> str:
    r"""Text with each lone surrogate replaced by U+FFFD, the character that stands for one that was lost.

    Examples:
        >>> safe_text("cut \ud83d off")
        'cut � off'
    """
    return text if text.isascii() else _SURROGATE.sub(REPLACEMENT, text)


def printable(text: str) -> str:
    r"""`safe_text` for a terminal or log, on which no control character acts: all but tabs and line feeds are escaped.

    So are the characters that reorder or break a line: marks of direction, line and paragraph separators. JSON on lines
    stays JSON of the same value.

    Examples:
        >>> printable("\x1b[2Jgone")
        '\\x1b[2Jgone'
    """
    text = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", safe_text(text))
    return _DELETE_AND_ORDER.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def short_repr(said: str) -> str:
    """What a `repr` says, as ``<...>``: one line of less than 120 characters, cut where it would be longer.

    Examples:
        >>> short_repr("Composer of polite, short")
        '<Composer of polite, short>'
    """
    line = f"<{' '.join(printable(said).split())}>"
    return line if len(line) <= _WIDEST_REPR else f"{line[: _WIDEST_REPR - 2]}…>"


class PrintableStream:
    """A text stream on which no control character acts, whoever writes to it: commands, logging, a traceback.

    A carriage return at the beginning of what is written acts: progress bars begin so. rich writes the marks of its own
    past it; the texts in its tables are escaped by `printable`. While a bar of rich's is live, rich puts a stream of its
    own before this one, so a console with a bar holds on to the stream below.

    Args:
        stream: What it writes to.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file: TextIO = getattr(stream, "rich_proxied_file", stream)  # rich's name for it

    def write(self, text: str) -> int:
        """Write text; what acts in it is escaped."""
        returned = len(text) - len(text.removeprefix("\r"))
        self.rich_proxied_file.write(text[:returned] + printable(text[returned:]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each line."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def listed(names: Iterable[str], most: int = 20) -> str:
    """Names for an error: the first of them, and how many more there are.

    Examples:
        >>> listed(["prompt", "answer", "id"], most=2)
        'prompt, answer and 1 more'
    """
    shown = list(names)
    left = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {left} more" if left > 0 else "") or "none"
