"""A row whose group label is null answers no prompt that another row answers: it is a group of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif_sdk import Composer, RewardBatch
from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.normalizers import GroupZScore
from rlaif_sdk.composer.tables import TableLayout, chunks, score_records
from rlaif_sdk.integrations.remote import parts_of
from rlaif_sdk.integrations.samples import Sample, batch_of
from rlaif_sdk.preferences.pairs import PairRule, choose_pairs


def by_length(completions: list[str], **_: Any) -> list[float]:
    return [float(len(text)) for text in completions]


ROWS = [
    {"prompt": "p", "completion": "a", "g": None},
    {"prompt": "q", "completion": "aaaaaaaaa", "g": None},
    {"prompt": "r", "completion": "a", "g": 1},
    {"prompt": "r", "completion": "aaa", "g": 1},
    {"prompt": "s", "completion": "aaaaaaaaa"},
]


@pytest.mark.parametrize("null", [None, float("nan")])
def test_strangers_are_not_compared(null: Any) -> None:
    """Normalised within its group, a row alone is 0; pandas says NaN for null."""
    rows = [{**row, "g": null if row.get("g") is None else row["g"]} for row in ROWS]
    with Composer({"length": Component(by_length, normalizer=GroupZScore())}) as composer:
        totals = composer.compose(RewardBatch.from_records(rows, group="g")).to_list()
    assert totals[:2] == [0, 0]
    assert totals[2] == -totals[3] != 0
    assert totals[4] == 0


def test_chunks_are_cut_between_them() -> None:
    """A long run of rows without a label is not held in memory for being one group."""
    rows = [{"g": None}] * 5 + [{"g": 1}] * 3
    assert [len(chunk) for chunk in chunks(rows, TableLayout(group="g"), rows=2)] == [2, 2, 4]


def test_chunks_score_them_alike() -> None:
    """Whatever the size of the chunks."""
    layout = TableLayout(group="g")
    found = []
    for size in (1, 2, 100):
        with Composer({"length": Component(by_length, normalizer=GroupZScore())}) as composer:
            parts = score_records(composer.compose, ROWS, layout, chunk=size, training=False)
            found.append([total for _, composition in parts for total in composition.to_list()])
    assert found[0] == found[1] == found[2]


def test_no_pair_is_made_of_them() -> None:
    """A preference is between answers to one prompt."""
    assert choose_pairs([1, 2, 1, 2], [None, None, "g", "g"], ["a", "b", "c", "d"], PairRule("all")) == [
        (3, 2, pytest.approx(0.731, abs=1e-3))
    ]


def test_a_request_keeps_them_apart() -> None:
    """To a server they are sent as groups of one, and may go in different parts."""
    batch = RewardBatch(["p"] * 4, ["c"] * 4, group=[None, None, "g", "g"])
    assert list(parts_of(batch, 1)) == [[0], [1], [2, 3]]


def test_samples_of_a_trainer_keep_them_apart() -> None:
    """One sample without a group does not take the others' from them."""
    samples = [Sample("p", "c", {}, group) for group in (None, 1, 1)]
    assert batch_of(samples).group == [None, 1, 1]


def test_shards_are_cut_between_them(tmp_path: Path) -> None:
    """They stand apart all over a table, and are no group that does."""
    pytest.importorskip("pyarrow")
    from rlaif_sdk.scale.score_job import inspect_shard, merge_findings
    from rlaif_sdk.scale.shards import plan_shards

    file = tmp_path / "t.jsonl"
    labels = [None, None, None, "a", "a", None]
    file.write_text("".join(json.dumps({"prompt": "p", "completion": "c", "g": label}) + "\n" for label in labels))
    layout = TableLayout(group="g")
    plan = plan_shards(file, rows=1, group="g")
    assert [shard.rows for shard in plan.shards] == [1, 1, 1, 2, 1]
    merge_findings((inspect_shard(file, shard, layout) for shard in plan.shards), file)
