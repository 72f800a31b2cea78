"""The record of a ledger: every batch that was composed, in order, so that it can be replayed and reported."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.exceptions import LedgerError
from rlaif_sdk.io.sqlite import Database, checksum
from rlaif_sdk.scoring.checks import CheckedScores
from rlaif_sdk.statistics.arrays import Array, Mask, encode_groups
from rlaif_sdk.types import Progress, RewardBatch


@dataclass(frozen=True, slots=True)
class RecordedReward:
    """What is known of a reward whose scores are recorded.

    Attributes:
        use: The plugin's name for it, a reference, or empty for one made in Python.
        version: Its version.
        params: A digest of its parameters, or empty.
        range: The least and greatest score, or None.
        higher_is_better: False for a cost.
    """

    use: str
    version: str
    params: str
    range: tuple[float, float] | None
    higher_is_better: bool


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """What one composer recorded.

    Attributes:
        number: Its number in the ledger, from 1.
        started: When its first batch was composed, in seconds since 1970.
        rewards: Its rewards by name.
        batches: How many batches it has.
        rows: How many rows these have.
    """

    number: int
    started: float
    rewards: Mapping[str, RecordedReward]
    batches: int
    rows: int


@dataclass(frozen=True, slots=True, eq=False)
class RecordedScores:
    """What one reward said of B rows.

    Attributes:
        raw: (B,) its scores, NaN where there is none.
        failures: Why, for each row that failed.
        reasons: Why, in the reward's words, for each row with a reason.
        fallback_reasons: Why it failed, for each row on which its fallback's score stands; None without a fallback.
        cached: (B,) True where the score came from the cache.
    """

    raw: Array
    failures: Mapping[int, str]
    reasons: Mapping[int, str]
    fallback_reasons: Mapping[int, str] | None
    cached: Mask

    @property
    def answer(self) -> CheckedScores:
        """The same as the composer's arithmetic takes it."""
        return CheckedScores(self.raw.copy(), dict(self.failures), (), fallback_reasons=self.fallback_reasons)


@dataclass(frozen=True, slots=True, eq=False)
class RecordedBatch:
    """A batch of B rows that was composed.

    Attributes:
        batch: Prompts, completions, groups and progress; columns and token ids are not recorded.
        totals: (B,) the totals that were given out.
        answers: What each reward said.
        in_force: The weights, and the constraints' multipliers, by name.
    """

    batch: RewardBatch
    totals: Array
    answers: Mapping[str, RecordedScores]
    in_force: Mapping[str, Mapping[str, float]]


def recorded(composition: Composition) -> RecordedBatch:
    """What is recorded of a composition."""
    return RecordedBatch(
        composition.batch,
        composition.totals,
        {
            name: RecordedScores(
                column.raw,
                column.failures,
                {row: score.reason for row in range(len(composition)) if (score := column.score(row)) and score.reason},
                column.fallback_reasons,
                np.zeros(len(composition), dtype=bool) if column.cached is None else column.cached,
            )
            for name, column in composition.rewards.items()
        },
        {
            "weights": {name: column.weight for name, column in composition.rewards.items()},
            "groups": dict(composition.group_weights),
            "multipliers": {part.constraint.key: part.multiplier for part in composition.constraints},
        },
    )


_TEXT_LEVEL = 1


class Recorder:
    """Writes what one composer composes, as one run; a fork's batches are a run of their own.

    Args:
        database: The ledger's file.
        rewards: The composer's rewards by name.
    """

    def __init__(self, database: Database, rewards: Mapping[str, RecordedReward]) -> None:
        self._database = database
        self._rewards = json.dumps({name: asdict(reward) for name, reward in rewards.items()})
        self._token = uuid.uuid4().hex
        self._started = time.time()

    def write(self, composition: Composition) -> None:
        """Record one composition, whole or not at all.

        Raises:
            LedgerError: The file cannot be written.
        """
        entry = recorded(composition)
        batch, number_of = entry.batch, self._run_number
        group = encode_groups(batch.group)
        texts = {
            "prompts": list(batch.prompts),
            "completions": list(batch.completions),
            "group": None if group is None else group.tolist(),
        }
        packed = zlib.compress(json.dumps(texts, default=repr).encode(), _TEXT_LEVEL)
        fields = (
            batch.progress.step,
            batch.progress.total,
            int(batch.training),
            len(batch),
            packed,
            _floats(entry.totals),
            json.dumps(entry.in_force),
        )
        answers = [(name, _floats(answer.raw), _notes(answer)) for name, answer in entry.answers.items()]
        checked = [(*answer, checksum(*answer)) for answer in answers]

        def insert(connection: sqlite3.Connection) -> None:
            cursor = connection.execute(
                "INSERT INTO batches (run, created, step, total_steps, training, rows, texts, totals, in_force, "
                "checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (number_of(connection), time.time(), *fields, checksum(*fields)),
            )
            connection.executemany(
                "INSERT INTO answers (batch, reward, raw, notes, checksum) VALUES (?, ?, ?, ?, ?)",
                [(cursor.lastrowid, *answer) for answer in checked],
            )

        self._database.run(insert, write=True)

    def _run_number(self, connection: sqlite3.Connection) -> int:
        """This run's number; asked for every batch, since the file may have been set aside meanwhile."""
        found = connection.execute("SELECT id FROM runs WHERE token = ?", (self._token,)).fetchone()
        if found is None:
            found = connection.execute(
                "INSERT INTO runs (token, started, rewards) VALUES (?, ?, ?) RETURNING id",
                (self._token, self._started, self._rewards),
            ).fetchone()
        return int(found[0])


class Record:
    """Reads what is recorded in a ledger file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def runs(self) -> list[RecordedRun]:
        """The runs, in the order in which they began."""
        query = (
            "SELECT runs.id, started, rewards, COUNT(batches.id), COALESCE(SUM(rows), 0) FROM runs "
            "LEFT JOIN batches ON batches.run = runs.id GROUP BY runs.id ORDER BY runs.id"
        )
        found = self._database.run(lambda connection: connection.execute(query).fetchall())
        return [RecordedRun(number, started, _rewards(text), *counts) for number, started, text, *counts in found]

    def batches(self, run: int) -> Iterator[RecordedBatch]:
        """The batches of a run in the order in which they were composed, read one at a time."""
        after = 0
        while True:
            found = self._database.run(lambda connection, after=after: _next_batch(connection, run, after))  # type: ignore[misc]
            if found is None:
                return
            after, entry = found
            yield entry

    def delete(self, *, before: float | None = None) -> int:
        """Forget the runs that began before a time, in seconds since 1970, or all.

        Returns:
            How many were forgotten.
        """

        def delete(connection: sqlite3.Connection) -> int:
            old = "SELECT id FROM runs WHERE (?1 IS NULL OR started < ?1)"
            connection.execute(
                f"DELETE FROM answers WHERE batch IN (SELECT id FROM batches WHERE run IN ({old}))",  # noqa: S608 - constants
                (before,),
            )
            connection.execute(f"DELETE FROM batches WHERE run IN ({old})", (before,))  # noqa: S608 - constants
            return connection.execute("DELETE FROM runs WHERE (?1 IS NULL OR started < ?1)", (before,)).rowcount

        return self._database.run(delete, write=True)


def _next_batch(connection: sqlite3.Connection, run: int, after: int) -> tuple[int, RecordedBatch] | None:
    row = connection.execute(
        "SELECT id, step, total_steps, training, rows, texts, totals, in_force, checksum FROM batches "
        "WHERE run = ? AND id > ? ORDER BY id LIMIT 1",
        (run, after),
    ).fetchone()
    if row is None:
        return None
    number, *fields, written = row
    _check(written == checksum(*fields), number)
    step, total_steps, training, rows, texts, totals, in_force = fields
    batch = RewardBatch(
        **json.loads(zlib.decompress(texts)), progress=Progress(step, total_steps), training=bool(training)
    )
    named = {}
    for *answer, written in connection.execute(
        "SELECT reward, raw, notes, checksum FROM answers WHERE batch = ?", (number,)
    ):
        _check(written == checksum(*answer), number)
        name, raw, notes = answer
        named[name] = _answer(raw, notes, rows)
    return number, RecordedBatch(batch, _array(totals), named, json.loads(in_force))


def _check(unchanged: bool, batch: int) -> None:  # noqa: FBT001 - what is checked
    if not unchanged:
        raise LedgerError(
            f"the recorded batch {batch} is not what was written: the disk, or something else, changed it",
            hint="take the ledger from a copy, or record the run again",
        )


def _notes(answer: RecordedScores) -> str:
    notes = {
        "failures": dict(answer.failures),
        "reasons": dict(answer.reasons),
        "fallback_reasons": None if answer.fallback_reasons is None else dict(answer.fallback_reasons),
        "cached": np.flatnonzero(answer.cached).tolist(),
    }
    return json.dumps(
        {key: value for key, value in notes.items() if value or (key == "fallback_reasons" and value is not None)}
    )


def _answer(raw: bytes, notes: str, rows: int) -> RecordedScores:
    said: dict[str, Any] = json.loads(notes)
    cached_B = np.zeros(rows, dtype=bool)
    cached_B[said.get("cached", [])] = True
    texts = [
        {int(row): text for row, text in said.get(key, {}).items()}
        for key in ("failures", "reasons", "fallback_reasons")
    ]
    return RecordedScores(_array(raw), texts[0], texts[1], texts[2] if "fallback_reasons" in said else None, cached_B)


def _rewards(text: str) -> dict[str, RecordedReward]:
    return {
        name: RecordedReward(**{**fields, "range": tuple(fields["range"]) if fields["range"] else None})
        for name, fields in json.loads(text).items()
    }


def _floats(values: Array) -> bytes:
    return values.astype("<f8").tobytes()


def _array(data: bytes) -> Array:
    return np.frombuffer(data, dtype="<f8").astype(np.float64)
