"""Parquet tables written row by row: nothing is lost, whatever columns the rows have, and memory stays flat."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pa = pytest.importorskip("pyarrow")

from rlaif_sdk.records import read_records, write_records  # noqa: E402

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
