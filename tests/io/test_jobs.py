"""A job's folder: one process at a time, one job, and no unfinished one silently reused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk.exceptions import ConfigError, DataError
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.jobs import (
    FAILURES_FILE,
    IDENTITY_FILE,
    JOB_FOLDER,
    JOURNAL_FILE,
    SUMMARY_FILE,
    UNSET,
    NumberedFiles,
    changes,
    claim,
    differences,
    locked,
)
from rlaif_sdk.io.redaction import without_secrets


def identity_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / IDENTITY_FILE).read_text())
    return found


def test_a_folder_is_held_by_one_process_and_let_go_of_when_it_dies(tmp_path: Path) -> None:
    """Killed ones included; what waits is refused at once, and says where."""
    program = f"""
import time
from pathlib import Path
from rlaif_sdk.io.jobs import locked
with locked(Path({str(tmp_path / "job")!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DataError, match="job: another process is at work"), locked(tmp_path / "job"):
            pass
        holder.kill()
    with locked(tmp_path / "job"), locked(tmp_path / "job" / "part"):
        pass


def test_a_folder_belongs_to_the_job_that_began_it(tmp_path: Path) -> None:
    """What differs is named, with both values; secrets are neither written nor shown."""
    claim(tmp_path, {"rows": 1, "api_key": "k1", "model": {"name": "a"}}, kind="sweep")
    claim(tmp_path, {"model": {"name": "a"}, "rows": 1, "api_key": "k2"}, kind="sweep")
    assert "k1" not in (tmp_path / IDENTITY_FILE).read_text()
    with pytest.raises(ConfigError) as refused:
        claim(tmp_path, {"rows": 2, "model": {"name": "b"}}, kind="sweep", file="sweep.yaml", hint="go back")
    assert str(refused.value) == (
        f"sweep.yaml: output: {tmp_path} holds another sweep:\n  rows: 1 → 2\n"
        '  api_key: "(hidden)" → unset\n  model.name: "a" → "b" (go back)'
    )


def test_a_folder_is_not_resumed_unasked(tmp_path: Path) -> None:
    """Where a command has --resume."""
    claim(tmp_path, {"a": 1}, kind="loop", resume=False)
    with pytest.raises(ConfigError, match=r"already holds a loop .*--resume"):
        claim(tmp_path, {"a": 1}, kind="loop", resume=False)
    claim(tmp_path, {"a": 1}, kind="loop")


def test_what_has_changed_is_noted_or_set_aside(tmp_path: Path) -> None:
    """Noted, what is done stays; set aside, it is in a folder of its own, with what says whose it is."""
    claim(tmp_path, {"a": 1, "stop": 1}, kind="loop", may_change=("stop",))
    claim(tmp_path, {"a": 1, "stop": 2}, kind="loop", may_change=("stop",))
    claim(tmp_path, {"a": 2}, kind="loop", on_change="note")
    claim(tmp_path, {"a": 3}, kind="loop", on_change="note")
    assert identity_in(tmp_path)["changed"] == [["a: 1 → 2"], ["a: 2 → 3"]]
    (tmp_path / "result.jsonl").write_text("3")
    for number in (1, 2):
        claim(tmp_path, {"a": 3 + number}, kind="loop", on_change="set_aside")
        assert identity_in(tmp_path / JOB_FOLDER / f"earlier-{number}")["identity"] == {"a": 2 + number}
    assert (tmp_path / JOB_FOLDER / "earlier-1" / "result.jsonl").read_text() == "3"
    assert [path.name for path in tmp_path.iterdir()] == [JOB_FOLDER]


def test_all_that_a_job_keeps_is_set_aside_but_its_lock(tmp_path: Path) -> None:
    """Its journal would else count as the next job's; a result may be called what the lock is called."""
    with locked(tmp_path):
        claim(tmp_path, {"a": 1}, kind="labels")
        for name in (JOURNAL_FILE, SUMMARY_FILE, FAILURES_FILE, "lock"):
            (tmp_path / name).write_text(name)
        claim(tmp_path, {"a": 2}, kind="labels", on_change="set_aside")
        with pytest.raises(DataError, match="another process"), locked(tmp_path):
            pass
    aside = tmp_path / JOB_FOLDER / "earlier-1"
    for name in (JOURNAL_FILE, SUMMARY_FILE, FAILURES_FILE, "lock"):
        assert (aside / name).read_text() == name
    assert {path.name for path in (tmp_path / JOB_FOLDER).iterdir()} == {"earlier-1", "identity.json", "lock"}
    assert not (aside / JOB_FOLDER / "lock").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"identity": 1}', "{", "\ud83d"])
def test_a_folder_that_does_not_say_whose_it_is_is_refused(tmp_path: Path, content: str) -> None:
    """Results without an identity, or with one that cannot be read."""
    (tmp_path / "part-000001.parquet").write_text("x")
    with pytest.raises(DataError, match=r"part-000001\.parquet and no __job__"):
        claim(tmp_path, {"a": 1}, kind="scoring", results=["*.parquet"])
    (tmp_path / JOB_FOLDER).mkdir()
    (tmp_path / IDENTITY_FILE).write_text(content, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(DataError, match=r"identity\.json"):
        claim(tmp_path, {"a": 1}, kind="scoring", results=["*.parquet"])


@pytest.mark.parametrize("parts", [1, 3])
def test_a_folder_of_parts_is_a_plain_data_set(tmp_path: Path, parts: int) -> None:
    """For pyarrow, pandas and datasets, by whatever way they are asked; Spark passes over such names too."""
    pa = pytest.importorskip("pyarrow")
    datasets = pytest.importorskip("datasets")
    pandas = pytest.importorskip("pandas")
    from pyarrow import dataset, parquet

    folder = tmp_path / "scored"
    with locked(folder):
        claim(folder, {"a": 1}, kind="scoring")
        (folder / JOB_FOLDER / "summary.json").write_text("{}")
        for number in range(parts):
            parquet.write_table(pa.table({"a": [number]}), folder / f"part-{number:06}.parquet")
        (folder / ".part-000009.parquet.abc-1-00000000.partial").write_text("half")
        assert dataset.dataset(folder, format="parquet").to_table()["a"].to_pylist() == [*range(parts)]
        assert pandas.read_parquet(folder)["a"].tolist() == [*range(parts)]
        found = datasets.load_dataset(str(folder), cache_dir=tmp_path / "cache")
        assert list(found) == ["train"]
        assert found["train"]["a"][:] == [*range(parts)]
        found = datasets.load_dataset("parquet", data_dir=str(folder), cache_dir=tmp_path / "cache")
        assert found["train"]["a"][:] == [*range(parts)]
    assert all(path.name.startswith(("__", "part-", ".")) for path in folder.iterdir())


def test_numbered_files_are_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """What something else has spoiled is named with the way out."""
    files = NumberedFiles(tmp_path / "scores")
    assert 3 not in files
    files[3] = [1, "ü"]
    assert 3 in files
    assert files[3] == [1, "ü"]
    (tmp_path / "scores" / "000003.json").write_text("[1,")
    with pytest.raises(DataError, match=r"000003\.json: no valid JSON.*delete it"):
        _ = files[3]


def test_secrets_are_hidden_by_the_name_of_their_key() -> None:
    """Keys, passwords and access tokens; not the names of tokens of a text."""
    config = {"api_key": "k", "nested": [{"hub_token": "t", "eos_token": "</s>"}], "password": None}
    assert without_secrets(config) == {
        "api_key": "(hidden)",
        "nested": [{"hub_token": "(hidden)", "eos_token": "</s>"}],
        "password": None,
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("ab", max_size=2), json_values, max_size=3))
def test_equal_identities_have_no_differences(value: dict[str, Any]) -> None:
    """Whatever the order of their keys."""
    assert list(differences(value, dict(reversed(value.items())))) == []


def test_a_difference_has_its_dotted_key_and_both_values_in_short() -> None:
    """Lists are compared whole, a missing key is unset, and of a digest the start is shown."""
    old = {"a": {"b": 1, "c": [1, 2]}, "gone": "x"}
    new = {"a": {"b": 1, "c": [1, 3]}, "new": {"deep": True}}
    assert list(differences(old, new)) == [
        ("a.c", [1, 2], [1, 3]),
        ("gone", "x", UNSET),
        ("new.deep", UNSET, True),
    ]
    one, other = json_digest(1), json_digest(2)
    assert changes({"rows": one}, {"rows": other}) == [f"rows: {one[:8]}… → {other[:8]}…"]
    assert len(changes({"text": "x" * 200}, {"text": "y"})[0]) < 80
