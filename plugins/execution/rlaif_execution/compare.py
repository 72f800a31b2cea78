"""Whether what a program returned or wrote is what was expected; outside the sandbox, on plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def same_value(got: Any, expected: Any, tolerance: float) -> bool:
    """Whether a returned value is the expected one, as far as JSON can say it.

    As Python compares, except that a list equals a tuple, a float may differ from the expected number by ``tolerance``
    (relative or absolute), NaN equals NaN, and a key that is a whole number equals its text. An integer that is
    returned is compared exactly.

    Args:
        got: Plain data.
        expected: What the dataset holds.
        tolerance: At least 0.
    """
    if isinstance(expected, (int, float)) and isinstance(got, (int, float)):
        return _same_number(got, expected, tolerance)
    if isinstance(expected, Mapping):
        return isinstance(got, Mapping) and _same_mapping(got, expected, tolerance)
    if isinstance(expected, (list, tuple)):
        return (
            isinstance(got, (list, tuple))
            and len(got) == len(expected)
            and all(same_value(a, b, tolerance) for a, b in zip(got, expected, strict=True))
        )
    return type(got) is type(expected) and bool(got == expected)


def same_output(got: str, expected: str) -> bool:
    """Whether a program wrote what was expected; white space at the ends of lines and of the text does not count.

    Lines end as Python's universal newlines do (LF, CRLF, CR): any other separator is a character like the rest.
    """
    return _lines(got) == _lines(expected)


def _lines(text: str) -> Sequence[str]:
    text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip(" \t\n")
    return [line.rstrip(" \t") for line in text.split("\n")]


def _same_number(a: float, b: float, tolerance: float) -> bool:
    if a == b:
        return True
    if not isinstance(a, float):
        return False
    try:
        return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance) or (math.isnan(a) and math.isnan(b))
    except OverflowError:  # a whole number beyond every float
        return False


def _same_mapping(got: Mapping[Any, Any], expected: Mapping[Any, Any], tolerance: float) -> bool:
    if all(isinstance(key, str) for key in expected):
        got = {str(key) if type(key) is int else key: value for key, value in got.items()}
    return got.keys() == expected.keys() and all(same_value(got[key], expected[key], tolerance) for key in expected)
