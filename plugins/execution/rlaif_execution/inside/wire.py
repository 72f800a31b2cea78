"""How values cross the wall of the sandbox: as JSON, each in its exact type, and nothing but plain data."""

from __future__ import annotations

import json
import math
import struct

TYPE_CHECKING = False  # as a type checker knows it; importing typing costs a sandbox a tenth of its start
if TYPE_CHECKING:
    from typing import Any

LENGTH = struct.Struct(">I")
"""In front of each message stands its length in bytes."""

RETURNED = 50
"""The depth at which `encode` and `decode` begin with what a function returned: it has room to be passed on in arguments."""

_DEEPEST = 100
_COLLISIONS = 64
_PLAIN_INT = 2**53


class WireError(ValueError):
    """A value is no plain data, or a message is none of this protocol."""


def pack(message: dict[str, Any]) -> bytes:
    """A message with its length in front.

    Raises:
        WireError: It nests too deep for JSON.
    """
    try:
        body = json.dumps(message).encode()
    except RecursionError:
        raise WireError("a message that nests too deep") from None
    return LENGTH.pack(len(body)) + body


def unpack(body: bytes) -> dict[str, Any]:
    """The message in a body.

    Raises:
        WireError: It is no JSON object.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WireError(f"no message: {error}") from None
    if not isinstance(message, dict):
        raise WireError("no message: not an object")
    return message


def encode(value: Any, depth: int = 0) -> Any:
    """A value as JSON that `decode` turns into an equal value of the same type; a subclass becomes its base.

    Raises:
        WireError: It is, or holds, something other than None, bools, numbers, text, bytes, lists, tuples, sets and
            dicts, or is nested too deep: more than 100, of which the given depth counts as used.
    """
    if depth > _DEEPEST:
        raise WireError("a value nested too deep")
    if value is None or isinstance(value, bool):
        return value
    for kind, write in _ENCODERS:
        if isinstance(value, kind):
            return write(value, depth + 1)
    raise WireError(f"a value of type {type(value).__name__}, which is no plain data")


def _encode_all(values: Any, depth: int) -> list[Any]:
    return [encode(value, depth) for value in values]


_ENCODERS: tuple[tuple[Any, Any], ...] = (
    (str, lambda text, _: str(text)),
    (int, lambda number, _: int(number) if -_PLAIN_INT <= number <= _PLAIN_INT else {"int": hex(number)}),
    (float, lambda number, _: float(number) if math.isfinite(number) else {"float": repr(float(number))}),
    (list, _encode_all),
    (dict, lambda pairs, depth: {"dict": [_encode_all(pair, depth) for pair in pairs.items()]}),
    (tuple, lambda values, depth: {"tuple": _encode_all(values, depth)}),
    (set, lambda values, depth: {"set": _encode_all(values, depth)}),
    (frozenset, lambda values, depth: {"frozenset": _encode_all(values, depth)}),
    ((bytes, bytearray), lambda data, _: {"bytes": data.hex()}),
    (complex, lambda number, depth: {"complex": _encode_all((number.real, number.imag), depth)}),
)


def decode(value: Any, depth: int = 0) -> Any:
    """The value that `encode` wrote, whoever wrote it: every type is a plain one, and `encode` takes it again.

    Raises:
        WireError: This is nothing that `encode` writes.
    """
    if depth > _DEEPEST:
        raise WireError("a value nested too deep")
    if isinstance(value, list):
        return [decode(entry, depth + 1) for entry in value]
    if not isinstance(value, dict):
        return value
    try:
        ((kind, content),) = value.items()
        return _DECODERS[kind](content, depth + 1)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise WireError(f"no value: {error}") from None


def _decode_all(values: Any, depth: int) -> list[Any]:
    return [decode(value, depth) for value in values]


def _decode_dict(pairs: Any, depth: int) -> dict[Any, Any]:
    keys = _decode_all((key for key, _ in pairs), depth)
    _check_hashes(keys)
    return dict(zip(keys, _decode_all((entry for _, entry in pairs), depth), strict=True))


def _decode_set(entries: Any, depth: int) -> set[Any]:
    members = _decode_all(entries, depth)
    _check_hashes(members)
    return set(members)


def _check_hashes(keys: list[Any]) -> None:
    """Refuse keys that were chosen to share a hash: building a set of them takes time that grows with its square."""
    if len(keys) - len(set(map(hash, keys))) > _COLLISIONS:
        raise WireError("keys that share their hashes")


_DECODERS: dict[str, Any] = {
    "int": lambda digits, _: int(digits, 16),
    "float": lambda text, _: {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[text],
    "dict": _decode_dict,
    "tuple": lambda entries, depth: tuple(_decode_all(entries, depth)),
    "set": _decode_set,
    "frozenset": lambda entries, depth: frozenset(_decode_set(entries, depth)),
    "bytes": lambda digits, _: bytes.fromhex(digits),
    "complex": lambda parts, depth: complex(*_decode_all(parts, depth)),
}


def describe(error: BaseException) -> dict[str, str]:
    """The class and message of an error, as data."""
    try:
        message = str(error)[:500]
    except BaseException:  # noqa: BLE001 - the class may be anybody's
        message = ""
    return {"type": str(type(error).__name__), "message": message}
