"""Text that leaves the process: UTF-8 holds no lone surrogate, which a model's output cut within a character does."""

from __future__ import annotations

import re
from collections.abc import Iterable

REPLACEMENT = "\ufffd"
SURROGATES = "surrogates"
"""The flag of what had a lone surrogate that was replaced."""
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_ORDER = re.compile("[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def is_safe_text(text: str) -> bool:
    """Whether text can be written as UTF-8, that is, holds no lone surrogate."""
    return text.isascii() or _SURROGATE.search(text) is None


def safe_text(text: str) -> str:
    r"""Text with each lone surrogate replaced by U+FFFD, the character that stands for one that was lost.

    Examples:
        >>> safe_text("cut \\ud83d off")
        'cut \ufffd off'
    """
    return text if text.isascii() else _SURROGATE.sub(REPLACEMENT, text)


def printable(text: str) -> str:
    r"""`safe_text` for a terminal or log, on which no control character acts: all but tabs and line feeds are escaped.

    So are the characters that reorder or break a line: marks of direction, line and paragraph separators.

    Examples:
        >>> printable("\x1b[2Jgone")
        '\\x1b[2Jgone'
    """
    text = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", safe_text(text))
    return text if text.isascii() else _ORDER.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def listed(names: Iterable[str], most: int = 20) -> str:
    """Names for an error: the first of them, and how many more there are.

    Examples:
        >>> listed(["prompt", "answer", "id"], most=2)
        'prompt, answer and 1 more'
    """
    shown = list(names)
    left = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {left} more" if left > 0 else "") or "none"
