"""Rows for a check are those of the data set that trainers get, without its library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("datasets")

from rlaif_sdk import DataError
from rlaif_sdk.io.arrow import to_dataset
from rlaif_sdk.io.digests import rows_digest
from rlaif_sdk.io.tables import PlainTable, open_dataset, open_rows

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS, lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=4), inside, max_size=3)
)
ROWS = st.lists(st.dictionaries(st.sampled_from(["prompt", "b", "c"]), VALUES), min_size=1, max_size=5)


@given(ROWS)
def test_rows_columns_and_digest_are_those_of_the_data_set(rows: list[dict[str, Any]]) -> None:
    """Whatever JSON holds."""
    table, dataset = PlainTable.of(rows), to_dataset(rows)
    assert table.column_names == dataset.column_names
    if not table.column_names:
        return
    assert [*table] == [*dataset]
    assert rows_digest(table) == rows_digest(dataset)


ROW = {"prompt": "p", "x": 1, "y": [1.5], "z": None}


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.select([2, 0]),
        lambda table: table.select_columns(["y", "prompt"]),
        lambda table: table.remove_columns("x"),
        lambda table: table.remove_columns(["x", "z"]),
        lambda table: table.rename_column("x", "w"),
        lambda table: table.rename_columns({"x": "w", "y": "v"}),
    ],
)
def test_what_is_made_of_it_is_what_is_made_of_the_data_set(change: Any) -> None:
    """The columns in their order, the rows, and the values of a column."""
    rows = [{**ROW, "x": number} for number in range(3)]
    table, dataset = change(PlainTable.of(rows)), change(to_dataset(rows))
    assert table.column_names == dataset.column_names
    assert [*table] == [*dataset]
    assert len(table) == len(dataset)
    assert table[0] == dataset[0]
    assert table[table.column_names[0]] == [*dataset[dataset.column_names[0]]]


@pytest.mark.parametrize("row", [{"a\0b": 1}, {"a": object()}, {"a": ["x", float("inf")]}])
def test_what_a_data_set_refuses_is_refused_in_the_same_words(row: dict[str, Any]) -> None:
    """So that a check finds what training would."""
    said = []
    for make in (PlainTable.of, to_dataset):
        with pytest.raises(DataError) as refused:
            make([{}, row])
        said.append(str(refused.value))
    assert said[0] == said[1]


def test_a_file_is_read_plainly_and_a_data_set_stays_one(tmp_path: Path) -> None:
    """Only what the library reads itself needs it."""
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"p{number}"}) + "\n" for number in range(3)))
    assert [*open_rows(file)] == [*open_dataset(file)]
    assert isinstance(open_rows(file), PlainTable)
    dataset = to_dataset([ROW])
    assert open_rows(dataset) is dataset
