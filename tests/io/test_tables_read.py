"""Tables of every form are read as they were written, and what is no table is refused in a line."""

from __future__ import annotations

import io
import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from rlaif_sdk import DataError
from rlaif_sdk.io.tables import read_rows, survey, write_table

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=12,
)
TABLES = st.lists(st.dictionaries(st.sampled_from(["a", "b", "é", ""]), JSON_VALUES, max_size=3), max_size=8)


def same(one: Any, other: Any) -> bool:
    """Equal with their types, keys and the order of these: 1, 1.0 and True are three values."""
    return json.dumps(one) == json.dumps(other)


def write_text(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(source: Any, **how: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        list(read_rows(source, **how))
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "json"])
@given(TABLES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_whatever_json_rows_hold_comes_out_as_it_went_in(tmp_path: Path, suffix: str, rows: list[Any]) -> None:
    """Keys, their order, types, every digit, half characters."""
    write_table(rows, tmp_path / f"table.{suffix}")
    assert same(list(read_rows(tmp_path / f"table.{suffix}")), rows)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@given(TABLES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_columns_hold_whatever_json_rows_hold(tmp_path: Path, suffix: str, rows: list[Any]) -> None:
    """But for a key that is missing, which is null, and whole numbers among fractions, which are doubles of their value."""
    pytest.importorskip("pyarrow")
    names = list(dict.fromkeys(name for row in rows for name in row))
    assume(names)  # a table without columns has no rows
    write_table(rows, tmp_path / f"table.{suffix}")
    found = list(read_rows(tmp_path / f"table.{suffix}"))
    assert found == [{name: row.get(name) for name in names} for row in rows]


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"a": 1}, {"a": 1, "chosen_prob": 0.1}),
        ({"a": {}}, {"a": {"b": 1}}),
        ({"a": []}, {"a": [{"b": 1}]}),
        ({"a": None}, {"a": "late"}),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_the_first_row_says_nothing_of_the_others(tmp_path: Path, suffix: str, first: Any, then: Any) -> None:
    """A column, a key or a type that begins later is there."""
    write_table([first, then], tmp_path / f"table.{suffix}")
    assert list(read_rows(tmp_path / f"table.{suffix}"))[1] == then


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_byte_order_mark_and_ends_of_lines_are_no_content(tmp_path: Path, suffix: str, end: str) -> None:
    """As Windows writes them, with blank lines and none at the end."""
    text = f"a{end}x" if suffix == "csv" else f'{{"a": "x"}}{end}{end}'
    path = write_text(tmp_path / f"t.{suffix}", b"\xef\xbb\xbf" + text.encode())
    assert list(read_rows(path)) == [{"a": "x"}]


@pytest.mark.parametrize(
    ("text", "problem", "row"),
    [
        ('{"a": 1}\n{"a": 1,}\n', "no valid JSON", 2),
        ('{"a": 1\n', "Expecting ',' delimiter at column 8", 1),
        ('{"a": [1\r\n{"a": 2}\n', "Expecting ',' delimiter at column 9", 1),
        ('{"a": {}  \n', "Expecting ',' delimiter at column 9", 1),
        ('{"a": 1}\n{"a": 1} {"a": 2}\n', "stands after the value", 2),
        ('{"a": 1}\n{"a": {"b": 1, "b": 2}}\n', "'b' stands twice", 2),
        ('{"a": 1}\n[1]\n', "a list where", 2),
        ("\0\0\0\n", "no valid JSON", 1),
        (f'{{"a": {"1" * 5000}}}', "no valid JSON: Exceeds the limit", 1),
        ("[" * 100_000, "too deeply nested", 1),
        (b'{"a": "\xff"}\n', "is not UTF-8", 1),
        ('{"a": 1}\n'.encode("utf-16"), "UTF-16", None),
        ('{\n  "a": 1\n}\n', "no valid JSON", 1),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, text: str | bytes, problem: str, row: int | None) -> None:
    """By file and line, in one line."""
    error = refusal(write_text(tmp_path / "t.jsonl", text))
    assert problem in str(error)
    assert (error.row, error.file) == (row, str(tmp_path / "t.jsonl"))


@pytest.mark.parametrize(
    ("text", "problem", "row"),
    [
        ('[{"a": 1}, {"a": 1,}]', "no valid JSON", 2),
        ('[{"a": 1}, 2]', "a int where", 2),
        ('[{"a": 1} {"a": 2}]', "'{' where ',' is wanted", 1),
        ('[{"a": 1}', "ends too soon", 1),
        ('[{"a": 1}] 7', "after the array", None),
        ('[{"a": "unfinished]', "no valid JSON", 1),
    ],
)
def test_an_element_of_an_array_that_is_no_row_is_named(tmp_path: Path, text: str, problem: str, row: int) -> None:
    """By its number."""
    error = refusal(write_text(tmp_path / "t.json", text))
    assert problem in str(error)
    assert error.row == row


def test_an_array_is_read_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values, escapes and characters may be cut by the end of what is read at once."""
    from rlaif_sdk.io import jsonl

    rows = [{"a": 'é\ud83d\u2028"\\', "b": [1.5, True, None, -12e-3], "c": {"d": "x" * row}} for row in range(40)]
    write_table(rows, tmp_path / "t.json")
    for size in (1, 2, 7, 64):
        monkeypatch.setattr(jsonl, "_CHUNK", size)
        assert list(read_rows(tmp_path / "t.json")) == rows


def test_csv_is_text_and_nothing_is_guessed(tmp_path: Path) -> None:
    """Leading zeros, dates, JSON and long cells with line breaks stay as they stand."""
    long = "x\ny" * 100_000
    path = write_text(tmp_path / "t.csv", f'id,n,j,t\n007,1.50,"[""a""]","{long}"\n,,,\n')
    assert list(read_rows(path)) == [
        {"id": "007", "n": "1.50", "j": '["a"]', "t": long},
        {"id": "", "n": "", "j": "", "t": ""},
    ]


@pytest.mark.parametrize(
    ("text", "problem", "row"),
    [("a,b\n1\n", "1 cells", 2), ("a,b\n1,2,3\n", "3 cells", 2), ("a,a\n1,2\n", "twice", 1), ('a\n"1\n', "CSV", 2)],
)
def test_a_ragged_line_of_csv_is_named(tmp_path: Path, text: str, problem: str, row: int) -> None:
    """No cell is dropped or moved under another name."""
    error = refusal(write_text(tmp_path / "t.csv", text))
    assert problem in str(error)
    assert error.row == row


def test_csv_is_written_with_all_columns(tmp_path: Path) -> None:
    """Text as it is, nothing for null, JSON for all else."""
    write_table([{"a": "x,\n"}, {"a": None, "b": {"c": [1]}}], tmp_path / "t.csv")
    assert list(read_rows(tmp_path / "t.csv")) == [{"a": "x,\n", "b": ""}, {"a": "", "b": '{"c": [1]}'}]


def odd_files(folder: Path) -> dict[str, str]:
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "folder.jsonl").mkdir()
    listening = socket.socket(socket.AF_UNIX)
    os.chdir(folder)
    listening.bind("socket.jsonl")
    listening.close()
    return {
        "pipe.jsonl": "is a pipe",
        "folder.jsonl": "folder without a table",
        "socket.jsonl": "is a socket",
        "/dev/zero": "is a device",
        "missing.jsonl": "no such file",
        "org/name": "needs its split",
        "pipe.jsonl/x.jsonl": "cannot be read",
        "nul\0.jsonl": "cannot be read",
    }


def test_what_is_no_file_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe, a device, a socket, a folder: nobody waits, and nobody sees a traceback."""
    monkeypatch.chdir(tmp_path)
    for name, problem in odd_files(tmp_path).items():
        error = refusal(name)
        assert problem in str(error), name


@pytest.mark.parametrize("suffix", ["jsonl.gz", "parquet", "arrow", "json", "csv"])
def test_a_damaged_file_is_refused_or_read(tmp_path: Path, suffix: str) -> None:
    """Bits that flip, parts that are lost or overwritten: nothing but rows or a line that names it, and no crash."""
    rows = [{"prompt": f"p{n}", "completion": "x" * n, "n": n, "f": n / 3, "l": [n, {"a": str(n)}]} for n in range(60)]
    write_table(rows, tmp_path / f"whole.{suffix}")
    whole, draw = (tmp_path / f"whole.{suffix}").read_bytes(), random.Random(1)
    read, told = 0, []
    for number in range(250):
        damaged = bytearray(whole)
        for _ in range(draw.choice([1, 1, 2, 8])):
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        place = draw.randrange(len(damaged))
        if number % 10 == 0:
            del damaged[place:]
        if number % 10 == 1:
            damaged[place : place + draw.randrange(9)] = b"\xff" * draw.randrange(20)
        try:
            read += bool(list(read_rows(write_text(tmp_path / f"{number}.{suffix}", bytes(damaged)))))
        except DataError as error:
            told.append(str(error))
            told[-1] = told[-1] if f"{number}.{suffix}" in told[-1] else f"unnamed: {told[-1]}"
    assert [line for line in told if "\n" in line or line.startswith("unnamed")] == []
    assert len(told) > 50
    assert read + len(told) > 240


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    """Nor has one of blank lines, of a header, or an empty array; `survey` refuses each by name."""
    for name, text in (("a.jsonl", ""), ("b.jsonl", "\n \n"), ("c.csv", "a,b\n"), ("d.json", "[]"), ("e.csv", "")):
        path = write_text(tmp_path / name, text)
        assert list(read_rows(path)) == []
        with pytest.raises(DataError, match=f"{name}: has no rows"):
            survey(path)


def test_a_folder_is_read_part_by_part(tmp_path: Path) -> None:
    """As Spark and datasets write it: what begins with an underscore or a dot is none of the data."""
    for part in (2, 1):
        write_table([{"n": part}], tmp_path / f"part-{part:05d}.jsonl")
    for name in ("_SUCCESS", "_job.jsonl", ".part-00001.jsonl.crc", "README.md"):
        write_text(tmp_path / name, "not a row")
    assert list(read_rows(tmp_path)) == [{"n": 1}, {"n": 2}]


def test_of_the_folder_of_a_job_only_its_table_is_read(tmp_path: Path) -> None:
    """`rlaif eval labels labels` reads the labels: the journal's lines and the summary's counts are no rows of them."""
    write_table([{"prompt": "p"}], tmp_path / "labels.jsonl")
    (tmp_path / "__job__").mkdir()
    for name in ("journal.jsonl", "failures.jsonl", "summary.json"):
        write_text(tmp_path / "__job__" / name, '{"row": 0}\n')
    assert list(read_rows(tmp_path)) == [{"prompt": "p"}]


def test_of_a_folder_with_splits_one_is_named(tmp_path: Path) -> None:
    """Rows to train on are not mixed with those to test on."""
    write_table([{"n": 1}], tmp_path / "train-00000-of-00001.jsonl")
    write_table([{"n": 2}], tmp_path / "test.jsonl")
    assert "parts of test, train" in str(refusal(tmp_path))
    assert list(read_rows(tmp_path, split="train")) == [{"n": 1}]
    assert "no part of the split 'validation', only of test, train" in str(refusal(tmp_path, split="validation"))


def test_objects_of_other_libraries_are_read(tmp_path: Path) -> None:
    """A data set, a streamed one, a DataFrame, rows; a mapping of splits needs the one that is wanted."""
    datasets, pandas = pytest.importorskip("datasets"), pytest.importorskip("pandas")
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
    whole = datasets.Dataset.from_list(rows)
    assert list(read_rows(whole)) == rows
    assert list(read_rows(whole.to_iterable_dataset())) == rows
    assert list(read_rows(whole.with_format("numpy"))) == rows
    assert list(read_rows(pandas.DataFrame(rows))) == rows
    assert list(read_rows(iter(rows))) == rows
    splits = datasets.DatasetDict({"train": whole, "test": whole.select([0])})
    assert "train, test" in str(refusal(splits))
    assert "train, test" in str(refusal(splits, split="dev"))
    assert list(read_rows(splits, split="test")) == rows[:1]
    assert refusal([{"a": 1}, 7]).row == 2


def test_a_frame_keeps_what_it_has_and_lacks(tmp_path: Path) -> None:
    """Python's own numbers and times; what is missing is None, but for NaN in a column of numbers, which may be meant."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "i": [1, 2],
            "f": [1.5, float("nan")],
            "s": ["x", None],
            "o": [{"a": 1}, float("nan")],
            "t": pandas.to_datetime(["2024-01-02", None]),
            "n": pandas.array([1, None], dtype="Int64"),
        }
    )
    first, second = read_rows(frame)
    assert type(first["i"]) is int
    assert first == {"i": 1, "f": 1.5, "s": "x", "o": {"a": 1}, "t": frame["t"][0], "n": 1}
    assert second.pop("f") != 1.5
    assert second == {"i": 2, "s": None, "o": None, "t": None, "n": None}


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet", "arrow", "jsonl.gz", "csv"])
def test_standard_input_may_be_any_of_these(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first bytes say which, and it can be read twice."""
    if form in {"parquet", "arrow"}:
        pytest.importorskip("pyarrow")
    rows = [{"a": "1"}, {"a": "2"}]
    write_table(rows, tmp_path / f"t.{form}")

    class Input:
        buffer = io.BytesIO((tmp_path / f"t.{form}").read_bytes())

    monkeypatch.setattr(sys, "stdin", Input)
    assert survey("-").rows == 2
    assert list(read_rows("-")) == rows


def test_reading_and_writing_do_not_grow_with_the_table(tmp_path: Path) -> None:
    """A hundred thousand rows take no more memory than ten thousand, as lines and as an array."""
    script = """
import sys
from pathlib import Path
from rlaif_sdk.io.tables import read_rows, survey, write_table
folder, rows = Path(sys.argv[1]), int(sys.argv[2])
write_table(({"n": n, "text": "x" * 1000} for n in range(rows)), folder / "a.jsonl")
survey(folder / "a.jsonl", output=folder / "b.json")
write_table(read_rows(folder / "a.jsonl"), folder / "b.json")
assert sum(1 for _ in read_rows(folder / "b.json")) == rows
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""
    few, many = (
        int(subprocess.run([sys.executable, "-c", script, tmp_path, rows], check=True, capture_output=True).stdout)
        for rows in ("10000", "100000")
    )
    assert many < few * 1.2
