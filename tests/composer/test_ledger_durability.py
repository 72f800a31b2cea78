"""The ledger under what happens to files: kills, several writers, corruption, full disks, forks."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from rlaif_sdk import Composer, RewardBatch
from rlaif_sdk.composer import Ledger
from rlaif_sdk.exceptions import LedgerError

WRITER = """
import sys
from rlaif_sdk import Composer, RewardBatch
from rlaif_sdk.composer import Ledger

def length(completions):
    return [float(len(text)) for text in completions]

path, name, batches = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Composer({"length": length}, ledger=Ledger(path)) as composer:
    print("ready", flush=True)
    for number in range(batches):
        texts = [f"{name} {number} {row}" + "x" * row for row in range(20)]
        composer.compose(RewardBatch(prompts=["p"] * 20, completions=texts))
        print(number, flush=True)
"""


def start(path, name, batches):
    arguments = [sys.executable, "-c", WRITER, str(path), name, str(batches)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def length(completions):
    return [float(len(text)) for text in completions]


def compose(path, *texts):
    with Ledger(path) as ledger, Composer({"length": length}, ledger=ledger) as composer:
        return composer.compose(RewardBatch(prompts=["p"] * len(texts), completions=list(texts)))


def check_whole(path):
    """Every recorded batch is complete and says the truth."""
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    with Ledger(path, create=False) as ledger:
        for run in ledger.runs():
            for entry in ledger.batches(run):
                assert entry.totals.tolist() == [len(text) for text in entry.batch.completions]
                assert entry.answers["length"].raw.tolist() == entry.totals.tolist()


@pytest.mark.slow
def test_kill_9_at_any_instant_loses_nothing_that_was_reported_and_breaks_nothing(tmp_path):
    """Twelve writers are killed at random moments; what each said to be done is there, and the next goes on."""
    path = tmp_path / "ledger.sqlite"
    draw = random.Random(0)
    reported = 0
    for number in range(12):
        process = start(path, f"w{number}", 100_000)
        assert process.stdout.readline() == "ready\n"
        time.sleep(draw.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        reported += len(process.stdout.read().split())
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
    check_whole(path)
    assert reported > 12
    with warnings.catch_warnings(), Ledger(path) as ledger:
        warnings.simplefilter("error")
        assert sum(run.batches for run in ledger.runs()) >= reported
        assert sum(entry.scores for entry in ledger.cached_rewards()) >= 20 * reported
    assert compose(path, "w0 0 0").totals[0] == 6


def test_several_processes_write_one_ledger(tmp_path):
    """Four processes that begin together, on a file that none has made yet, lose nothing."""
    path = tmp_path / "new" / "ledger.sqlite"
    processes = [start(path, f"w{number}", 15) for number in range(4)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    check_whole(path)
    with Ledger(path) as ledger:
        assert [run.batches for run in ledger.runs()] == [15] * 4
        assert sum(entry.scores for entry in ledger.cached_rewards()) == 4 * 15 * 20


def damage_header(path):
    with path.open("r+b") as file:
        file.write(os.urandom(60) + b"\0" * 40)


def damage_middle(path):
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))


def truncate(path):
    with path.open("r+b") as file:
        file.truncate(5000)


@pytest.mark.parametrize("damage", [damage_header, damage_middle, truncate], ids=lambda function: function.__name__)
def test_a_corrupt_ledger_is_kept_under_another_name_and_a_new_one_made(tmp_path, damage):
    """The run goes on; the warning names the kept file, which has the damaged bytes."""
    path = tmp_path / "ledger.sqlite"
    compose(path, *(f"text {number}" for number in range(500)))
    damage(path)
    damaged = path.read_bytes()
    with pytest.warns(UserWarning, match="is corrupt .* it is kept as .*ledger.sqlite.corrupt-") as caught:
        composition = compose(path, "text 1", "text 2")
    assert composition.totals.tolist() == [6, 6]
    (kept,) = tmp_path.glob("ledger.sqlite.corrupt-*[0-9]")
    assert str(kept) in str(caught[0].message)
    assert kept.read_bytes() == damaged
    check_whole(path)
    assert compose(path, "text 1").rewards["length"].status(0) == "cached"


def test_a_file_that_is_damaged_while_it_is_open_is_set_aside_too(tmp_path):
    """The open connection finds it out, and the batch is recorded in the new file."""
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger, Composer({"length": length}, ledger=ledger) as composer:
        composer.compose(RewardBatch(prompts=["p"] * 500, completions=[f"text {number}" for number in range(500)]))
        other = sqlite3.connect(path)
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        other.close()
        damage_middle(path)
        with pytest.warns(UserWarning, match="is corrupt"):
            composer.compose(RewardBatch(prompts=["p"], completions=["text 1"]))
        assert sum(run.rows for run in ledger.runs()) == 1
    check_whole(path)


def test_a_ledger_that_is_moved_away_while_it_is_open_is_made_anew(tmp_path):
    """What is written afterwards is found under the name that the config gives, not in the file that was moved."""
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger, Composer({"length": length}, ledger=ledger) as composer:
        for name in ("before", "after"):
            composer.compose(RewardBatch(prompts=["p"], completions=[name]))
            if name == "before":
                for part in list(tmp_path.iterdir()):
                    part.rename(part.with_name(f"moved-{part.name}"))
    with Ledger(path, create=False) as ledger:
        assert [entry.batch.completions for entry in ledger.batches()] == [["after"]]


def test_processes_that_find_one_corrupt_file_set_it_aside_once(tmp_path):
    """Four start at once on a corrupt file: one copy is kept, and all write to the same new one."""
    path = tmp_path / "ledger.sqlite"
    compose(path, *(f"text {number}" for number in range(500)))
    damage_header(path)
    processes = [start(path, f"w{number}", 5) for number in range(4)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert len(list(tmp_path.glob("ledger.sqlite.corrupt-*[0-9]"))) == 1
    check_whole(path)
    with Ledger(path) as ledger:
        assert sum(run.batches for run in ledger.runs()) == 20


@pytest.mark.parametrize("content", [b"rewards:\n  a: 1\n", "sqlite"])
def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path, content):
    """A slip in the config does not cost a file."""
    path = tmp_path / "mine"
    if content == "sqlite":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE mine (a)")
        connection.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="of another kind, and no ledger"):
        Ledger(path)
    assert path.read_bytes() == before


def test_a_ledger_of_a_later_version_is_refused(tmp_path):
    """It is not misread."""
    path = tmp_path / "ledger.sqlite"
    compose(path, "a")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LedgerError, match=r"version 99.*update rlaif_sdk"):
        Ledger(path)


def test_reading_a_ledger_that_is_missing_or_corrupt_makes_and_moves_nothing(tmp_path):
    """Looking is not writing."""
    with pytest.raises(LedgerError, match="no such ledger"):
        Ledger.find(tmp_path / "ledger.sqlite")
    with pytest.raises(LedgerError, match="found: none"):
        Ledger.find(tmp_path)
    path = tmp_path / "ledger.sqlite"
    compose(path, "a")
    damage_header(path)
    with pytest.raises(LedgerError, match="move it away"):
        Ledger.find(path)
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.sqlite"]


FULL = """
import resource, sys
from rlaif_sdk import Composer, RewardBatch
from rlaif_sdk.composer import Ledger
from rlaif_sdk.exceptions import LedgerError

def length(completions):
    return [float(len(text)) for text in completions]

ledger = Ledger(sys.argv[1])
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
composer = Composer({"length": length}, ledger=ledger)
for number in range(10_000):
    try:
        texts = [f"{number} {row} " + "".join(chr(33 + (number * row * k) % 90) for k in range(99)) for row in range(50)]
        composer.compose(RewardBatch(prompts=["p"] * 50, completions=texts))
    except LedgerError as error:
        print(number, error)
        sys.exit(3)
"""


@pytest.mark.parametrize("kind", ["limit", "disk"])
def test_a_full_disk_is_a_clean_error_and_costs_nothing_that_was_written(tmp_path, kind):
    """Whether the file system is full or a quota met: the error says what to do, and the ledger stays whole."""
    folder = tmp_path / "small"
    folder.mkdir()
    if kind == "disk":
        mounted = shutil.which("mount") and os.geteuid() == 0
        if (
            not mounted
            or subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False, capture_output=True
            ).returncode
        ):
            pytest.skip("no small file system can be mounted here")
    try:
        path = folder / "ledger.sqlite"
        done = subprocess.run(
            [sys.executable, "-c", FULL, str(path), kind], capture_output=True, text=True, check=False
        )
        assert done.returncode == 3, done.stderr
        number, _, message = done.stdout.partition(" ")
        assert "ledger.sqlite: " in message
        assert "what was committed is kept" in message
        assert "Traceback" not in done.stderr
        copy = tmp_path / "copy.sqlite"
        for suffix in ("", "-wal"):
            if (part := path.with_name(path.name + suffix)).exists():
                shutil.copy(part, copy.with_name(copy.name + suffix))
        check_whole(copy)
        with Ledger(copy) as ledger:
            assert [run.batches for run in ledger.runs()] == [int(number)]
    finally:
        if kind == "disk":
            subprocess.run(["umount", str(folder)], check=False)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_uses_a_connection_of_its_own_and_leaves_the_parents_alone(tmp_path):
    """Parent and children write at once; every batch of each is there."""
    path = tmp_path / "ledger.sqlite"
    batches = 10
    with Ledger(path) as ledger, Composer({"length": length}, ledger=ledger) as composer:

        def write(name):
            for number in range(batches):
                composer.compose(RewardBatch(prompts=["p"], completions=[f"{name} {number}"]))

        write("before")
        parents_own = ledger._database._connection
        children = []
        for name in ("one", "two"):
            child = os.fork()
            if child == 0:
                try:
                    write(name)
                    os._exit(2 if ledger._database._connection is parents_own else 0)
                except BaseException:  # noqa: BLE001 - the child must not return
                    os._exit(1)
            children.append(child)
        write("parent")
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        write("after")
        assert sum(run.rows for run in ledger.runs()) == 5 * batches
    check_whole(path)


def test_another_process_that_holds_the_file_is_named_as_the_cause(tmp_path, monkeypatch):
    """A lock that is not let go becomes a `LedgerError`, in bounded time."""
    from rlaif_sdk.io import sqlite

    path = tmp_path / "ledger.sqlite"
    compose(path, "a")
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.2)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(LedgerError, match="another process has held it"):
            compose(path, "b")
    finally:
        holder.close()


def test_a_reward_that_ends_the_process_loses_no_score_that_was_given_before(tmp_path: Path) -> None:
    """`os._exit` in a plain reward cannot be caught: what was scored stays, and is not asked for again."""
    (tmp_path / "leaving.py").write_text(
        "import os\n"
        "def leaving(completions):\n"
        "    open('asked', 'a').write(f'{len(completions)} ')\n"
        "    if 'leave' in completions and not os.path.exists('mended'):\n"
        "        os._exit(0)\n"
        "    return [float(len(text)) for text in completions]\n"
    )
    (tmp_path / "c.yaml").write_text("ledger: l.sqlite\nrewards:\n  leaving: {use: './leaving.py:leaving'}\n")
    rows = [{"prompt": "p", "completion": "leave" if row == 20 else f"x{row}"} for row in range(24)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [
        sys.executable,
        "-m",
        "rlaif_sdk",
        "score",
        "rows.jsonl",
        "-c",
        "c.yaml",
        "-o",
        "o.jsonl",
        "--chunk",
        "8",
    ]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    assert not (tmp_path / "o.jsonl").exists()
    (tmp_path / "mended").touch()
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "asked").read_text() == "8 8 8 8 "
    scored = [json.loads(line)["reward"]["total"] for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert scored == [float(len(row["completion"])) for row in rows]
    assert not list(tmp_path.glob(".o.jsonl.*"))
