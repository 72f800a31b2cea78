"""How a table is cut, and what is found out before any of it is scored."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk import DataError
from rlaif_sdk.composer.tables import TableLayout
from rlaif_sdk.io.tables import read_rows
from rlaif_sdk.scale.score_job import inspect_shard, merge_findings
from rlaif_sdk.scale.shards import plan_shards, read_shard


def looked_over(plan, layout):
    return merge_findings((inspect_shard(plan.file, shard, layout) for shard in plan.shards), plan.file)


@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=40), rows=st.integers(1, 7), blank=st.booleans())
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_shards_have_every_row_once_in_order_and_cut_no_group(tmp_path_factory, suffix, labels, rows, blank):
    """Whatever the size, the format, blank lines or groups."""
    file = tmp_path_factory.mktemp("table") / f"t.{suffix}"
    records = [{"row": row, "g": label} for row, label in enumerate(labels)]
    if suffix == "parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(records), file, row_group_size=5)
    else:
        file.write_text(("\n\n" if blank else "\n").join(map(json.dumps, records)))
    for group in (None, "g"):
        shards = plan_shards(file, rows=rows, group=group).shards
        parts = [list(read_shard(file, shard)) for shard in shards]
        assert list(itertools.chain(*parts)) == records
        assert [shard.rows for shard in shards] == [len(part) for part in parts]
        assert [shard.first_row for shard in shards] == [part[0]["row"] + 1 for part in parts]
        assert all(len(part) >= rows for part in parts[:-1])
        if group is None:
            assert all(len(part) == rows for part in parts[:-1])
        else:
            assert all(left[-1]["g"] != right[0]["g"] for left, right in itertools.pairwise(parts))


def test_long_row_groups_are_not_read_again_for_every_few_rows(tmp_path):
    """A Parquet row group is read from its start, so it is cut into sixteen shards at most."""
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"prompt": ["p"] * 1600}), tmp_path / "t.parquet")
    assert len(plan_shards(tmp_path / "t.parquet", rows=1).shards) == 16


def test_a_bad_row_is_named_by_its_line_or_row(tmp_path):
    """Before anything is scored, whichever shard it is in."""
    file = tmp_path / "t.jsonl"
    good = json.dumps({"prompt": "p", "completion": "c"})
    file.write_text(f"{good}\n\n{good}\nnonsense\n{good}\n")
    with pytest.raises(DataError, match=r"t.jsonl:4.*JSON"):
        looked_over(plan_shards(file, rows=1), TableLayout())
    file.write_text(f'{good}\n{good}\n{{"prompt": "p"}}\n')
    with pytest.raises(DataError, match=r"t.jsonl:3.*completion"):
        looked_over(plan_shards(file, rows=2), TableLayout())
    file.write_bytes(good.encode() + b'\n{"prompt": "\xff"}\n')
    with pytest.raises(DataError, match=r"t.jsonl:2.*UTF-8"):
        looked_over(plan_shards(file, rows=2), TableLayout())


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [("t.csv", "a,b", "suffix"), ("t.jsonl", "\n\n", "no rows"), ("t.parquet", "PAR0", "no valid Parquet")],
)
def test_what_is_no_table_is_refused(tmp_path, name, content, problem):
    """Another format, nothing in it, or a broken file."""
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=problem):
        plan_shards(tmp_path / name, rows=3)
    with pytest.raises(DataError, match="no such file"):
        plan_shards(tmp_path / "missing.jsonl", rows=3)


def test_types_are_those_of_the_whole_table(table):
    """A column that is null, an integer or absent in one shard and more in another has one type in all."""
    plan = plan_shards(table(60), rows=7)
    schema = looked_over(plan, TableLayout()).columns.schema()
    assert schema.names == ["prompt", "completion", "n", "g", "late", "empty"]
    assert str(schema.field("n").type) == "double"
    assert str(schema.field("late").type) == "struct<deep: list<element: int64>>".replace("element", "item")
    assert str(schema.field("empty").type) == "extension<arrow.json>"


def test_a_column_of_several_kinds_is_json_text(tmp_path):
    """Text in one row and a number in another, be they in one shard or in two."""
    file = tmp_path / "t.jsonl"
    file.write_text("".join(json.dumps({"prompt": "p", "completion": "c", "x": x}) + "\n" for x in ("text", 1)))
    for rows in (1, 2):
        found = looked_over(plan_shards(file, rows=rows), TableLayout())
        assert str(found.columns.schema().field("x").type) == "extension<arrow.json>"


def test_groups_that_stand_apart_are_refused(tmp_path):
    """Their completions could not be scored together; the error names two rows."""
    file = tmp_path / "t.jsonl"
    labels = ["a", "a", "b", "c", "a"]
    file.write_text("".join(json.dumps({"prompt": "p", "completion": "c", "g": label}) + "\n" for label in labels))
    with pytest.raises(DataError, match="rows 1 and 5 are of one group"):
        looked_over(plan_shards(file, rows=2, group="g"), TableLayout(group="g"))
    assert looked_over(plan_shards(file, rows=2), TableLayout()).columns.schema().names == ["prompt", "completion", "g"]


def test_the_table_of_a_test_has_blank_lines(table):
    """The other tests mean something."""
    assert len(list(read_rows(table(9)))) == 9
