"""The tests of a row, as its columns hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from rlaif_execution.inside import wire


class TestsError(ValueError):
    """The tests of a row cannot be read; the message says why."""

    __test__ = False


@dataclass(frozen=True)
class FunctionCase:
    """A call, and what it returns.

    Attributes:
        args: Positional arguments, encoded by `wire`.
        kwargs: Arguments by name, encoded by `wire`.
        expected: What the call returns.
    """

    args: list[Any]
    kwargs: dict[str, Any]
    expected: Any


@dataclass(frozen=True)
class StreamCase:
    """What a program reads from standard input, and what it then writes to standard output."""

    stdin: str
    stdout: str


@dataclass(frozen=True)
class Asserts:
    """Python text whose asserts are the tests, at its top level or in a function ``check(candidate)``."""

    source: str


Case: TypeAlias = FunctionCase | StreamCase


@dataclass(frozen=True)
class Row:
    """What there is to judge: an answer's code, and its tests.

    Attributes:
        prompt: The text of the prompt, which may begin the function.
        blocks: The code of the answer: its code blocks, at least one.
        tests: Cases, or asserts.
        name: The tested function, or "" where there is none.
    """

    prompt: str
    blocks: Sequence[str]
    tests: Sequence[Case] | Asserts
    name: str = field(default="")


def read_tests(value: Any) -> Sequence[Case] | Asserts | None:
    """The tests in an entry of the column: a list of cases or its JSON, asserts as text or a list of lines, or None.

    Raises:
        TestsError: It is none of these; the message names the case.
    """
    if isinstance(value, str):
        if not value.strip():
            return None
        if value.lstrip()[0] != "[":
            return Asserts(value)
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise TestsError(f"a list of cases that is no JSON: {error}") from None
    if value is None:
        return None
    value = _plain(value)
    if isinstance(value, Mapping) or not isinstance(value, Sequence):
        raise TestsError(f"tests are a list of cases, or Python text with asserts, not {type(value).__name__}")
    if not value:
        return None
    if all(isinstance(entry, str) for entry in value):
        return Asserts("\n".join(value))
    return [_read_case(entry, number) for number, entry in enumerate(value, 1)]


def _plain(value: Any) -> Any:
    """The same with lists in place of arrays, which tables from Parquet have."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return [*map(_plain, value)] if isinstance(value, list) else value


def count_cases(tests: Sequence[Case] | Asserts) -> int:
    """How many tests there are, as far as can be said before they run: of asserts, none."""
    return 0 if isinstance(tests, Asserts) else len(tests)


def _read_case(entry: Any, number: int) -> Case:
    if not isinstance(entry, Mapping):
        raise TestsError(f"case {number} is no object with 'args' and 'expected', or 'stdin' and 'stdout'")
    # A table whose cases have different keys fills the others with None.
    given = {key: value for key, value in entry.items() if value is not None or key == "expected"}
    keys = given.keys() - {"expected"} if "stdout" in given and entry.get("expected") is None else given.keys()
    if "stdout" in keys and keys <= {"stdin", "stdout"}:
        texts = given.get("stdin", ""), given["stdout"]
        if not all(isinstance(text, str) for text in texts):
            raise TestsError(f"case {number}: 'stdin' and 'stdout' are text")
        return StreamCase(*texts)
    if "expected" in keys and keys <= {"args", "kwargs", "expected"}:
        args, kwargs = given.get("args", []), given.get("kwargs", {})
        if isinstance(args, (str, Mapping)) or not isinstance(args, Sequence) or not isinstance(kwargs, Mapping):
            raise TestsError(f"case {number}: 'args' is a list, and 'kwargs' an object")
        try:
            return FunctionCase(
                wire.encode(list(args)), {key: wire.encode(value) for key, value in kwargs.items()}, given["expected"]
            )
        except wire.WireError as error:
            raise TestsError(f"case {number} has {error}") from None
    found = ", ".join(sorted(map(str, entry))) or "none"
    raise TestsError(f"case {number} needs 'args' and 'expected', or 'stdin' and 'stdout', and no other key: {found}")
