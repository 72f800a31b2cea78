"""What a form of table cannot carry is converted by one rule, or refused before any work is paid for."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from typer.testing import CliRunner

from rlaif_sdk import DataError
from rlaif_sdk.cli.main import app
from rlaif_sdk.io.tables import read_rows, survey, write_table

RULE: list[tuple[Any, Any]] = [
    (date(2024, 2, 29), "2024-02-29"),
    (datetime(2024, 2, 29, 12, 30, tzinfo=UTC), "2024-02-29T12:30:00+00:00"),
    (time(12, 30), "12:30:00"),
    (timedelta(minutes=1, milliseconds=500), 60.5),
    (Decimal("1.10"), "1.10"),
    (b"\x00\xff", "AP8="),
    (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (np.float32(0.5), 0.5),
    (np.int64(7), 7),
    (np.bool_(1), True),
    (np.array([[1, 2]]), [[1, 2]]),
    (math.nan, None),
    (np.float64("nan"), None),
    ({"deep": [math.nan, date(2024, 1, 1)]}, {"deep": [None, "2024-01-01"]}),
    ((1, 2), [1, 2]),
    (10**400, 10**400),
]
TYPED = [value for value, _ in RULE[:6]] + [None, "text", math.inf, [date(2024, 1, 1)], {"a": Decimal("2.5")}]


@pytest.mark.parametrize(("value", "text"), RULE, ids=lambda value: type(value).__name__)
def test_lines_hold_each_value_by_the_rule(tmp_path: Path, value: Any, text: Any) -> None:
    """The same in an array, and valid JSON to a strict reader."""
    for name in ("t.jsonl", "t.json"):
        write_table([{"a": value}], tmp_path / name)
        assert list(read_rows(tmp_path / name)) == [{"a": text}]
        assert "NaN" not in (tmp_path / name).read_text()


@pytest.mark.parametrize("value", TYPED, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_columns_keep_the_type(tmp_path: Path, value: Any, suffix: str) -> None:
    """What Arrow has a type for is not made text."""
    pytest.importorskip("pyarrow")
    write_table([{"a": value, "n": 1}, {"a": None, "n": 2}], tmp_path / f"t.{suffix}")
    assert list(read_rows(tmp_path / f"t.{suffix}")) == [{"a": value, "n": 1}, {"a": None, "n": 2}]


@pytest.mark.parametrize(
    "value", [math.inf, {"a": [-math.inf]}, {1, 2}, object()], ids=["inf", "deep", "set", "object"]
)
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "jsonl.gz"])
def test_what_has_no_place_is_refused_by_row_and_column(tmp_path: Path, value: Any, suffix: str) -> None:
    """`survey` finds it before the work, writing finds it in any case."""
    rows = [{"a": 1}, {"a": 2, "odd": value}]
    for find in (
        lambda: survey(rows, output=tmp_path / f"t.{suffix}"),
        lambda: write_table(rows, tmp_path / f"t.{suffix}"),
    ):
        with pytest.raises(DataError, match="'odd'") as caught:
            find()
        assert caught.value.row == 2
    assert not (tmp_path / f"t.{suffix}").exists()


COUNTED = """
from pathlib import Path
from rlaif_sdk import reward

@reward
def paid(completions):
    with Path("paid").open("a") as file:
        file.write("x" * len(completions))
    return [1.0] * len(completions)
"""


def score(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    monkeypatch.chdir(folder)
    (folder / "paid.py").write_text(COUNTED)
    (folder / "c.yaml").write_text("rewards:\n  paid:\n    use: ./paid.py:paid\n    weight: 1\n")
    return CliRunner().invoke(app, ["score", "-c", "c.yaml", *arguments])


@pytest.mark.parametrize("value", [date(2024, 1, 2), timedelta(seconds=2), b"\x00", Decimal("1.5"), math.nan])
@pytest.mark.parametrize("output", ["out.jsonl", "out.parquet", "out.csv"])
def test_a_column_that_no_reward_reads_is_carried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, output: str
) -> None:
    """Parquet in, lines out: every row is scored once, and written."""
    pytest.importorskip("pyarrow")
    write_table([{"prompt": "p", "completion": "c", "when": value}] * 2, tmp_path / "in.parquet")
    result = score(tmp_path, monkeypatch, "in.parquet", "--output", output)
    assert result.exit_code == 0, result.exception
    assert (tmp_path / "paid").read_text() == "xx"
    assert len(list(read_rows(tmp_path / output))) == 2


def test_rewards_in_parquet_have_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads the file finds numbers in it, and no JSON text."""
    parquet = pytest.importorskip("pyarrow.parquet")
    write_table([{"prompt": "p", "completion": "c"}] * 2, tmp_path / "in.jsonl")
    assert score(tmp_path, monkeypatch, "in.jsonl", "-o", "out.parquet").exit_code == 0
    found = parquet.read_table(tmp_path / "out.parquet")
    assert str(found.schema.field("reward").type.field("total").type) == "double"
    assert [row["reward"]["total"] for row in found.to_pylist()] == [1.0, 1.0]


@pytest.mark.parametrize("value", ["Infinity", "-Infinity", "1e999"])
def test_an_infinite_number_is_refused_before_anything_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """The row is named, and nothing was paid for."""
    (tmp_path / "in.jsonl").write_text(
        f'{{"prompt": "p", "completion": "c", "n": 1}}\n{{"prompt": "p", "completion": "c", "n": {value}}}\n'
    )
    result = score(tmp_path, monkeypatch, "in.jsonl")
    assert result.exit_code != 0
    assert str(result.exception).startswith("in.jsonl:2: ")
    assert not (tmp_path / "paid").exists()


def test_nan_in_lines_is_null_in_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python writes the word NaN, which no other reader of JSON takes."""
    (tmp_path / "in.jsonl").write_text('{"prompt": "p", "completion": "c", "n": NaN}\n')
    assert score(tmp_path, monkeypatch, "in.jsonl").exit_code == 0
    [row] = (json.loads(line) for line in (tmp_path / "in.scored.jsonl").read_text().splitlines())
    assert row["n"] is None


@pytest.mark.parametrize("column", ["prompt", "completion", "group"])
def test_a_row_without_a_column_is_named_with_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    """Not `row 1` of who knows what."""
    row = {name: "x" for name in ("prompt", "completion", "group") if name != column}
    write_table([row], tmp_path / "in.jsonl")
    result = score(tmp_path, monkeypatch, "in.jsonl", "--group-column", "group")
    assert result.exit_code != 0
    assert str(result.exception).startswith("in.jsonl:")
    assert f"has no column '{column}'" in str(result.exception)
