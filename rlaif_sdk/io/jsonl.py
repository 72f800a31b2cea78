"""A row as JSON text, and back: what JSON cannot hold is converted by one rule or refused, and nothing is guessed.

| a value | becomes |
|---|---|
| date, time, date and time | text, ISO 8601 |
| span of time | a number of seconds |
| decimal number, UUID | text |
| bytes | text, base64 |
| NumPy number, array | a number, lists |
| NaN, pandas' NA and NaT | null |
| infinity, set, any other object | refused, with the row |
"""

from __future__ import annotations

import base64
import codecs
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import count
from typing import IO, Any, TypeAlias
from uuid import UUID

from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.text import is_safe_text

Row: TypeAlias = dict[str, Any]

_BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 20
_SPACE = " \t\n\r"
_LONGEST_TOKEN = 16
"""Characters within which JSON is not known to be wrong or cut: an escape, a literal."""


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _RepeatedKeyError(name)
            seen.add(name)
    return row


class _RepeatedKeyError(Exception):
    """A JSON object has a key twice, of which one value would be lost."""


_decoder: Any = json.JSONDecoder(object_pairs_hook=_unique)
_scan: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once  # public, and in no stub


def parse_line(line: str | bytes, name: str, number: int | None) -> Row:
    """The row in a line of JSONL.

    Args:
        line: The line.
        name: The file, for errors.
        number: The line's number, from 1, where it is known.

    Raises:
        DataError: It is no JSON object, or has a key twice.
    """
    try:
        text = line.decode() if isinstance(line, bytes) else line
        row, end = _scan(text, 0) if text[:1] == "{" else _scan(text, _after_space(text, 0))
    except (ValueError, StopIteration, RecursionError, _RepeatedKeyError) as error:
        raise _refused(error, name, number) from error
    if end < len(text) and (after := text[end:].strip(_SPACE)):
        problem = f"no valid JSON: {after[:20]!r} stands after the value, at column {end + 1}"
        raise DataError(problem, file=name, row=number, hint="one JSON object a line")
    if type(row) is not dict:
        problem = f"a {type(row).__name__} where a JSON object is wanted"
        raise DataError(problem, file=name, row=number, hint="one JSON object a line, with the columns as its keys")
    return row


def _after_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position


def _refused(error: Exception, name: str, number: int | None) -> DataError:
    hint: str | None = "one JSON object a line"
    if isinstance(error, UnicodeDecodeError):
        return DataError(f"is not UTF-8: {error}", file=name, row=number, hint="save the file as UTF-8")
    if isinstance(error, _RepeatedKeyError):
        problem, hint = f"the key {error.args[0]!r} stands twice in one object", "leave one of them"
        return DataError(problem, file=name, row=number, hint=hint)
    if isinstance(error, json.JSONDecodeError):
        is_cut = error.doc[error.pos : error.pos + 1] in ("\n", "\r")
        message = "the line ends within a text" if is_cut else error.msg.removesuffix(" at").removesuffix(" starting")
        problem = f"{message} at column {min(error.pos, len(error.doc.rstrip())) + 1}"
    elif isinstance(error, StopIteration):
        problem = f"Expecting value at column {int(error.value) + 1}"
    elif isinstance(error, RecursionError):
        problem = "too deeply nested"
    else:  # Python refuses to read numbers of thousands of digits
        problem = str(error).partition(";")[0]
    return DataError(f"no valid JSON: {problem}", file=name, row=number, hint=hint)


def check_encoding(start: bytes, name: str) -> None:
    """Refuse UTF-16 and UTF-32 by the mark at a file's start.

    Raises:
        DataError: The file is in one of them.
    """
    if start[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        raise DataError("is not UTF-8 but UTF-16 or UTF-32", file=name, hint="save the file as UTF-8")


def read_lines(file: IO[bytes], name: str) -> Iterator[Row]:
    """The rows of JSONL, one at a time; blank lines are passed over, as is a byte order mark."""
    for number, line in enumerate(file, start=1):
        if number == 1:
            check_encoding(line, name)
            line = line.removeprefix(_BOM)  # noqa: PLW2901 - the first line alone
        if line and not line.isspace():
            yield parse_line(line, name, number)


def read_array(file: IO[bytes], name: str) -> Iterator[Row]:
    """The rows of a JSON array of objects, one at a time in constant memory.

    Raises:
        DataError: It is no such array; names the row.
    """
    reader = _Text(file, name)
    reader.expect("[", row=None)
    if reader.peek() == "]":
        return
    for number in count(1):
        value = reader.value(number)
        if type(value) is not dict:
            problem = f"a {type(value).__name__} where a JSON object is wanted"
            raise DataError(problem, file=name, row=number, hint="an array of objects, with the columns as their keys")
        yield value
        if reader.peek() == "]":
            break
        reader.expect(",", row=number)
    reader.expect("]", row=None)
    if reader.peek():
        raise DataError("no valid JSON: something stands after the array", file=name)


class _Text:
    """Text that is read as it is needed."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        start = file.read(_CHUNK)
        check_encoding(start, name)
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._file = file
        self._name = name
        self._left = True
        self._at = 0
        self._buffer = self._decoded(start.removeprefix(_BOM))

    def _decoded(self, content: bytes) -> str:
        try:
            return self._decode(content, not content)
        except UnicodeDecodeError as error:
            raise DataError(f"is not UTF-8: {error}", file=self._name, hint="save the file as UTF-8") from error

    def _more(self) -> bool:
        """Read on: as much again as there is, so that a long value is scanned a few times and not many."""
        self._buffer = self._buffer[self._at :]
        self._at = 0
        content = self._file.read(max(_CHUNK, len(self._buffer))) if self._left else b""
        self._left = bool(content)
        self._buffer += self._decoded(content)
        return self._left

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            self._at = _after_space(self._buffer, self._at)
            if self._at < len(self._buffer) or not self._more():
                return self._buffer[self._at : self._at + 1]

    def expect(self, character: str, *, row: int | None) -> None:
        """Pass over a character."""
        if (found := self.peek()) != character:
            raise DataError(
                f"no valid JSON: {found!r} where {character!r} is wanted"
                if found
                else "no valid JSON: it ends too soon",
                file=self._name,
                row=row,
                hint="an array of JSON objects",
            )
        self._at += 1

    def value(self, row: int) -> Any:
        """The next value."""
        while True:
            self.peek()
            try:
                value, self._at = _scan(self._buffer, self._at)
            except (ValueError, StopIteration, RecursionError, _RepeatedKeyError) as error:
                if self._may_go_on(error) and self._more():
                    continue
                problem = f"no valid JSON: {error.msg}" if isinstance(error, json.JSONDecodeError) else None
                refused = _refused(error, self._name, row)
                hint = "an array of JSON objects" if problem else refused.hint
                raise DataError(problem or refused.message, file=self._name, row=row, hint=hint) from error
            return value

    def _may_go_on(self, error: Exception) -> bool:
        """Whether a value is cut by the end of what is read, rather than wrong."""
        if isinstance(error, json.JSONDecodeError):
            return error.msg.startswith("Unterminated") or error.pos > len(self._buffer) - _LONGEST_TOKEN
        return isinstance(error, StopIteration) and int(error.value) > len(self._buffer) - _LONGEST_TOKEN


def plain(value: Any) -> Any:  # noqa: PLR0911 - one case a kind
    """The JSON value for one that JSON does not know; see the module's table.

    Raises:
        TypeError: There is none.
    """
    if isinstance(value, (datetime, date, time)):
        return None if value != value else value.isoformat()  # noqa: PLR0124 - NaT is not itself
    if isinstance(value, timedelta):
        return None if value != value else value.total_seconds()  # noqa: PLR0124
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return dict(value)
    kind = type(value)
    if kind.__module__.partition(".")[0] == "pandas" and kind.__name__ in {"NAType", "NaTType"}:
        return None
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.generic, numpy.ndarray)):
        if isinstance(value, (numpy.datetime64, numpy.timedelta64)):
            return None if numpy.isnat(value) else str(value) if value.dtype.kind == "M" else _seconds(value)
        return value.tolist()
    raise TypeError(f"a {kind.__name__} is no value of a table")


def _seconds(value: Any) -> float:
    import numpy as np

    return float(value / np.timedelta64(1, "s"))


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=plain).encode


def as_json(value: Any) -> str:
    """A value as JSON text on one line; see the module's table. A lone surrogate stays one, which UTF-8 cannot hold.

    Raises:
        ValueError: A number is infinite, or the value holds itself.
        TypeError: Something is no value of a table.
    """
    try:
        return _encode(value)
    except ValueError:
        return _encode(_without_nan(value))


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        if math.isinf(value):
            raise ValueError("an infinite number, which JSON does not know")
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if isinstance(value, (str, int)) or value is None:
        return value
    return _without_nan(plain(value))


def row_as_json(row: Mapping[str, Any], name: str, number: int) -> str:
    """A row as a line of JSONL, without its end.

    Args:
        row: The row.
        name: The file, for errors.
        number: The row's number, from 1.

    Raises:
        DataError: A value can be none of JSON's; names the row and the column.
    """
    try:
        return as_json(row)
    except (ValueError, TypeError, RecursionError) as error:
        problem = str(error).partition(";")[0]
        for column, value in row.items():
            try:
                as_json({column: value})
            except (ValueError, TypeError, RecursionError) as own:
                problem = f"column {column!r} holds {own}"
                break
        hint = "change it, or leave the column out"
        raise DataError(f"cannot be written as JSON: {problem}", file=name, row=number, hint=hint) from error


def parse_json(text: str) -> Any:
    """What `as_json` wrote."""
    return json.loads(text)


def write_array(rows: Iterable[str], file: IO[str]) -> None:
    """Write rows, each as JSON, as one array."""
    between = "[\n"
    for row in rows:
        file.write(between + row)
        between = ",\n"
    file.write("[]\n" if between == "[\n" else "\n]\n")


def json_cell(value: Any, column: str, name: str, row: int) -> str:
    """The text of a value in a column of JSON, which UTF-8 can hold.

    Raises:
        DataError: The value is none of a table; names the file, the row and the column.
    """
    try:
        text = as_json(value)
    except (ValueError, TypeError, RecursionError):
        text = row_as_json({column: value}, name, row)  # which says what is wrong
    return utf_8_json(text)


def utf_8_json(text: str) -> str:
    """JSON text in which a lone surrogate is its escape, and reads back as it was."""
    return text if is_safe_text(text) else text.encode("utf-8", "backslashreplace").decode()
