"""Digests: equal for equal content, in every process and on every machine, and different for anything else.

All are SHA-256. Of files they have 64 hexadecimal digits, as ``sha256sum`` prints them. Of values and code they have
32, since 128 bits keep the chance of any collision among 10^12 of them below 10^-14.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import functools
import hashlib
import inspect
import json
import types
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from rlaif_sdk.exceptions import DataError

DIGEST_BYTES = 16
"""Of a value or of code."""


class Digest:
    """A digest of several values, one after another.

    See `json_digest` for which values are equal. How many values there are, and where one ends, counts too.
    """

    def __init__(self) -> None:
        self._state = hashlib.sha256()

    def add(self, value: Any, *, default: Callable[[Any], Any] | None = None) -> None:
        """Add a value.

        Raises:
            TypeError: It has no JSON form.
            ValueError: It contains itself.
            RecursionError: It is nested too deeply.
        """
        self._state.update(_encoded(value, default))

    def copy(self) -> Self:
        """One that has the same values so far."""
        made = type(self)()
        made._state = self._state.copy()  # noqa: SLF001 - another of the same class
        return made

    def bytes(self) -> bytes:
        """16 bytes."""
        return self._state.digest()[:DIGEST_BYTES]

    def text(self) -> str:
        """32 hexadecimal digits."""
        return self.bytes().hex()


def json_digest(value: Any, *, default: Callable[[Any], Any] | None = None) -> str:
    """A digest of a JSON value, whatever the order of keys in its mappings.

    Values of different types differ: ``1``, ``1.0``, ``true`` and ``"1"`` have four digests. Tuples equal lists, and
    arrays the lists of their numbers. Dates, times, decimals, UUIDs, bytes and paths have a digest as well, other than
    their text's; NaN equals NaN.

    Args:
        value: The value.
        default: What to take in place of an object that has no JSON form.

    Returns:
        32 hexadecimal digits.

    Raises:
        TypeError: Something has no JSON form.
        ValueError: It contains itself.
        RecursionError: It is nested too deeply.

    Examples:
        >>> json_digest({"a": 1, "b": 2}) == json_digest({"b": 2, "a": 1})
        True
        >>> json_digest([1]) == json_digest([1.0])
        False
    """
    digest = Digest()
    digest.add(value, default=default)
    return digest.text()


def rows_digest(rows: Iterable[Any]) -> str:
    """A digest of a table's rows in their order, read one at a time; see `json_digest`."""
    digest = Digest()
    for row in rows:
        digest.add(row)
    return digest.text()


def bytes_digest(content: bytes) -> str:
    """The SHA-256 of a file with this content, 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def file_digest(path: str | Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=str(path)) from error


def files_digest(files: Iterable[Path]) -> str:
    """A digest of the names and contents of files, in whatever order and folder they are.

    Raises:
        DataError: One cannot be read.
    """
    return json_digest(sorted([file.name, file_digest(file)] for file in files))


def code_digest(named: Any) -> str:
    """A digest of the file in which a class or function is defined, or of its compiled code where there is no file.

    Of a `functools.partial` it is one of the function's and of what is bound to it.

    Returns:
        32 hexadecimal digits, or an empty text where nothing that is the same in every process identifies the code.
    """
    if isinstance(named, functools.partial):
        return _partial_digest(named)
    try:
        file = inspect.getsourcefile(inspect.unwrap(named))
        source = Path(file).read_bytes() if file else b""
    except (TypeError, OSError):
        source = b""
    code = source or _compiled(named) or _builtin(named)
    return bytes_digest(code)[: 2 * DIGEST_BYTES] if code else ""


def object_digest(made: Any) -> str:
    """A digest of an object by its class, the code of that, and its attributes, of which each is told likewise.

    Returns:
        32 hexadecimal digits.

    Raises:
        TypeError: Something in it has neither a JSON form nor attributes, or is a function, which closes over others.
        ValueError: It contains itself.
        RecursionError: It is nested too deeply.
    """
    return json_digest(_parts(made), default=_plain_or_parts)


def _encoded(value: Any, default: Callable[[Any], Any] | None) -> bytes:
    """Bytes that begin with their kind and length, so that several in a row can be read in one way only."""
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        return b"s%d:%b" % (len(text), text)
    encoder = _ENCODER if default is None else _encoder(default)
    text = encoder.encode(value).encode()
    return b"j%d:%b" % (len(text), text)


_TOLD_BY_TEXT = (dt.date, dt.time, dt.timedelta, decimal.Decimal, uuid.UUID, Path)


def _plain(value: Any) -> Any:
    """What stands for an object that JSON does not know."""
    if hasattr(value, "tolist"):  # an array, or a number of NumPy's or PyTorch's
        return value.tolist()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, (bytes, bytearray)):
        return {"\0bytes": value.hex()}  # no column or parameter has such a name
    if isinstance(value, _TOLD_BY_TEXT):
        return {f"\0{type(value).__name__}": str(value)}
    raise TypeError(f"it is made of a {type(value).__name__}, which has no JSON form")


def _encoder(default: Callable[[Any], Any]) -> json.JSONEncoder:
    return json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=default)


_ENCODER = _encoder(_plain)
"""Made once: a ledger digests every row."""


def _partial_digest(bound: functools.partial[Any]) -> str:
    function = code_digest(bound.func)
    try:
        return json_digest([function, bound.args, bound.keywords], default=_plain_or_code) if function else ""
    except (TypeError, ValueError, RecursionError):
        return ""


def _plain_or_code(value: Any) -> Any:
    """What a partial binds: a callable counts by its name and code."""
    if callable(value) and not hasattr(value, "model_dump") and (code := code_digest(value)):
        return [getattr(value, "__qualname__", type(value).__qualname__), code]
    return _plain(value)


def _plain_or_parts(value: Any) -> Any:
    """What an object has in an attribute: where JSON does not know it either, its own parts."""
    try:
        return _plain(value)
    except TypeError:
        if callable(value):
            raise
        return _parts(value)


def _parts(made: Any) -> list[Any]:
    kind = type(made)
    names = [one.name for one in dataclasses.fields(made)] if dataclasses.is_dataclass(made) else [*vars(made)]
    return [kind.__module__, kind.__qualname__, code_digest(kind), {name: getattr(made, name) for name in names}]


def _compiled(named: Any) -> bytes:
    codes = [_code_bytes(value.__code__) for value in [named, *_methods(named)] if hasattr(value, "__code__")]
    return b"".join(codes)


def _builtin(named: Any) -> bytes:
    """The place of a class or function that is written in C."""
    of_module = inspect.isbuiltin(named) and inspect.ismodule(named.__self__)
    return f"{named.__module__}:{named.__qualname__}".encode() if of_module or isinstance(named, type) else b""


def _methods(named: Any) -> list[Any]:
    kinds = named.__mro__ if isinstance(named, type) else type(named).__mro__
    return [value for kind in kinds for value in vars(kind).values() if inspect.isfunction(value)]


def _code_bytes(code: types.CodeType) -> bytes:
    constants = [_constant(value) for value in code.co_consts]
    return repr((code.co_code, constants, code.co_names, code.co_freevars)).encode()


def _constant(value: Any) -> str:
    if isinstance(value, types.CodeType):
        return _code_bytes(value).hex()
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)  # a set's order is the process's
