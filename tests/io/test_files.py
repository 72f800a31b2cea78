"""Small JSON files appear whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rlaif_sdk.io.files import without_nan, write_json


def test_what_is_written_is_read_back_and_the_folder_is_made(tmp_path: Path) -> None:
    """Text stays readable: no escapes of what is not ASCII."""
    file = tmp_path / "new" / "state.json"
    write_json(file, {"text": "naïve – 日本", "list": [1, 2.5, None]})
    assert json.loads(file.read_text(encoding="utf-8")) == {"text": "naïve – 日本", "list": [1, 2.5, None]}
    assert "日本" in file.read_text(encoding="utf-8")


def test_half_a_character_is_written_escaped(tmp_path: Path) -> None:
    """A model's text may be cut between surrogates, which UTF-8 cannot hold and JSON can."""
    write_json(tmp_path / "text.json", {"text": "cut \ud83d, 日本"})
    assert json.loads((tmp_path / "text.json").read_text(encoding="utf-8")) == {"text": "cut \ud83d, 日本"}


def test_large_values_can_stand_on_one_line(tmp_path: Path) -> None:
    """indent=None."""
    write_json(tmp_path / "rows.json", {"rows": [[1, 2], [3]]}, indent=None)
    assert (tmp_path / "rows.json").read_text() == '{"rows": [[1, 2], [3]]}\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_is_no_json_value_leaves_the_old_file_as_it_was(tmp_path: Path, value: object) -> None:
    """Nor is anything left beside it."""
    file = tmp_path / "state.json"
    write_json(file, {"step": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(file, {"step": 2, "value": value})
    assert json.loads(file.read_text()) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """A full disk, say: before the content is safe on it nothing takes the old file's place."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / "state.json"
    write_json(file, {"step": 1})
    monkeypatch.setattr(*((os, "fsync", full) if broken == "fsync" else (Path, "replace", full)))
    with pytest.raises(OSError, match="No space"):
        write_json(file, {"step": 2})
    monkeypatch.undo()
    assert json.loads(file.read_text()) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_numbers_that_json_does_not_know_become_none_at_any_depth() -> None:
    """So that figures without a value can be written."""
    nan, inf = float("nan"), float("inf")
    assert without_nan({"a": nan, "b": [1.5, (inf, -inf)], "c": {"d": nan, "e": "nan"}}) == {
        "a": None,
        "b": [1.5, [None, None]],
        "c": {"d": None, "e": "nan"},
    }
