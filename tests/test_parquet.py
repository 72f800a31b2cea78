"""Parquet tables written row by row: nothing is lost, whatever columns the rows have, and memory stays flat."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

pa = pytest.importorskip("pyarrow")

from rlaif_sdk import DataError  # noqa: E402
from rlaif_sdk.records import read_records, write_records  # noqa: E402
from tests.little_room import little_room  # noqa: E402

ROWS = 20_000


def ragged() -> Iterator[dict[str, Any]]:
    """Columns and types that come and go, in the middle of a chunk and between chunks."""
    for row in range(ROWS):
        record: dict[str, Any] = {"n": row if row % 2 or row < 9000 else row + 0.5, "empty": {}}
        if 3000 < row < 12_000:
            record["late"] = {"deep": [row]}
        if row > 15_000:
            record["late"] = {"deep": [], "other": "text"}
        if row == 17_777:
            record["once"] = True
        yield record


def test_no_column_and_no_row_is_lost(tmp_path: Path) -> None:
    """A column that begins in the middle is null before it; a number keeps its value."""
    path = tmp_path / "table.parquet"
    with write_records(path) as writer:
        for record in ragged():
            writer.write(record)
    found = list(read_records(path))
    assert len(found) == ROWS
    for row, wanted in zip(found, ragged(), strict=True):
        late = wanted.get("late")
        assert row["n"] == wanted["n"]
        assert row["empty"] is None
        assert row["late"] == (None if late is None else {"deep": late["deep"], "other": late.get("other")})
        assert row["once"] == wanted.get("once")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    """Rows wait in a file beside the table, and are copied a row group at a time."""
    taken = []
    text = "a word " * 150

    def write(rows: int) -> None:
        pool = pa.system_memory_pool()
        before = pa.default_memory_pool()
        pa.set_memory_pool(pool)
        base = pool.max_memory()
        try:
            with write_records(tmp_path / f"{rows}.parquet") as writer:
                for row in range(rows):
                    writer.write({"row": row, "text": f"{text}{row}"})
        finally:
            pa.set_memory_pool(before)
        taken.append((base, pool.max_memory()))

    write(50_000)
    write(150_000)
    (_, few), (_, many) = taken
    assert few > 1 << 20
    assert many < 1.5 * few


def test_a_table_without_rows_is_a_table(tmp_path: Path) -> None:
    """It has no columns."""
    with write_records(tmp_path / "none.parquet"):
        pass
    assert list(read_records(tmp_path / "none.parquet")) == []


def test_what_an_earlier_run_left_is_not_taken_for_this_one_s(tmp_path: Path) -> None:
    """The rows of a run that was killed are removed."""
    left = tmp_path / ".table.parquet.partial.rows"
    left.mkdir()
    (left / "0.arrow").write_bytes(b"torn")
    with write_records(tmp_path / "table.parquet") as writer:
        writer.write({"a": 1})
    assert list(read_records(tmp_path / "table.parquet")) == [{"a": 1}]
    assert [file.name for file in tmp_path.iterdir()] == ["table.parquet"]


def write_all(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with write_records(path) as writer:
        for row in rows:
            writer.write(row)


def refused(path: Path, rows: Iterable[dict[str, Any]]) -> DataError:
    with pytest.raises(DataError, match="Parquet cannot hold the rows") as caught:
        write_all(path, rows)
    assert not path.exists()
    assert caught.value.file == str(path)
    return caught.value


def rows_left(folder: Path) -> list[dict[str, Any]]:
    """What lies under the names that an error's notes give, in the table's order."""
    found: list[dict[str, Any]] = []
    partial = folder / ".table.parquet.partial"
    if partial.exists():
        found += read_records(partial.rename(folder / "kept.parquet"))
    apart = folder / ".table.parquet.partial.jsonl"
    return [*found, *read_records(apart)] if apart.exists() else found


@pytest.mark.parametrize("numbers", [3, 6000])
@pytest.mark.parametrize("odd", ["text", [1]])
def test_no_row_is_lost_with_those_that_parquet_cannot_hold(tmp_path: Path, numbers: int, odd: Any) -> None:
    """Nor when the odd row comes long after the first ones are out of memory; the notes name both files."""
    rows: list[dict[str, Any]] = [{"a": row, "b": {"c": [row]}} for row in range(numbers)] + [{"a": odd, "b": None}]
    error = refused(tmp_path / "table.parquet", rows)
    assert error.row == numbers + 1
    assert "'a'" in str(error)
    left = {str(file) for file in tmp_path.iterdir()}
    assert len(left) == (1 if numbers < 4096 else 2)
    assert all(file in error.__notes__[0] for file in left)
    assert rows_left(tmp_path) == rows


def test_kinds_that_differ_from_chunk_to_chunk_lose_no_row(tmp_path: Path) -> None:
    """Each chunk is a table, and they are none together."""
    rows: list[dict[str, Any]] = [{"a": row} for row in range(5000)] + [{"a": {"b": 1}}] * 5000
    rows[4096:5000] = []
    error = refused(tmp_path / "table.parquet", rows)
    assert "rows from 4097 to 8192" in str(error)
    assert rows_left(tmp_path) == rows[:8192]


@pytest.mark.parametrize("odd", [2**70, "\ud800", {"deep": ["\ud800"]}], ids=["large", "surrogate", "deep"])
def test_a_value_that_no_column_holds_is_named_by_its_row(tmp_path: Path, odd: Any) -> None:
    """Arrow refuses some with Python's own errors; they are none of a run's business."""
    rows = [{"a": None, "n": 1}] * 3 + [{"a": odd, "n": 2}] + [{"a": None, "n": 3}] * 5
    error = refused(tmp_path / "table.parquet", rows)
    assert str(error).startswith(f"{tmp_path / 'table.parquet'}:4: ")
    assert "column 'a'" in str(error)
    assert rows_left(tmp_path) == rows


@pytest.mark.parametrize("first", [2**53 + 1, 1.5])
def test_a_number_that_is_no_double_beside_fractions_loses_no_row(tmp_path: Path, first: float) -> None:
    """Whether it comes before them, when it is found at the end, or after them."""
    then = 1.5 if first != 1.5 else 2**53 + 1
    rows = [{"a": first, "b": row} for row in range(4096)] + [{"a": then, "b": row} for row in range(3)]
    error = refused(tmp_path / "table.parquet", rows)
    assert "column 'a'" in str(error)
    assert rows_left(tmp_path) == rows


def test_where_a_copy_has_no_room_the_rows_stay_in_the_streams(tmp_path: Path) -> None:
    """On a full disk nothing is removed that is nowhere else, and a torn stream gives what it holds whole."""
    texts = random.Random(0)
    rows = [{"a": texts.randbytes(50).hex()} for _ in range(3 * 4096)]
    with pytest.raises(OSError, match="File too large") as caught, little_room(700_000):
        write_all(tmp_path / "table.parquet", rows)
    folder = tmp_path / ".table.parquet.partial.rows"
    assert str(folder) in caught.value.__notes__[0]
    found: list[dict[str, Any]] = []
    for file in sorted(folder.iterdir()):
        with pa.ipc.open_stream(file) as stream:
            try:
                for batch in stream:
                    found += batch.to_pylist()
            except (OSError, pa.ArrowInvalid):
                continue
    written = len(found)
    assert written in (4096, 8192)
    assert found == rows[:written]
    assert [file.name for file in tmp_path.iterdir()] == [folder.name]
