"""The record of a ledger: every batch that was composed, in order, so that it can be replayed and reported."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlaif_sdk.composer.aggregators import AggregationTree
from rlaif_sdk.composer.column import RewardColumn
from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.composer.constraints import Constraint, ConstraintColumn
from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.exceptions import LedgerError
from rlaif_sdk.io.sqlite import Database, checksum
from rlaif_sdk.scoring.checks import CheckedScores, Imputed
from rlaif_sdk.statistics.arrays import Array, Mask, encode_groups
from rlaif_sdk.types import Credit, Progress, RewardBatch, Score, SubScore


@dataclass(frozen=True, slots=True)
class RecordedReward:
    """What is known of a reward whose scores are recorded.

    Attributes:
        use: The plugin's name for it, a reference, or empty for one made in Python.
        version: Its version.
        params: A digest of its parameters, or empty.
        range: The least and greatest score, or None.
        higher_is_better: False for a cost.
        ends: What its low and its high end mean, or None.
    """

    use: str
    version: str
    params: str
    range: tuple[float, float] | None
    higher_is_better: bool
    ends: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """What one composer recorded, alone or after the runs that it resumed.

    Attributes:
        number: Its number in the ledger, from 1.
        started: When its first batch was composed, in seconds since 1970.
        rewards: Its rewards by name.
        batches: How many batches it has.
        rows: How many rows these have.
        first_step: The least optimiser step of its batches: later than 0 where it resumed from a checkpoint.
        resumed: The run that it resumed, up to the step at which it did; None where it is looked at alone.
    """

    number: int
    started: float
    rewards: Mapping[str, RecordedReward]
    batches: int
    rows: int
    first_step: int
    resumed: RecordedRun | None = None

    @property
    def parts(self) -> tuple[RecordedRun, ...]:
        """The runs that it is made of, the first one first."""
        return (*(self.resumed.parts if self.resumed else ()), replace(self, resumed=None))

    def __str__(self) -> str:
        parts = self.parts
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(parts[0].started))
        batches, rows = sum(part.batches for part in parts), sum(part.rows for part in parts)
        numbers = " and ".join(str(part.number) for part in parts)
        which = f"run {numbers}" if len(parts) == 1 else f"runs {numbers}, each resumed by the next"
        return f"{which}, begun {began}, {batches} batches of {rows} rows in all"


@dataclass(frozen=True, slots=True, eq=False)
class RecordedScores:
    """What one reward said of B rows.

    Attributes:
        raw: (B,) its scores, NaN where there is none.
        failures: Why, for each row that failed.
        reasons: Why, in the reward's words, for each row with a reason.
        fallback_reasons: Why it failed, for each row on which its fallback's score stands; None without a fallback.
        cached: (B,) True where the score came from the cache.
        normalized: (B,) the value that was weighed; NaN where it took no part.
        weighted: (B,) its share of the total; NaN where it took no part.
        masked: (B,) True where its score was left out because it failed on another row of the group.
        defaulted: (B,) True where its stated default was taken.
        workings: How each row's value came of its score, in words.
        subscores: What its score of a row is made of, for each row with sub-scores.
        not_asked: Why it was not asked, for each row that its conditions kept from it; None without conditions.
        credit: Where its score of a row comes from, by turn and by span of text, for each row of which it says so.
        credit_scale: (B,) what a unit of that adds to the total; None without credit.
        imputed: What was taken for its score, for each row that its ``ask`` kept from it; None without one.
    """

    raw: Array
    failures: Mapping[int, str]
    reasons: Mapping[int, str]
    fallback_reasons: Mapping[int, str] | None
    cached: Mask
    normalized: Array
    weighted: Array
    masked: Mask
    defaulted: Mask
    workings: Sequence[str]
    subscores: Mapping[int, Mapping[str, SubScore]] = field(default_factory=dict)
    not_asked: Mapping[int, str] | None = None
    credit: Mapping[int, Credit] = field(default_factory=dict)
    credit_scale: Array | None = None
    imputed: Mapping[int, Imputed] | None = None

    @property
    def entries(self) -> list[Score]:
        """(B,) each row's score with its reason and sub-scores, as the reward gave it."""
        values = [
            None if missing else value for missing, value in zip(np.isnan(self.raw), self.raw.tolist(), strict=True)
        ]
        return [
            Score(value, reason=self.reasons.get(row), subscores=self.subscores.get(row, {}))
            for row, value in enumerate(values)
        ]

    @property
    def answer(self) -> CheckedScores:
        """The same as the composer's arithmetic takes it."""
        return CheckedScores(
            self.raw.copy(),
            dict(self.failures),
            (),
            fallback_reasons=self.fallback_reasons,
            not_asked=self.not_asked,
            credit=self.credit,
            imputed=self.imputed,
        )


@dataclass(frozen=True, slots=True, eq=False)
class RecordedBatch:
    """A batch of B rows that was composed.

    Attributes:
        batch: Prompts, completions, groups and progress, and the columns that conditions look at; other columns and token
            ids are not recorded.
        totals: (B,) the totals that were given out.
        answers: What each reward said.
        in_force: The weights, and the constraints' multipliers, by name.
        arithmetic: How the rewards became totals, as JSON values: groups, constraints, gates and what each did.
    """

    batch: RewardBatch
    totals: Array
    answers: Mapping[str, RecordedScores]
    in_force: Mapping[str, Mapping[str, float]]
    arithmetic: Mapping[str, Any]

    def composition(self, rewards: Mapping[str, RecordedReward]) -> Composition:
        """What was composed, number by number; columns of the data, token ids and the credit of tokens are not recorded.

        Args:
            rewards: The run's rewards.
        """
        rows, said = len(self.totals), self.arithmetic
        columns = {
            name: _column(name, self.answers[name], rewards[name], self.in_force["weights"][name]) for name in rewards
        }
        return Composition(
            self.batch,
            self.totals,
            columns,
            tuple((Gate(**part["gate"]), _mask(part["closed"], rows)) for part in said["gates"]),
            np.array(said["before_gates"], dtype=np.float64) if "before_gates" in said else self.totals,
            _mask(said["dropped"], rows),
            constraints=tuple(
                ConstraintColumn(
                    Constraint(**part["constraint"]), part["multiplier"], np.array(part["penalty"], dtype=np.float64)
                )
                for part in said["constraints"]
            ),
            group_weights=self.in_force["groups"],
            aggregation=AggregationTree(**said["aggregation"]),
            gate_order=said["gate_order"],
        )


def _column(name: str, said: RecordedScores, reward: RecordedReward, weight: float) -> RewardColumn:
    return RewardColumn(
        name=name,
        weight=weight,
        raw=said.raw,
        normalized=said.normalized,
        weighted=said.weighted,
        failures=said.failures,
        masked=said.masked,
        defaulted=said.defaulted,
        seconds=0.0,
        entries=said.entries,
        fallback_reasons=said.fallback_reasons,
        cached=said.cached,
        declared_range=reward.range,
        higher_is_better=reward.higher_is_better,
        ends=reward.ends,
        working=said.workings.__getitem__,
        not_asked=said.not_asked,
        credit=said.credit,
        credit_scale=said.credit_scale,
        imputed=said.imputed,
    )


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
                column.normalized,
                column.weighted,
                column.masked,
                column.defaulted,
                _workings(column),
                {row: said for row in range(len(composition)) if (said := column.subscores(row))},
                column.not_asked,
                {row: given.without_tokens() for row, given in column.credit.items()},
                column.credit_scale,
                column.imputed,
            )
            for name, column in composition.rewards.items()
        },
        {
            "weights": {name: column.weight for name, column in composition.rewards.items()},
            "groups": dict(composition.group_weights),
            "multipliers": {part.constraint.key: part.multiplier for part in composition.constraints},
        },
        _arithmetic(composition),
    )


def _workings(column: RewardColumn) -> list[str]:
    if column.working is None:
        return [""] * len(column.raw)
    return ["" if missing else column.working(row) for row, missing in enumerate(np.isnan(column.normalized))]


def _arithmetic(composition: Composition) -> dict[str, Any]:
    said: dict[str, Any] = {
        "aggregation": asdict(composition.aggregation),
        "gate_order": composition.gate_order,
        "gates": [{"gate": asdict(gate), "closed": _rows(closed_B)} for gate, closed_B in composition.gates],
        "constraints": [
            {"constraint": asdict(part.constraint), "multiplier": part.multiplier, "penalty": part.penalty.tolist()}
            for part in composition.constraints
        ],
        "dropped": _rows(composition.dropped),
    }
    return said | ({"before_gates": composition.before_gates.tolist()} if composition.gates else {})


def _rows(mask_B: Mask) -> list[int]:
    rows: list[int] = np.flatnonzero(mask_B).tolist()
    return rows


def _mask(rows: Sequence[int], size: int) -> Mask:
    mask_B = np.zeros(size, dtype=bool)
    mask_B[list(rows)] = True
    return mask_B


_TEXT_LEVEL = 1


class Recorder:
    """Writes what one composer composes, as one run; a fork's batches are a run of their own.

    Args:
        database: The ledger's file.
        rewards: The composer's rewards by name.
        columns: The columns that its conditions look at.
    """

    def __init__(self, database: Database, rewards: Mapping[str, RecordedReward], columns: Sequence[str] = ()) -> None:
        self._database = database
        self._columns = columns
        made_of = json.dumps({name: asdict(reward) for name, reward in rewards.items()})
        self._run = (uuid.uuid4().hex, time.time(), made_of)

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
            "columns": {name: [_plain(value) for value in batch.column(name)] for name in self._columns},
        }
        fields = (
            batch.progress.step,
            batch.progress.total,
            int(batch.training),
            len(batch),
            _packed(texts),
            _floats(entry.totals),
            json.dumps(entry.in_force),
            _packed(entry.arithmetic),
        )
        answers = [
            (
                name,
                _floats(answer.raw),
                _notes(answer),
                _floats(answer.normalized),
                _floats(answer.weighted),
                _packed(answer.workings if any(answer.workings) else []),
            )
            for name, answer in entry.answers.items()
        ]

        def insert(connection: sqlite3.Connection) -> None:
            run = number_of(connection)
            cursor = connection.execute(
                "INSERT INTO batches (run, created, step, total_steps, training, rows, texts, totals, in_force, "
                "arithmetic, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (run, time.time(), *fields, checksum(run, *fields)),
            )
            connection.executemany(
                "INSERT INTO answers (batch, reward, raw, notes, normalized, weighted, workings, checksum) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(*answer, checksum(*answer)) for answer in ((cursor.lastrowid, *each) for each in answers)],
            )

        self._database.run(insert, write=True)

    def _run_number(self, connection: sqlite3.Connection) -> int:
        """This run's number; asked for every batch, since the file may have been set aside meanwhile."""
        found = connection.execute("SELECT id FROM runs WHERE token = ?", self._run[:1]).fetchone()
        if found is None:
            found = connection.execute(
                "INSERT INTO runs (token, started, rewards, checksum) VALUES (?, ?, ?, ?) RETURNING id",
                (*self._run, checksum(*self._run)),
            ).fetchone()
        return int(found[0])


class Record:
    """Reads what is recorded in a ledger file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def runs(self) -> list[RecordedRun]:
        """The runs, in the order in which they began."""
        query = (
            "SELECT runs.id, token, started, rewards, runs.checksum, COUNT(batches.id), COALESCE(SUM(rows), 0), "
            "COALESCE(MIN(step), 0) FROM runs "
            "LEFT JOIN batches ON batches.run = runs.id GROUP BY runs.id ORDER BY runs.id"
        )
        found = self._database.run(lambda connection: connection.execute(query).fetchall())
        runs = []
        for number, token, started, rewards, written, *counts in found:
            _check(written == checksum(token, started, rewards), self._database.path, f"run {number}")
            runs.append(RecordedRun(number, started, _rewards(rewards), *counts))
        return runs

    def with_resumed(self, run: RecordedRun, earlier: Sequence[RecordedRun]) -> RecordedRun:
        """A run after those that it resumed: one whose first step is not 0 was resumed from a checkpoint of an earlier one.

        Of each only what came before the step at which it was resumed: the rest was trained anew from the checkpoint.

        Args:
            run: The run.
            earlier: The runs that began before it, in their order.
        """
        for index in reversed(range(len(earlier))):
            before = earlier[index]
            if before.first_step < run.first_step and before.rewards.keys() == run.rewards.keys():
                kept = self._until(before, run.first_step)
                return replace(run, resumed=self.with_resumed(kept, earlier[:index]))
        return run

    def _until(self, run: RecordedRun, step: int) -> RecordedRun:
        """The run as it was when it began to train at a step."""
        query = (
            "SELECT COUNT(*), COALESCE(SUM(rows), 0) FROM batches WHERE run = ?1 AND id < COALESCE("
            "(SELECT MIN(id) FROM batches WHERE run = ?1 AND training AND step >= ?2), id + 1)"
        )
        batches, rows = self._database.run(lambda connection: connection.execute(query, (run.number, step)).fetchone())
        return replace(run, batches=batches, rows=rows)

    def batches(self, run: RecordedRun) -> Iterator[RecordedBatch]:
        """The batches of a run, after those that it resumed, in the order in which they were composed, one at a time."""
        path = self._database.path
        for part in run.parts:
            after = 0
            for _ in range(part.batches):
                found = self._database.run(
                    lambda connection, part=part, after=after: _next_batch(connection, path, part, after)  # type: ignore[misc]
                )
                if found is None:
                    break
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


def _next_batch(
    connection: sqlite3.Connection, path: Path, run: RecordedRun, after: int
) -> tuple[int, RecordedBatch] | None:
    row = connection.execute(
        "SELECT id, step, total_steps, training, rows, texts, totals, in_force, arithmetic, checksum FROM batches "
        "WHERE run = ? AND id > ? ORDER BY id LIMIT 1",
        (run.number, after),
    ).fetchone()
    if row is None:
        return None
    number, *fields, written = row
    _check(written == checksum(run.number, *fields), path, f"batch {number}")
    step, total_steps, training, rows, texts, totals, in_force, arithmetic = fields
    batch = RewardBatch(**_unpacked(texts), progress=Progress(step, total_steps), training=bool(training))
    named = {}
    for *answer, written in connection.execute(
        "SELECT reward, raw, notes, normalized, weighted, workings, checksum FROM answers WHERE batch = ?", (number,)
    ):
        _check(written == checksum(number, *answer), path, f"batch {number}")
        name, raw, notes, normalized, weighted, workings = answer
        named[name] = _answer(raw, notes, normalized, weighted, workings, rows)
    _check(named.keys() == run.rewards.keys(), path, f"batch {number}")
    return number, RecordedBatch(batch, _array(totals), named, json.loads(in_force), _unpacked(arithmetic))


def _plain(value: Any) -> Any:
    """A scalar of numpy as Python has it."""
    return value.item() if isinstance(value, np.generic) else value


def _packed(value: Any) -> bytes:
    return zlib.compress(json.dumps(value, default=repr).encode(), _TEXT_LEVEL)


def _unpacked(packed: bytes) -> Any:
    return json.loads(zlib.decompress(packed))


def _check(unchanged: bool, path: Path, what: str) -> None:  # noqa: FBT001 - what is checked
    if not unchanged:
        raise LedgerError(
            f"{path}: the recorded {what} is not what was written: the disk, or something else, changed it",
            hint="take the ledger from a copy, or record the run again",
        )


def _notes(answer: RecordedScores) -> str:
    notes = {
        "failures": dict(answer.failures),
        "reasons": dict(answer.reasons),
        "fallback_reasons": None if answer.fallback_reasons is None else dict(answer.fallback_reasons),
        "cached": _rows(answer.cached),
        "masked": _rows(answer.masked),
        "defaulted": _rows(answer.defaulted),
        "subscores": {
            row: {name: part.record() for name, part in parts.items()} for row, parts in answer.subscores.items()
        },
        "not_asked": None if answer.not_asked is None else dict(answer.not_asked),
        "credit": {row: given.record() for row, given in answer.credit.items() if given.has_parts},
        "credit_scale": None if answer.credit_scale is None else answer.credit_scale.tolist(),
        "imputed": None if answer.imputed is None else dict(answer.imputed),
    }
    kept_empty = {"fallback_reasons", "not_asked", "imputed"}
    return json.dumps(
        {key: value for key, value in notes.items() if value or (key in kept_empty and value is not None)}
    )


def _answer(raw: bytes, notes: str, normalized: bytes, weighted: bytes, workings: bytes, rows: int) -> RecordedScores:
    said: dict[str, Any] = json.loads(notes)
    failures, reasons, fallback_reasons, not_asked = (
        {int(row): text for row, text in said.get(key, {}).items()}
        for key in ("failures", "reasons", "fallback_reasons", "not_asked")
    )
    cached_B, masked_B, defaulted_B = (_mask(said.get(key, []), rows) for key in ("cached", "masked", "defaulted"))
    return RecordedScores(
        _array(raw),
        failures,
        reasons,
        fallback_reasons if "fallback_reasons" in said else None,
        cached_B,
        _array(normalized),
        _array(weighted),
        masked_B,
        defaulted_B,
        _unpacked(workings) or [""] * rows,
        {
            int(row): {name: SubScore.of_record(part) for name, part in parts.items()}
            for row, parts in said.get("subscores", {}).items()
        },
        not_asked if "not_asked" in said else None,
        {int(row): Credit.of_record(given) for row, given in said.get("credit", {}).items()},
        np.array(said["credit_scale"]) if "credit_scale" in said else None,
        {int(row): Imputed(*parts) for row, parts in said["imputed"].items()} if "imputed" in said else None,
    )


def _rewards(text: str) -> dict[str, RecordedReward]:
    return {
        name: RecordedReward(
            **{**fields, **{key: tuple(fields[key]) if fields[key] else None for key in ("range", "ends")}}
        )
        for name, fields in json.loads(text).items()
    }


def _floats(values: Array) -> bytes:
    return values.astype("<f8").tobytes()


def _array(data: bytes) -> Array:
    return np.frombuffer(data, dtype="<f8").astype(np.float64)
