"""A ledger that something changes on disk, or takes away, says so and gives no wrong score."""

from __future__ import annotations

import random
import shutil
import sqlite3
import warnings
from pathlib import Path

import pytest

from rlaif_sdk import Composer, RewardBatch, Score
from rlaif_sdk.composer.ledger import Ledger
from rlaif_sdk.composer.whatif import what_if
from rlaif_sdk.exceptions import LedgerError

TEXTS = [f"text {number} " + "x" * (number % 17) for number in range(300)]
FLIPS = 60


def lengths(completions, **_):
    return [
        Score(len(text) + 0.5, f"{len(text)} characters") if len(text) % 2 else float(len(text)) for text in completions
    ]


RIGHT = [len(text) + 0.5 * (len(text) % 2) for text in TEXTS]


def compose(path: Path) -> tuple[list[float], int]:
    """The totals of all texts, and how many came from the cache."""
    with Ledger(path) as ledger, Composer({"length": lengths}, ledger=ledger) as composer:
        composition = composer.compose(RewardBatch(["p"] * len(TEXTS), TEXTS))
        statuses = [composition.rewards["length"].status(row) for row in range(len(TEXTS))]
        return composition.totals.tolist(), statuses.count("cached")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
    assert compose(path) == (RIGHT, 0)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("seed", range(FLIPS))
def test_a_flipped_bit_gives_no_wrong_score(written: Path, tmp_path: Path, seed: int) -> None:
    """Wherever it is: the score is as it was, is scored again, or the file is refused or set aside with a warning."""
    path = tmp_path / "ledger.sqlite"
    shutil.copy(written, path)
    flip(path, random.Random(seed).randrange(8 * path.stat().st_size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            totals, _ = compose(path)
        except LedgerError:
            return
    assert totals == RIGHT


@pytest.mark.parametrize("column", ["value", "extra", "key"])
def test_a_changed_score_is_scored_again_with_a_warning(written: Path, tmp_path: Path, column: str) -> None:
    """And is right from then on; a changed key is the score of no row."""
    path = tmp_path / "ledger.sqlite"
    shutil.copy(written, path)
    change = {
        "value": "UPDATE scores SET value = value + 1 WHERE extra IS NULL",
        "extra": "UPDATE scores SET extra = replace(extra, 'char', 'bear') WHERE extra IS NOT NULL",
        "key": "UPDATE scores SET key = randomblob(16) WHERE key = (SELECT key FROM scores LIMIT 1)",
    }[column]
    connection = sqlite3.connect(path)
    changed = connection.execute(change).rowcount
    connection.commit()
    connection.close()
    assert changed
    if column == "key":
        assert compose(path) == (RIGHT, len(TEXTS) - 1)
        return
    with pytest.warns(UserWarning, match=f"{changed} of the scores in the ledger .* are not what was written"):
        assert compose(path) == (RIGHT, len(TEXTS) - changed)
    assert compose(path) == (RIGHT, len(TEXTS))


def test_a_changed_score_in_a_ledger_that_is_only_read_stays_there(written: Path, tmp_path: Path) -> None:
    """It is scored anew and said, as it is of a ledger that is written; the file keeps every row."""
    path = tmp_path / "ledger.sqlite"
    shutil.copy(written, path)
    connection = sqlite3.connect(path)
    changed = connection.execute("UPDATE scores SET value = value + 1 WHERE extra IS NULL").rowcount
    connection.commit()
    before = connection.execute("SELECT * FROM scores").fetchall()
    with (
        Ledger(path, record=False, create=False) as ledger,
        Composer({"length": lengths}, ledger=ledger) as composer,
        pytest.warns(UserWarning, match=f"{changed} of the scores in the ledger .* are not what was written"),
    ):
        assert composer.compose(RewardBatch(["p"] * len(TEXTS), TEXTS)).totals.tolist() == RIGHT
    assert connection.execute("SELECT * FROM scores").fetchall() == before
    connection.close()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE batches SET totals = zeroblob(length(totals))",
        "UPDATE answers SET raw = zeroblob(length(raw))",
        "UPDATE answers SET notes = '{}'",
        "UPDATE batches SET step = 7",
        "UPDATE answers SET reward = 'lengtg'",
        "UPDATE answers SET batch = 9",
        "DELETE FROM answers",
        "INSERT INTO answers SELECT batch, 'other', raw, notes, normalized, weighted, workings, checksum FROM answers",
    ],
)
def test_a_changed_record_is_refused(written: Path, tmp_path: Path, change: str) -> None:
    """A report of it would be of something that was not, or of half of what was."""
    path = tmp_path / "ledger.sqlite"
    shutil.copy(written, path)
    connection = sqlite3.connect(path)
    assert connection.execute(change).rowcount
    connection.commit()
    connection.close()
    with (
        Ledger(path, create=False) as ledger,
        pytest.raises(LedgerError, match=r"ledger.*: the recorded batch 1 is not what was written"),
    ):
        list(ledger.batches())


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE runs SET rewards = replace(rewards, 'true', 'null')",
        "UPDATE runs SET rewards = substr(rewards, 2)",
        "UPDATE runs SET started = 'never'",
        "UPDATE runs SET token = 'x' || token",
    ],
)
def test_a_changed_run_is_refused(written: Path, tmp_path: Path, change: str) -> None:
    """What it says of its rewards explains every number of it."""
    path = tmp_path / "ledger.sqlite"
    shutil.copy(written, path)
    connection = sqlite3.connect(path)
    assert connection.execute(change).rowcount
    connection.commit()
    connection.close()
    with Ledger(path, create=False) as ledger, pytest.raises(LedgerError, match="run 1 is not what was written"):
        ledger.runs()


def test_a_batch_of_another_run_is_refused(tmp_path: Path) -> None:
    """It would count among that run's."""
    path = tmp_path / "ledger.sqlite"
    for _ in range(2):
        compose(path)
    connection = sqlite3.connect(path)
    assert connection.execute("UPDATE batches SET run = 2").rowcount == 2
    connection.commit()
    connection.close()
    with Ledger(path, create=False) as ledger:
        with pytest.raises(LedgerError, match="batch 1 is not what was written"):
            list(ledger.batches())
        assert what_if(ledger, {"rewards": {"length": {"use": "builtins:len"}}}, runs=[1]).summary()["rows"] == 0


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced", "folder deleted"])
def test_a_ledger_that_is_taken_away_while_it_is_used_is_said(tmp_path: Path, how: str) -> None:
    """Scoring goes on with a new file under its name."""
    path = tmp_path / "run" / "ledger.sqlite"
    with Ledger(path) as ledger, Composer({"length": lengths}, ledger=ledger) as composer:
        composer.compose(RewardBatch(["p"], ["a"]))
        if how == "folder deleted":
            shutil.rmtree(path.parent)
        else:
            for part in list(path.parent.iterdir()):
                part.rename(tmp_path / part.name) if how == "moved" else part.unlink()
        if how == "replaced":
            Ledger(path).close()
        with pytest.warns(UserWarning, match="was deleted, moved or replaced while it was in use"):
            assert composer.compose(RewardBatch(["p"], ["a"])).totals.tolist() == [1.5]
    with Ledger(path, create=False) as ledger:
        assert [entry.batch.completions for entry in ledger.batches()] == [["a"]]
