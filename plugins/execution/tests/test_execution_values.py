"""How values cross the wall of the sandbox, and what comes back from the other side."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_execution.compare import same_output, same_value
from rlaif_execution.inside import wire
from rlaif_execution.inside.program import assembled, code_blocks

keys = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text())
plain = st.recursive(
    keys | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False) | st.sets(keys) | st.frozensets(keys),
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner, inner),
    max_leaves=20,
)
kinds = st.sampled_from(["int", "float", "dict", "tuple", "set", "frozenset", "bytes", "complex", "other"])
forged = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(kinds, inner, max_size=2),
    max_leaves=20,
)


@given(plain)
def test_plain_data_crosses_in_its_exact_types(value: Any) -> None:
    """A tuple stays a tuple, a whole number of any size itself, and infinity infinity."""
    back = wire.decode(json.loads(json.dumps(wire.encode(value))))
    assert repr(_ordered(back)) == repr(_ordered(value))


@given(forged)
def test_whatever_comes_back_is_a_value_or_is_refused(message: Any) -> None:
    """No message raises anything else; what it holds can be compared, and sent on."""
    try:
        value = wire.decode(message)
    except wire.WireError:
        return
    wire.encode(value)
    for expected in (1, 0.5, "a", None, [1], {"a": 1}, {1: 2}, True, {1}):
        assert same_value(value, expected, 1e-6) in {True, False}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b"\xff", b"[" * 100_000, b'{"a": ' * 100_000, b"9" * 5000])
def test_a_body_that_is_no_object_is_no_message(body: bytes) -> None:
    """Nor does it overflow the stack of the one who reads it."""
    with pytest.raises(wire.WireError):
        wire.unpack(body)


def test_a_value_that_nests_deeper_than_any_that_is_sent_is_refused() -> None:
    """Otherwise a forged one could not be sent on, and would be blamed on the tests that it is sent to."""
    deep: Any = 1
    for _ in range(150):
        deep = [deep]
    with pytest.raises(wire.WireError, match="nested"):
        wire.decode(deep)


@pytest.mark.parametrize("value", [object(), int, len, iter([]), [1, {2: object()}], range(3), ...])
def test_what_is_no_plain_data_does_not_cross(value: Any) -> None:
    """Objects have behaviour, and that stays inside."""
    with pytest.raises(wire.WireError, match="no plain data"):
        wire.encode(value)


@given(plain)
def test_a_value_is_the_same_as_itself(value: Any) -> None:
    """With any tolerance."""
    assert same_value(value, value, 0.0)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (10**400, 1.5),
        (1.5, 10**400),
        (10**9, 10**9 + 0.5),
        (10**9 + 1, 10**9),
        (3, 3.0000001),
        ([1, 10**15 + 1], [1, 10**15]),
        ({"a": -(10**9)}, {"a": 1 - 10**9}),
        (2**53 + 1, float(2**53)),
        (True, 1.0000001),
        (math.nan, 1.0),
        (math.inf, -math.inf),
        (1, "1"),
        ([], ()[:0] or None),
        ({}, []),
    ],
)
def test_different_values_are_told_apart(got: Any, expected: Any) -> None:
    """Numbers beyond every float included."""
    assert not same_value(got, expected, 1e-6)


@pytest.mark.parametrize("line", ["`" * 50_000 + " " * 50_000 + "`", " " * 100_000 + "```" + " " * 100_000 + "`"])
def test_a_line_that_is_nearly_a_fence_takes_no_time(line: str) -> None:
    """A pattern that goes back over it would take hours."""
    assert code_blocks(line) == []


@given(st.text(alphabet="`~a \n", max_size=60))
def test_any_text_has_blocks_of_its_own_lines(text: str) -> None:
    """Fences in fences, open ones and none; of an indented one, the lines are shorter than in the text."""
    for found in code_blocks(text):
        if re.search(r"(?m)^ +[`~]", text):
            assert all(line in text for line in found.split("\n"))
        else:
            assert found in text


FRAGMENTS = ["def f(n): return g(n) + K", "def g(n): return n", "K = 1", "print(f(2))", "assert f(1) == 2", "x = f(3)"]
BROKEN = ["def f(n): return", "if x:\n  print(1)\nelse", ">>> f(2)", "f = f", "import f_of_another", "class g: pass"]


@given(st.lists(st.sampled_from([*FRAGMENTS, *BROKEN]), min_size=1, max_size=6))
def test_blocks_around_the_function_never_change_which_function_is_run(blocks: list[str]) -> None:
    """The main block is one of them as it stands; what is added defines names, and calls nothing."""
    needed, main = assembled(blocks, "f")
    assert main in blocks
    assert "f(" not in needed.replace("def f(", "")
    if FRAGMENTS[0] in blocks and "def f(n): return" not in blocks:
        assert main == FRAGMENTS[0]


def _ordered(value: Any) -> Any:
    """The same with sets as sorted lists, whose order is not theirs to keep."""
    if isinstance(value, (set, frozenset)):
        return type(value).__name__, sorted(map(repr, value))
    if isinstance(value, dict):
        return [(repr(key), _ordered(entry)) for key, entry in value.items()]
    return type(value)(map(_ordered, value)) if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_only_line_ends_end_lines(separator: str) -> None:
    """Other separators of `str.splitlines` are characters of the line, also at its end."""
    assert not same_output(f"a{separator}b", "a\nb")
    assert not same_output(f"a{separator}", "a")
    assert same_output(f"a{separator}b\n", f"a{separator}b")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_is_one(end: str) -> None:
    """And white space before it does not count."""
    assert same_output(f"a \t{end}{end}b{end}{end}", "a\n\nb")
