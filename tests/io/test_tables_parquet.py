"""Parquet tables written row by row: nothing is lost, whatever columns the rows have, and memory stays flat."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

pa = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")

from rlaif_sdk import DataError  # noqa: E402
from rlaif_sdk.io.tables import read_rows, write_rows  # noqa: E402
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
    """A column that begins in the middle is null before it, a number keeps its value, and objects their own keys."""
    path = tmp_path / "table.parquet"
    with write_rows(path) as writer:
        for record in ragged():
            writer.write(record)
    found = list(read_rows(path))
    assert len(found) == ROWS
    for row, wanted in zip(found, ragged(), strict=True):
        assert row == {"late": None, "once": None, **wanted}
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
            with write_rows(tmp_path / f"{rows}.parquet") as writer:
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
    with write_rows(tmp_path / "none.parquet"):
        pass
    assert list(read_rows(tmp_path / "none.parquet")) == []


def write_all(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with write_rows(path) as writer:
        for row in rows:
            writer.write(row)


@pytest.mark.parametrize("numbers", [3, 6000])
@pytest.mark.parametrize("odd", ["text", [1], {"b": 1}, 2**70, "half \ud83d"])
def test_a_column_of_several_kinds_comes_back_as_it_was_written(tmp_path: Path, numbers: int, odd: Any) -> None:
    """It travels as JSON text, also where the odd row comes long after the first ones are out of memory."""
    rows: list[dict[str, Any]] = [{"a": row, "b": {"c": [row]}} for row in range(numbers)] + [{"a": odd, "b": None}]
    write_all(tmp_path / "table.parquet", rows)
    assert list(read_rows(tmp_path / "table.parquet")) == rows


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}, lambda value: [{"a": [value]}]])
@pytest.mark.parametrize("depth", [20, 33, 300])
def test_what_nests_deeper_than_its_form_takes_comes_back(tmp_path: Path, suffix: str, wrap: Any, depth: int) -> None:
    """Parquet and Arrow each end at a depth of their own, which was found when all rows had been paid for."""
    deep: Any = 1
    for _ in range(depth):
        deep = wrap(deep)
    rows = [{"id": 1, "x": deep}, {"id": 2, "x": deep}]
    path = tmp_path / f"table{suffix}"
    with write_rows(path) as writer:
        for row in rows:
            writer.write(row)
    assert list(read_rows(path)) == rows


def test_pyarrow_pandas_and_datasets_read_such_a_file(tmp_path: Path) -> None:
    """To them the column is JSON text, or what they make of it."""
    path = tmp_path / "table.parquet"
    write_all(path, [{"a": 1, "n": 1}, {"a": "text", "n": 2}])
    assert pa.parquet.read_table(path).column("a").to_pylist() == ["1", '"text"']
    pandas, datasets = pytest.importorskip("pandas"), pytest.importorskip("datasets")
    assert pandas.read_parquet(path)["n"].tolist() == [1, 2]
    assert datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))["a"][:] == [1, "text"]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, suffix: str) -> None:
    """Arrow allows them, after a join say; the second stood in place of the first, in silence."""
    from pyarrow import parquet

    table = pa.table([["q"], ["a"], ["b"]], names=["prompt", "completion", "completion"])
    file = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        parquet.write_table(table, file)
    else:
        with pa.OSFile(str(file), "wb") as opened, pa.ipc.new_file(opened, table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(DataError, match=r"has two columns 'completion'"):
        list(read_rows(file))


@pytest.mark.parametrize("first", [2**53 + 1, 1.5])
def test_a_whole_number_that_is_no_double_beside_fractions_keeps_its_digits(tmp_path: Path, first: float) -> None:
    """Whether it comes before them or after them."""
    then = 1.5 if first != 1.5 else 2**53 + 1
    rows = [{"a": first, "b": row} for row in range(4096)] + [{"a": then, "b": row} for row in range(3)]
    write_all(tmp_path / "table.parquet", rows)
    assert list(read_rows(tmp_path / "table.parquet")) == rows


def test_whole_numbers_among_fractions_are_doubles(tmp_path: Path) -> None:
    """A column of scores stays one of numbers for everybody who reads it."""
    write_all(tmp_path / "table.parquet", [{"a": 1}, {"a": 0.5}])
    assert str(pa.parquet.read_schema(tmp_path / "table.parquet").field("a").type) == "double"


@pytest.mark.parametrize("odd", [{1, 2}, object(), {"deep": [object()]}], ids=["set", "object", "deep"])
def test_what_no_table_holds_is_named_by_its_row_and_the_others_are_kept(tmp_path: Path, odd: Any) -> None:
    """No file of the name appears; the notes name the one with the rows until then."""
    rows = [{"a": None, "n": 1}] * 3
    with pytest.raises(DataError, match="is no value of a table") as caught:
        write_all(tmp_path / "table.parquet", [*rows, {"a": odd, "n": 2}])
    assert caught.value.row == 4
    [kept] = tmp_path.iterdir()
    assert str(kept) in caught.value.__notes__[0]
    assert list(read_rows(kept)) == rows


def test_on_a_full_disk_the_rows_stay(tmp_path: Path) -> None:
    """As many whole ones as there was room for, in a file that the notes name."""
    texts = random.Random(0)
    rows = [{"a": texts.randbytes(50).hex()} for _ in range(3 * 4096)]
    with pytest.raises(OSError, match="File too large") as caught, little_room(700_000):
        write_all(tmp_path / "table.parquet", rows)
    [kept] = tmp_path.iterdir()
    assert str(kept) in caught.value.__notes__[0]
    found = list(read_rows(kept))
    assert 3000 < len(found) < len(rows)
    assert found == rows[: len(found)]
