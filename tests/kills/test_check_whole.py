"""What the tests of kills look for: a file that is torn is found."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")
pytest.importorskip("onnx")

import onnx
from safetensors.numpy import save_file

from tests.kills.killing import check_whole


def write_json(path: Path) -> None:
    path.write_text(json.dumps({"a": [1, 2]}))


def write_lines(path: Path) -> None:
    path.write_text('{"a": 1}\n' * 3)


def write_weights(path: Path) -> None:
    save_file({"a": np.zeros(100)}, path)


def write_graph(path: Path) -> None:
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])), path)


def write_ledger(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE scores AS SELECT zeroblob(9000)")


FILES = {
    "run.json": write_json,
    "scored.jsonl": write_lines,
    "model.safetensors": write_weights,
    "model.onnx": write_graph,
    "ledger.sqlite": write_ledger,
}


@pytest.mark.parametrize("name", FILES)
def test_a_torn_file_is_found(tmp_path: Path, name: str) -> None:
    """Whole it passes; a half or three quarters of it do not."""
    path = tmp_path / name
    FILES[name](path)
    check_whole(tmp_path)
    content = path.read_bytes()
    for size in (len(content) // 2, len(content) * 3 // 4):
        path.write_bytes(content[:size])
        with pytest.raises(AssertionError, match=f"{name} is not whole"):
            check_whole(tmp_path)


def test_only_the_last_line_of_a_journal_may_be_torn(tmp_path: Path) -> None:
    """It is written line by line."""
    path = tmp_path / "journal.jsonl"
    path.write_text('{"a": 1}\n{"a"')
    check_whole(tmp_path)
    path.write_text('{"a"\n{"a": 1}\n')
    with pytest.raises(AssertionError, match="is not whole"):
        check_whole(tmp_path)
