"""Digests: equal for equal values, different for others, and one door for all of them."""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rlaif_sdk
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.digests import (
    Digest,
    bytes_digest,
    code_digest,
    file_digest,
    files_digest,
    json_digest,
    object_digest,
    rows_digest,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)


def as_written(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@given(json_values, json_values)
def test_digests_are_equal_exactly_where_the_json_is(one: Any, other: Any) -> None:
    """Whatever the order of keys; NaN equals NaN, and lone surrogates count as they are."""
    assert (json_digest(one) == json_digest(other)) == (as_written(one) == as_written(other))
    assert json_digest(json.loads(as_written(one))) == json_digest(one)
    if isinstance(one, dict):
        assert json_digest(dict(reversed(one.items()))) == json_digest(one)


def test_values_of_different_types_differ() -> None:
    """1, 1.0, true and "1" are four values; so are null, "null", "", 0, [] and {}, alone and within others."""
    values = [1, 1.0, True, "1", None, "null", "", 0, -0.0, 0.0, [], {}, [1], ["1"], {"a": 1}, {"a": "1"}, {"1": "a"}]
    assert len({json_digest(value) for value in values}) == len(values)
    assert len({json_digest({"x": [value]}) for value in values}) == len(values)


def test_tuples_and_arrays_count_as_lists_and_other_objects_by_their_kind() -> None:
    """A date is not the text of one; what has no form is refused, or replaced as asked."""
    assert json_digest((1, 2)) == json_digest([1, 2]) == json_digest(np.array([1, 2]))
    assert json_digest(np.float32(0.5)) == json_digest(0.5)
    day = dt.date(2026, 1, 2)
    dates = [day, "2026-01-02", dt.datetime(2026, 1, 2, tzinfo=dt.UTC), decimal.Decimal("1.0"), "1.0", b"1.0"]
    assert len({json_digest(value) for value in dates}) == len(dates)
    with pytest.raises(TypeError, match="a object"):
        json_digest([object()])
    assert json_digest([object], default=lambda _: "x") == json_digest(["x"])


@given(st.lists(json_values, max_size=4), st.lists(json_values, max_size=4))
def test_rows_differ_where_any_row_or_their_order_does(one: list[Any], other: list[Any]) -> None:
    """Where one value ends and the next begins counts, so no two lists of rows run together."""
    assert (rows_digest(one) == rows_digest(other)) == (as_written(one) == as_written(other))


def test_a_copy_goes_its_own_way() -> None:
    """As for many rows with one beginning."""
    begun = Digest()
    begun.add("fingerprint")
    one, other = begun.copy(), begun.copy()
    one.add("a")
    other.add("b")
    assert one.bytes() != other.bytes()
    assert begun.text() == json_digest("fingerprint")
    assert len(one.bytes()) == 16


def test_a_file_has_the_digest_that_sha256sum_prints(tmp_path: Path) -> None:
    """So that anyone can check a card."""
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == bytes_digest(b"abc") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(DataError, match="cannot be read"):
        file_digest(tmp_path / "b")


def test_files_count_by_name_and_content_in_any_order(tmp_path: Path) -> None:
    """A content that moves to another name, or from the end of one file to the next one's start, is another digest."""
    contents = [{"a": b"1", "b": b"2"}, {"a": b"2", "b": b"1"}, {"a": b"12", "b": b""}, {"ab": b"12"}]
    found = set()
    for number, content in enumerate(contents):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, data in content.items():
            (folder / name).write_bytes(data)
        files = sorted(folder.iterdir())
        assert files_digest(files) == files_digest(files[::-1])
        found.add(files_digest(files))
    assert len(found) == len(contents)


def test_code_has_one_digest_in_every_process_and_what_is_bound_counts() -> None:
    """Of a class, a function, a partial, and a function in C."""
    program = (
        "from rlaif_sdk.io.digests import *; import functools, json; print(code_digest(functools.partial(max, 1)))"
    )
    found = {subprocess.check_output([sys.executable, "-c", program]) for _ in range(2)}
    assert len(found) == 1
    assert code_digest(functools.partial(max, 1)) != code_digest(functools.partial(max, 2))
    assert code_digest(Digest) == code_digest(json_digest) != code_digest(json.dumps) != ""
    assert code_digest(functools.partial(max, object())) == ""


class Made:
    """An object with attributes."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Other(Made):
    """Of the same file."""


def test_an_object_counts_by_its_class_and_attributes_at_any_depth() -> None:
    """Equal where it was made alike, and without a digest where something in it cannot be told."""
    kinds = [Made, Other]
    inside = [0, 0.0, "0", b"0", np.arange(3), [Made(a=1)], Made(a=2), Other(a=2), dt.date(2026, 1, 1)]
    digests = [object_digest(kind(inside=each)) for kind in kinds for each in inside]
    assert digests == [object_digest(kind(inside=each)) for kind in kinds for each in inside]
    assert len(set(digests)) == len(digests)
    for untold in (lambda: 0, object(), Made(deep=[max])):
        with pytest.raises(TypeError, match=r"JSON form|__dict__"):
            object_digest(Made(inside=untold))


def test_nothing_else_in_the_package_hashes_or_locks_or_compares_processes() -> None:
    """One way in for digests, locks, databases and forks: `rlaif_sdk.io`."""
    words = ("hashlib", "sqlite3.connect", "os.getpid", "register_at_fork", "filelock", ".flock(", "\nimport fcntl")
    root = Path(rlaif_sdk.__file__).parent
    texts = {file: file.read_text(encoding="utf-8") for file in root.rglob("*.py") if file.parent != root / "io"}
    assert [(str(file), word) for file, text in texts.items() for word in words if word in text] == []
