"""A ledger: every raw score once, and every composed batch, in one file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.ledger.cache import CachedReward, LedgerCache, ScoreTable, open_cache
from rlaif_sdk.composer.ledger.record import Record, RecordedBatch, RecordedReward, RecordedRun, Recorder
from rlaif_sdk.composer.stages import columns_looked_at
from rlaif_sdk.conversations import USER, shown
from rlaif_sdk.exceptions import LedgerError
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.jobs import JOB_FOLDER
from rlaif_sdk.io.sqlite import Database, Schema
from rlaif_sdk.io.tables import is_table_file
from rlaif_sdk.rewards import stated_by
from rlaif_sdk.statistics.arrays import json_number

_TABLES = (
    # The cache: which rewards there are scores of, and the scores by content key.
    """
    CREATE TABLE rewards (
        id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, name TEXT NOT NULL, version TEXT NOT NULL,
        revision TEXT NOT NULL, params TEXT NOT NULL
    )""",
    """
    CREATE TABLE scores (
        key BLOB PRIMARY KEY, reward INTEGER NOT NULL REFERENCES rewards (id), value REAL NOT NULL, extra TEXT,
        created INTEGER NOT NULL, checksum INTEGER NOT NULL
    ) WITHOUT ROWID""",
    # The record: each composer that wrote is a run; a batch is one row, its numbers little-endian 64-bit floats.
    """
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY AUTOINCREMENT, token TEXT NOT NULL UNIQUE, started REAL NOT NULL, rewards TEXT NOT NULL,
        checksum INTEGER NOT NULL
    )""",
    """
    CREATE TABLE batches (
        id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL REFERENCES runs (id), created REAL NOT NULL,
        step INTEGER NOT NULL, total_steps INTEGER, training INTEGER NOT NULL, rows INTEGER NOT NULL,
        texts BLOB NOT NULL, totals BLOB NOT NULL, in_force TEXT NOT NULL, arithmetic BLOB NOT NULL,
        checksum INTEGER NOT NULL
    )""",
    "CREATE INDEX batches_of_run ON batches (run)",
    """
    CREATE TABLE answers (
        batch INTEGER NOT NULL REFERENCES batches (id), reward TEXT NOT NULL, raw BLOB NOT NULL, notes TEXT NOT NULL,
        normalized BLOB NOT NULL, weighted BLOB NOT NULL, workings BLOB NOT NULL, checksum INTEGER NOT NULL,
        PRIMARY KEY (batch, reward)
    ) WITHOUT ROWID""",
)


def _error(path: Path, message: str, hint: str | None) -> LedgerError:
    return LedgerError(f"{path}: {message}", hint=hint)


LEDGER = Schema(
    name="ledger", application_id=0x524C4146, version=4, tables=_TABLES, error=_error, replace_corrupt=True
)  # RLAF


FILE_NAME = "ledger.sqlite"
"""What a ledger is called in a run's folder."""


def ledger_of(table: Path) -> Path:
    """Where `rlaif score` keeps the ledger of a table that it writes: in the job's folder beside it."""
    return table.parent / JOB_FOLDER / f"{table.name}.{FILE_NAME}"


class Ledger:
    """A file that keeps scores, so that none is paid for twice, and records what was composed of them.

    Threads, forks and several processes may use one file at once; a process that is killed loses what it had not yet
    written, and harms nothing.

    Args:
        path: The file. It is made if need be; one that is corrupt is renamed, with a warning.
        cache: Look scores up before a reward is asked, and keep those that it gives; ``costly`` only of installed
            plugins that load something or are async.
        record: Record every composed batch.
        create: False to read what is there, keeping no new scores: a missing or corrupt file is then an error.

    Raises:
        LedgerError: The file cannot be opened, or is no ledger.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        cache: bool | Literal["costly"] = True,
        record: bool = True,
        create: bool = True,
    ) -> None:
        self.path = Path(path)
        self.cache = cache
        self.record = record
        self._database = Database(path, LEDGER, create=create)
        self._scores = ScoreTable(self._database, keeps=create)
        self._record = Record(self._database)

    @classmethod
    def find(cls, run: str | Path) -> Ledger:
        """The ledger of a run, to read: the file itself, a folder with one, or a table that `rlaif score` wrote.

        Raises:
            LedgerError: There is none, or there are several.
        """
        path = Path(run)
        if (own := ledger_of(path)).is_file():
            path = own
        elif path.is_dir():
            named = path / FILE_NAME
            files = [named] if named.is_file() else sorted(path.glob("*.sqlite"))
            if len(files) != 1:
                found = ", ".join(file.name for file in files) or "none"
                raise LedgerError(
                    f"{path}: one ledger is wanted in this folder, found: {found}",
                    hint="name the file"
                    if len(files) > 1
                    else "a run keeps one unless its composition has 'ledger: false'",
                )
            path = files[0]
        elif is_table_file(path):
            hint = (
                "rlaif score keeps one of each table that it writes, unless the composition names a file or has "
                "'ledger: false'; rlaif explain scores a table now if it is given the composition too"
            )
            raise LedgerError(f"{path}: there is no ledger of this table", hint=hint)
        return cls(path, create=False)

    def reward_cache(self, name: str, component: Component) -> LedgerCache | None:
        """A reward's scores in this ledger; None where they are not kept."""
        return open_cache(name, component, self._scores, costly=self.cache == "costly") if self.cache else None

    def recorder(self, components: Mapping[str, Component]) -> Recorder | None:
        """What records a composer's batches as a run; None if nothing is recorded."""
        if not self.record:
            return None
        rewards = {name: recorded_reward(part) for name, part in components.items()}
        return Recorder(self._database, rewards, columns_looked_at(components))

    def runs(self) -> list[RecordedRun]:
        """The recorded runs, in the order in which they began."""
        return self._record.runs()

    def batches(self, run: RecordedRun | None = None) -> Iterator[RecordedBatch]:
        """The batches of a run of `runs` or `run`, in the order in which they were composed; of ``run()`` if None.

        Raises:
            LedgerError: No run is recorded.
        """
        return self._record.batches(run or self.run())

    def run(self, number: int | None = None) -> RecordedRun:
        """A recorded run alone; without a number the last one, with the runs of the same training that it resumed.

        Raises:
            LedgerError: There is no such run.
        """
        runs = self.runs()
        if number is None and runs:
            return self._record.with_resumed(runs[-1], runs[:-1])
        for run in runs:
            if number == run.number:
                return run
        which = "no run is recorded" if number is None else f"no run {number} is recorded"
        known = f"runs: {', '.join(str(run.number) for run in runs)}"
        nothing = "nothing has been composed with it yet, or its composition has 'record: false' under 'ledger:'"
        raise LedgerError(f"{self.path}: {which}", hint=known if runs else nothing)

    def rows(self, run: int | None = None) -> Iterator[dict[str, Any]]:
        """One JSON-ready mapping for each recorded row, for a table; of one run, or of all.

        Batches and rows of a run count from 1, as ``rlaif explain --run --row`` does.

        Raises:
            LedgerError: There is no such run.
        """
        for found in self.runs() if run is None else [self.run(run)]:
            row = 1
            for number, entry in enumerate(self._record.batches(found), 1):
                yield from _rows(found.number, number, row, entry)
                row += len(entry.totals)

    def cached_rewards(self) -> list[CachedReward]:
        """The rewards that there are cached scores of."""
        return self._scores.rewards()

    def prune(self, *, reward: str | None = None, before: float | None = None, runs: bool = False) -> tuple[int, int]:
        """Forget cached scores of a reward, or made before a time in seconds since 1970; runs too if asked.

        Returns:
            How many scores and how many runs were forgotten.

        Raises:
            LedgerError: The file cannot be written.
        """
        scores = self._scores.delete(reward=reward, before=before)
        forgotten = self._record.delete(before=before) if runs else 0
        self._database.vacuum()
        return scores, forgotten

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def recorded_reward(component: Component) -> RecordedReward:
    """What is recorded of a reward."""
    recipe, reward = component.recipe, component.reward
    return RecordedReward(
        use=recipe.use if recipe else "",
        version=stated_by(reward)["version"],
        params=json_digest(recipe.params) if recipe else "",
        range=reward.range,
        higher_is_better=reward.higher_is_better,
        ends=reward.ends,
    )


def _rows(run: int, number: int, first_row: int, entry: RecordedBatch) -> Iterator[dict[str, Any]]:
    batch = entry.batch
    weights = entry.in_force["weights"]
    for row, total in enumerate(entry.totals):
        yield {
            "run": run,
            "batch": number,
            "step": batch.progress.step,
            "training": batch.training,
            "row": first_row + row,
            "group": None if batch.group is None else batch.group[row],
            "prompt": shown(batch.prompts[row], role=USER),
            "completion": shown(batch.completions[row]),
            "total": json_number(total),
            "rewards": {
                name: {
                    "raw": json_number(answer.raw[row]),
                    "weight": weights[name],
                    "failure": answer.failures.get(row),
                    "reason": answer.reasons.get(row),
                    "not_asked": (answer.not_asked or {}).get(row),
                    "cached": bool(answer.cached[row]),
                    **({"imputed": answer.imputed[row].value} if answer.imputed and row in answer.imputed else {}),
                }
                for name, answer in entry.answers.items()
            },
        }
