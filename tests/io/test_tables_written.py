"""Tables are written whole or not at all, and nothing that was written is lost."""

from __future__ import annotations

import errno
import gc
import sys
from pathlib import Path
from typing import Any

import pytest

from rlaif_sdk import DataError, MissingExtraError
from rlaif_sdk.io.tables import check_writable, read_rows, write_rows
from tests.little_room import little_room

ROWS = [{"row": number, "text": "word " * 50} for number in range(100)]


def write_all(path: Path, rows: list[dict[str, Any]]) -> None:
    with write_rows(path) as writer:
        for row in rows:
            writer.write(row)
        assert not path.exists()


def write_and_fail(path: Path) -> None:
    """Write 40 rows of a hundred."""
    with write_rows(path) as writer:
        for row in ROWS[:40]:
            writer.write(row)
        raise ValueError("in the middle")


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "jsonl.gz", "json", "parquet", "arrow", "feather"])
def test_rows_come_back_as_they_were_written(tmp_path: Path, suffix: str) -> None:
    """The file has its name only when it is whole."""
    path = tmp_path / f"table.{suffix}"
    write_all(path, ROWS)
    assert list(read_rows(path)) == ROWS
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_an_error_on_the_way_closes_the_file_and_keeps_what_was_written(tmp_path: Path, suffix: str) -> None:
    """The rows until then are readable in a file that the error names, and no file is left open."""
    path = tmp_path / f"table.{suffix}"
    path.write_text("older")
    with pytest.raises(ValueError, match="in the middle") as caught:
        write_and_fail(path)
    kept = tmp_path / (".table.jsonl.partial" if suffix == "jsonl" else f".table.{suffix}.partial.jsonl")
    assert str(kept) in caught.value.__notes__[0]
    assert path.read_text() == "older"
    gc.collect()  # a file that is still open would warn, which is an error here
    readable = kept.rename(tmp_path / "kept.jsonl")
    assert list(read_rows(readable)) == ROWS[:40]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "jsonl.gz"])
@pytest.mark.parametrize("device", ["/dev/full", "/dev/null"])
def test_an_error_while_a_device_is_written_ends_as_it_is(tmp_path: Path, suffix: str, device: str) -> None:
    """What a device took is not looked for: reading it may never end, and it is not removed."""
    path = tmp_path / f"table.{suffix}"
    path.symlink_to(device)
    with pytest.raises((ValueError, OSError)) as caught:
        write_and_fail(path)
    assert isinstance(caught.value, ValueError) or caught.value.errno == errno.ENOSPC
    assert Path(device).is_char_device()
    assert path.is_symlink()


def test_an_error_before_the_first_row_leaves_nothing_behind(tmp_path: Path) -> None:
    """An empty file would be no use, and a note about it would mislead."""
    with pytest.raises(ValueError, match="at once") as caught, write_rows(tmp_path / "table.jsonl"):
        raise ValueError("at once")
    assert not getattr(caught.value, "__notes__", [])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_whole_rows_and_says_how_many(tmp_path: Path) -> None:
    """Closing the file fails again, and the line that has no room for its end is cut off."""
    with pytest.raises(OSError, match="File too large") as caught, little_room(12_000):
        write_all(tmp_path / "table.jsonl", ROWS)
    [kept] = tmp_path.iterdir()
    [note] = caught.value.__notes__
    found = list(read_rows(kept.rename(tmp_path / "kept.jsonl")))
    assert f"{kept} ({len(found)} of " in note
    assert 30 < len(found) < 60
    assert found == ROWS[: len(found)]


def test_half_a_character_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """UTF-8 cannot hold a lone surrogate, and JSON's escape can."""
    rows = [{"text": "cut \ud83d, 日本"}]
    write_all(tmp_path / "table.jsonl", rows)
    assert list(read_rows(tmp_path / "table.jsonl")) == rows


def test_what_cannot_be_written_is_known_before_any_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another suffix, or Parquet without pyarrow."""
    with pytest.raises(DataError, match="says no form of table"):
        check_writable(tmp_path / "table.txt")
    check_writable(tmp_path / "table.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    check_writable(tmp_path / "table.jsonl")
    with pytest.raises(MissingExtraError, match=r"rlaif-sdk\[parquet\]"):
        check_writable(tmp_path / "table.parquet")
