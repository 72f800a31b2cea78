"""What a labelling job reads and writes: pairs, its config, and tables of labels."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rlaif_sdk import ConfigError, DataError, MissingExtraError
from rlaif_sdk.preferences import load_label_job
from tests.preferences.making import label, rows_of


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"prompt": "p", "response_1": "a"}', r"pairs.jsonl:2.*response_2"),
        ('{"prompt": "p", "response_1": "a", "response_2": 3}', r"pairs.jsonl:2.*text or messages"),
        ('{"prompt": "p", "response_1": "a", "response_2": "b", "chosen_prob": 1}', "which the labels have too"),
        ("not json", r"pairs.jsonl:2.*JSON"),
    ],
)
def test_a_bad_pair_is_named_before_anything_is_sent(
    config: Path, write_pairs: Any, pair_server: Any, line: str, problem: str
) -> None:
    """The whole file is read first, so a bad row costs nothing."""
    path = write_pairs(1)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=problem):
        label(config)
    assert not pair_server.requests


def test_columns_of_any_name_are_labelled(config: Path, tmp_path: Path) -> None:
    """Human preferences in chosen and rejected become response 1 and 2; conversations stay conversations."""
    turn = [{"role": "user", "content": "q"}]
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"ask": turn, "chosen": "bad", "rejected": "good"}) + "\n")
    [row] = rows_of(label(config, "pairs.prompt=ask", "pairs.response_1=chosen", "pairs.response_2=rejected").labels)
    assert row["chosen"] == [{"role": "assistant", "content": "good"}]
    assert (row["prompt"], row["chosen_response"]) == (turn, 2)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("judge: {model: m}", "pairs"),
        ("pairs: {file: p}", "judge"),
        ("pairs: {file: p}\njudge: {model: m, batchsize: 3}", r"label.yaml:2.*batchsize"),
        ("pairs: {file: p}\njudge: {model: m, backend: telepathy}", r"label.yaml:2.*telepathy"),
        ("pairs: {file: p}\njudge: {model: m}\nmode: guess", r"label.yaml:3.*mode"),
        ("pairs: {file: p}\njudge: {model: m}\nsamples: 4", r"label.yaml:3: samples: .*temperature"),
        (
            "pairs: {file: p}\njudge: {model: m}\nchain_of_thought: true\nmode: verdict",
            r"label.yaml:3: chain_of_thought: ",
        ),
        ("pairs: {file: p}\njudge: {model: m}\nprompt: {task: x}", "task"),
        ("pairs: {file: p}\njudge: {model: m}\nprompt: {file: x.yaml, task: helpfulness}", "leave them out"),
        ("pairs: {file: p}\njudge: {model: m}\nprompt: {exemplars: none.jsonl}", "none.jsonl"),
        ("pairs: {file: p}\njudge: {model: m}\nmax_failed_share: 2", "max_failed_share"),
    ],
)
def test_a_config_that_cannot_work_is_refused_with_its_line(write: Any, text: str, problem: str) -> None:
    """Before any pair is read or any model loaded."""
    with pytest.raises((ConfigError, DataError), match=f"(?s){problem}"):
        load_label_job(write("label.yaml", text)).labeler()


def test_exemplars_and_a_prompt_of_ones_own_come_from_files(
    config: Path, write: Any, write_pairs: Any, pair_server: Any
) -> None:
    """Both stand in what the judge is asked; a wrong exemplar is named by its row."""
    write_pairs(1)
    write("own.yaml", "preamble: MY RULES")
    write("shown.jsonl", '{"prompt": "p", "response_1": "x good", "response_2": "y", "preferred": "1"}\n')
    config.write_text(config.read_text() + "prompt: {file: own.yaml, exemplars: shown.jsonl}\n")
    label(config)
    asked = pair_server.requests[1]["messages"][0]["content"]
    assert asked.startswith("MY RULES")
    assert "x good" in asked
    write("shown.jsonl", '{"prompt": "p", "response_1": "x", "response_2": "y", "preferred": 1}\n')
    with pytest.raises(DataError, match=r"shown.jsonl:1.*preferred"):
        label(config)


def test_parquet_without_pyarrow_is_refused_before_any_call_is_paid_for(
    config: Path, write_pairs: Any, pair_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing package is no surprise at the end of a night."""
    write_pairs(3)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="pyarrow"):
        label(config, "format=parquet")
    assert pair_server.requests == []


def test_a_column_that_the_first_pair_lacks_reaches_parquet(config: Path, write_pairs: Any) -> None:
    """Every column of the pairs is carried along, whichever row begins it."""
    pairs = write_pairs(3)
    first, *others = [json.loads(line) for line in pairs.read_text().splitlines()]
    rows = [first, *({**row, "human": "a"} for row in others)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row["human"] for row in rows_of(label(config, "format=parquet").labels)] == [None, "a", "a"]


@pytest.mark.parametrize("values", [[1, "tie", None], [{"by": "ana"}, {"by": 7}, None], [{"a": 1}, {"b": 1}, 2**70]])
def test_columns_of_several_kinds_are_carried_in_either_form(config: Path, write_pairs: Any, values: list[Any]) -> None:
    """A column of 1, 2 and "tie", say; in Parquet it is JSON text."""
    pairs = write_pairs(3)
    rows = [
        {**json.loads(line), "human": value} for line, value in zip(pairs.read_text().splitlines(), values, strict=True)
    ]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for form in ("parquet", "jsonl"):
        assert [row["human"] for row in rows_of(label(config, f"format={form}").labels)] == values
