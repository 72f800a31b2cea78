"""A file that threads, forks and processes use at once, under what happens to files."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io import sqlite
from rlaif_sdk.io.sqlite import Database, Schema


def _error(path: Path, message: str, hint: str | None) -> DataError:
    return DataError(message, file=str(path), hint=hint)


NOTES = Schema("notebook", 0x4E4F5445, 1, ["CREATE TABLE notes (text TEXT NOT NULL)"], _error)


def add(database: Database, text: str) -> None:
    with database.transaction() as connection:
        connection.execute("INSERT INTO notes VALUES (?)", (text,))


def notes(database: Database) -> list[str]:
    return database.run(lambda connection: [row["text"] for row in connection.execute("SELECT text FROM notes")])


def test_a_transaction_is_whole_or_nothing(tmp_path: Path) -> None:
    """An exception takes it back; the next one is not disturbed."""
    database = Database(tmp_path / "new" / "notes.sqlite", NOTES)

    def failing() -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO notes VALUES ('half')")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        failing()
    add(database, "whole")
    database.close()
    assert notes(database) == ["whole"]
    database.close()


def test_threads_and_other_processes_lose_nothing(tmp_path: Path) -> None:
    """Of what each writes at once."""
    path = tmp_path / "notes.sqlite"
    databases = [Database(path, NOTES) for _ in range(2)]
    threads = [
        threading.Thread(target=lambda: [add(each, "x") for _ in range(20)])  # noqa: B023 - it is joined below
        for each in databases
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(notes(databases[0])) == 80
    for each in databases:
        each.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_writes_with_a_connection_of_its_own(tmp_path: Path) -> None:
    """And the parent's is as it was; so in any kind of file."""
    database = Database(tmp_path / "notes.sqlite", replace(NOTES, durable=True))
    add(database, "before")
    child = os.fork()
    if child == 0:
        try:
            add(database, "child")
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the child must not return
            os._exit(1)
    add(database, "parent")
    assert os.waitpid(child, 0)[1] == 0
    assert sorted(notes(database)) == ["before", "child", "parent"]
    database.close()


def test_a_corrupt_file_is_set_aside_where_it_can_be_made_again(tmp_path: Path) -> None:
    """With a warning; where it cannot, as with people's verdicts, it is refused and left as it is."""
    path = tmp_path / "notes.sqlite"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Database(path, NOTES).close()
    path.write_bytes(path.read_bytes()[:100] + b"\1" * 4000)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"notes\.sqlite: .*malformed.*move it away"):
        Database(path, NOTES)
    with pytest.raises(DataError, match="move it away"):
        Database(path, replace(NOTES, replace_corrupt=True), create=False)
    assert path.read_bytes() == before
    with pytest.warns(UserWarning, match=r"the notebook .* is corrupt .* a new one made"):
        database = Database(path, replace(NOTES, replace_corrupt=True))
    add(database, "anew")
    database.close()
    (kept,) = tmp_path.glob("notes.sqlite.corrupt-*")
    assert kept.read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"notes.sqlite", kept.name}


def test_files_of_other_kinds_and_versions_are_refused_untouched(tmp_path: Path) -> None:
    """Text, another SQLite file, another version, and one that is not there and shall not be made."""
    (tmp_path / "text").write_text("dear diary")
    with sqlite3.connect(tmp_path / "other") as other:
        other.execute("CREATE TABLE precious (x)")
    other.close()
    Database(tmp_path / "later", replace(NOTES, version=2)).close()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for name, problem in (("text", "another kind"), ("other", "another kind"), ("later", "version 2")):
        with pytest.raises(DataError, match=problem):
            Database(tmp_path / name, replace(NOTES, replace_corrupt=True))
    with pytest.raises(DataError, match=r"version 2; this rlaif_sdk reads 3.*use the rlaif_sdk that wrote it"):
        Database(tmp_path / "later", replace(NOTES, version=3))
    with pytest.raises(DataError, match="no such notebook"):
        Database(tmp_path / "missing", NOTES, create=False)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "problem"),
    [("pipe", "is a pipe"), (".", "is a folder"), ("/dev/null", "is a device"), ("a\0b", "embedded null")],
)
@pytest.mark.parametrize("create", [True, False])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, name: str, problem: str, create: bool) -> None:
    """Opening a pipe would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=problem):
        Database(tmp_path / name, NOTES, create=create)


def test_a_file_of_an_earlier_version_is_refused_untouched(tmp_path: Path) -> None:
    """Its tables may be others; no update of the SDK is suggested, since this one is the later."""
    Database(tmp_path / "earlier", NOTES).close()
    before = (tmp_path / "earlier").read_bytes()
    with pytest.raises(DataError, match="of version 1; this rlaif_sdk reads 2") as refused:
        Database(tmp_path / "earlier", replace(NOTES, version=2))
    assert refused.value.hint == "use the rlaif_sdk that wrote it, or name another file"
    assert (tmp_path / "earlier").read_bytes() == before


def test_another_that_holds_the_file_is_named_in_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a transaction as for an action."""
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.1)
    database = Database(tmp_path / "notes.sqlite", NOTES)
    holder = sqlite3.connect(tmp_path / "notes.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        for write in (add, lambda each, _: each.run(lambda connection: connection, write=True)):
            with pytest.raises(DataError, match="another process has held it"):
                write(database, "x")
    finally:
        holder.close()
        database.close()


def test_a_private_file_is_its_owners(tmp_path: Path) -> None:
    """From the first moment on."""
    Database(tmp_path / "mine", replace(NOTES, private=True)).close()
    assert stat.S_IMODE((tmp_path / "mine").stat().st_mode) == 0o600


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    """What was written before is in the one that was moved."""
    database = Database(tmp_path / "notes.sqlite", NOTES)
    add(database, "old")
    database.close()
    (tmp_path / "notes.sqlite").rename(tmp_path / "moved.sqlite")
    add(database, "new")
    assert notes(database) == ["new"]
    database.close()
    moved = Database(tmp_path / "moved.sqlite", NOTES, create=False)
    assert notes(moved) == ["old"]
    moved.close()
