"""Files and folders appear whole or not at all, whoever else writes and whenever the process is killed."""

from __future__ import annotations

import errno
import json
import os
import random
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.files import (
    atomic_folder,
    atomic_path,
    is_same_path,
    read_json,
    refusal,
    without_nan,
    write_json,
    write_text,
)
from rlaif_sdk.io.text import is_safe_text, safe_text
from tests.little_room import little_room


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


def start(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


def test_a_kill_at_any_instant_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    """And what the killed process left beside it is gone after the next process's write into the folder."""
    file = tmp_path / "state.json"
    program = f"""
import itertools
from rlaif_sdk.io.files import write_json
for number in itertools.count():
    write_json({str(file)!r}, {{"number": number, "rows": [number] * 20_000}})
    if not number:
        print("ready", flush=True)
"""
    chance = random.Random(7)
    for _ in range(12):
        with start(program) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(chance.uniform(0, 0.03))
            writer.kill()
        found = json.loads(file.read_text())
        assert found["rows"] == [found["number"]] * 20_000
    with start(f"from rlaif_sdk.io.files import write_json; write_json({str(file)!r}, 1)") as last:
        assert last.wait() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    """Each writes a file of its own; the one that ends last stays, whole."""
    file = tmp_path / "scores.jsonl"
    with atomic_path(file) as one, atomic_path(file) as other:
        with one.open("w") as first, other.open("w") as second:
            for row in range(1000):
                first.write(f"first {row}\n")
                second.write(f"second {row}\n")
                first.flush()
        assert one != other
    assert file.read_text() == "".join(f"first {row}\n" for row in range(1000))
    assert [path.name for path in tmp_path.iterdir()] == ["scores.jsonl"]


def test_files_of_a_living_process_are_left_alone(tmp_path: Path) -> None:
    """The one that sweeps a folder cannot take another's unfinished file away, nor what only looks like one."""
    program = f"""
import time
from rlaif_sdk.io.files import atomic_path
with atomic_path({str(tmp_path / "table.jsonl")!r}) as partial:
    partial.write_text("mine")
    print(partial.name, flush=True)
    time.sleep(60)
"""
    (tmp_path / ".table.jsonl.partial").write_text("the user's")
    with start(program) as writer:
        assert writer.stdout is not None
        name = writer.stdout.readline().strip()
        write = f"from rlaif_sdk.io.files import write_text; write_text({str(tmp_path / 'other.txt')!r}, 'x')"
        with start(write) as other:
            assert other.wait() == 0
        assert {path.name for path in tmp_path.iterdir()} == {name, ".table.jsonl.partial", "other.txt"}
        writer.kill()
    with start(write) as other:
        assert other.wait() == 0
    assert {path.name for path in tmp_path.iterdir()} == {".table.jsonl.partial", "other.txt"}


def test_a_folder_takes_its_name_when_it_is_full(tmp_path: Path) -> None:
    """Nothing is there on an error, nor after a kill and the next start; a folder that is taken stays as it is."""
    target = tmp_path / "model"

    def interrupted() -> None:
        with atomic_folder(target) as unfinished:
            (unfinished / "weights").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())
    program = f"""
import os
from rlaif_sdk.io.files import atomic_folder
with atomic_folder({str(target)!r}) as unfinished:
    (unfinished / "weights").write_text("half")
    os.kill(os.getpid(), 9)
"""
    with start(program) as killed:
        killed.wait()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".model.")
    with start(program.replace("os.kill(os.getpid(), 9)", "pass")) as last:
        assert last.wait() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    with pytest.raises(OSError, match="not empty"), atomic_folder(target) as unfinished:
        (unfinished / "weights").write_text("other")
    assert (target / "weights").read_text() == "half"


def test_an_older_file_keeps_its_permissions_and_a_link_its_target(tmp_path: Path) -> None:
    """As where the file is written in place; a new file has those that the user's mask gives."""
    file = tmp_path / "secret.json"
    write_json(file, 1)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~_umask()
    file.chmod(0o600)
    (tmp_path / "link.json").symlink_to(file)
    write_json(tmp_path / "link.json", 2)
    assert file.read_text() == "2\n"
    assert (tmp_path / "link.json").is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_is_no_file_is_written_directly_or_refused(tmp_path: Path) -> None:
    """A device stays a device; a folder is named."""
    write_text("/dev/null", "x")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(DataError, match="is a folder"):
        write_text(tmp_path, "x")
    with pytest.raises(OSError, match="Not a directory"):
        write_text("/dev/null/x", "x")


def test_what_was_written_before_an_error_can_be_kept(tmp_path: Path) -> None:
    """Under a name of its own; the older file stays."""
    write_text(tmp_path / "a.csv", "old")

    def failing(text: str) -> None:
        with atomic_path(tmp_path / "a.csv", kept=tmp_path / ".a.csv.kept") as partial:
            partial.write_text(text)
            raise ZeroDivisionError

    for text in ("half", "more"):
        with pytest.raises(ZeroDivisionError):
            failing(text)
    assert (tmp_path / "a.csv").read_text() == "old"
    assert (tmp_path / ".a.csv.kept").read_text() == "more"
    assert len(list(tmp_path.iterdir())) == 2


def test_long_names_are_no_trouble(tmp_path: Path) -> None:
    """Up to the longest that a file system takes, of characters of several bytes."""
    for name in ("a" * 255, "ü" * 127):
        write_text(tmp_path / name, "x")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_link_that_leads_back_to_itself_is_told(tmp_path: Path) -> None:
    """As a file, a folder of it, and through another link; it is left as it is."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").symlink_to("a/c")
    for name in ("a", "b/x.json", "c"):
        with pytest.raises(OSError) as caught:
            write_text(tmp_path / name, "x")
        assert caught.value.errno == errno.ELOOP
        assert "leads back to itself" in str(refusal(caught.value))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]
    assert is_same_path(tmp_path / "a", tmp_path / "a")
    assert not is_same_path(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENAMETOOLONG])
def test_a_file_system_that_takes_no_more_is_told_in_a_line(number: int) -> None:
    """With the file and the next step; anything else is not."""
    told = refusal(OSError(number, "?", "out.json"))
    assert told is not None
    assert str(told).startswith("out.json: ")
    assert told.hint
    assert "\n" not in str(told)
    assert refusal(OSError(errno.EINVAL, "?")) is None


def save_weights(file: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file({"weight": pytest.importorskip("torch").zeros(1000)}, file)


def save_tokenizer(file: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = {f"w{place}": place for place in range(100)}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0")).save(str(file))


def save_archive(file: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"weight": torch.zeros(1000)}, file)


def save_parquet(file: Path) -> None:
    pq.write_table(pa.table({"a": list(range(1000))}), file)


@pytest.mark.parametrize("save", [save_weights, save_tokenizer, save_archive, save_parquet])
def test_a_library_s_own_error_of_a_full_disk_is_told_in_a_line(save: Callable[[Path], None], tmp_path: Path) -> None:
    """Most of them are no `OSError`; what a library says of anything else is not taken for one."""
    save(tmp_path / "whole")
    with little_room(500), pytest.raises(Exception, match=r"File too large|unexpected pos") as raised:
        save(tmp_path / "cut")
    told = refusal(raised.value)
    assert told is not None
    assert "written" in str(told)
    assert "make room" in str(told)
    assert refusal(RuntimeError("(os error 2)")) is None
    assert refusal(RuntimeError("unexpected pos")) is None


def test_a_full_disk_leaves_no_litter(tmp_path: Path) -> None:
    """Nor does it spoil what was there."""
    file = tmp_path / "rows.json"
    write_json(file, 1)
    with little_room(500), pytest.raises(OSError, match="File too large") as raised:
        write_json(file, ["x" * 1000])
    assert str(refusal(raised.value)).startswith(f"{file}: cannot be written")
    assert file.read_text() == "1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]


@given(st.text(st.characters(), max_size=20))
def test_text_that_leaves_is_utf_8_and_json_reads_back(text: str) -> None:
    """A lone surrogate becomes U+FFFD in text, and its escape in JSON."""
    with tempfile.TemporaryDirectory() as folder:
        write_text(Path(folder) / "a.txt", text)
        write_json(Path(folder) / "a.json", {"t": text})
        found = (Path(folder) / "a.txt").read_bytes().decode()
        assert read_json(Path(folder) / "a.json") == {"t": text}
    assert found == safe_text(text)
    assert is_safe_text(text) == (found == text)
