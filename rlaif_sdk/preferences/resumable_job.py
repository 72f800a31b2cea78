"""A job that survives a kill at any instant: its journal, how it resumes, and many calls of a model at once."""

from __future__ import annotations

import asyncio
import json
import os
import warnings
from array import array
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from rlaif_sdk.exceptions import DataError, JudgeError
from rlaif_sdk.io.jobs import JOURNAL_FILE, claim, locked
from rlaif_sdk.io.text import SURROGATES, is_safe_text, safe_text
from rlaif_sdk.judges.usage import NO_USAGE, Usage

JobProgress = Callable[[int, int], None]
"""Called with what is done so far and all that is to do."""
_MISSING = -1

ItemT = TypeVar("ItemT")
Note = Callable[[int, Mapping[str, Any]], None]
_ENOUGH = 20
"""So many rows must have been tried before a share of failures says something."""


class JobJournal:
    """What a job has done: one line a row, appended as soon as it is known; of two lines about one row the later counts.

    A row is a pair that was labelled, or a step of a pipeline. A line with an ``error`` stands for a row that failed.

    Memory holds nine bytes a row, whatever the texts. A last line that was torn by a kill is dropped; a line that
    cannot be read is as good as missing.

    Attributes:
        done: How many rows are done.
        usage: What all requests of the job took, those of earlier runs and of failed rows included.
    """

    def __init__(self, path: Path, rows: int) -> None:
        self._path = path
        self._offsets = array("q", [_MISSING]) * rows
        self._is_done = bytearray(rows)
        self.done = 0
        self.usage: Usage = NO_USAGE
        self._end = 0
        self._file: BinaryIO = self._repaired()

    def is_done(self, row: int) -> bool:
        """Whether a row, counted from 0, is done."""
        return bool(self._is_done[row])

    def append(self, row: int, record: Mapping[str, Any]) -> None:
        """Add what is known of a row: its record, or the error in its place.

        A lone surrogate in it, as of words that a model cut within a character, is replaced, which ``flags`` then says.

        Raises:
            DataError: The disk is full, or the file cannot be written for another reason.
        """
        text = _line(row, record)
        if not is_safe_text(text):
            text = safe_text(_line(row, {**record, "flags": [*record.get("flags", ()), SURROGATES]}))
        line = text.encode()
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(f"only {written} of {len(line)} bytes could be written")
        except OSError as error:
            raise DataError(
                f"cannot be written: {error}",
                file=str(self._path),
                hint="make room, then start the job again: it resumes where it stopped",
            ) from error
        self._take(row, self._end, record)
        self._end += len(line)

    def record(self, row: int) -> dict[str, Any] | None:
        """What is known of one row, counted from 0: its record, an error, or None."""
        if self._offsets[row] == _MISSING:
            return None
        with self._path.open("rb") as file:
            file.seek(self._offsets[row])
            found: dict[str, Any] = json.loads(file.readline())
        return found

    def records(self) -> Iterator[dict[str, Any] | None]:
        """What is known of each row in order: its record, an error, or None."""
        with self._path.open("rb") as file:
            for offset in self._offsets:
                if offset == _MISSING:
                    yield None
                    continue
                if file.tell() != offset:
                    file.seek(offset)
                yield json.loads(file.readline())

    def close(self) -> None:
        """Put everything on the disk."""
        os.fsync(self._file.fileno())
        self._file.close()

    def _take(self, row: int, offset: int, record: Mapping[str, Any]) -> None:
        self.usage += Usage.of_record(record.get("usage") or {})
        known = "error" not in record
        if known or not self._is_done[row]:
            self._offsets[row] = offset
        if known:
            self.done += not self._is_done[row]
            self._is_done[row] = True

    def _repaired(self) -> BinaryIO:
        """Read what is there, cut off a torn end, and open the file for more."""
        unreadable = 0
        if self._path.exists():
            with self._path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    record = _parsed(line, len(self._offsets))
                    if record is None:
                        unreadable += 1
                    else:
                        self._take(record["row"], self._end, record)
                    self._end += len(line)
            os.truncate(self._path, self._end)
        if unreadable:
            warnings.warn(f"{self._path}: {unreadable} lines cannot be read; those rows are done again", stacklevel=4)
        return self._path.open("ab", buffering=0)


def _line(row: int, record: Mapping[str, Any]) -> str:
    return json.dumps({"row": row, **record}, ensure_ascii=False, allow_nan=False) + "\n"


def _parsed(line: bytes, rows: int) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
        usable = isinstance(record["row"], int) and 0 <= record["row"] < rows and len(record) > 1
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return record if usable else None


@contextmanager
def open_job(
    folder: Path, identity: Mapping[str, str], rows: int, *, kind: str, allow_changed: bool = False
) -> Iterator[JobJournal]:
    """The journal in a job's folder, open to this process only.

    Args:
        folder: Made if it is not there.
        identity: What the results depend on, a digest each; a folder belongs to one.
        rows: How many rows there are.
        kind: What the job is called.
        allow_changed: Begin anew in a folder of another identity; what it holds is moved to ``__job__/earlier-1/``, or
            the next number that is free.

    Raises:
        ConfigError: The folder was begun with another identity, and that is not allowed; names what differs.
        DataError: Another process works in the folder.
    """
    with locked(folder):
        claim(
            folder,
            identity,
            kind=kind,
            on_change="set_aside" if allow_changed else "refuse",
            results=[JOURNAL_FILE],
            hint="name another output folder, or set the config back to resume this one",
        )
        journal = JobJournal(folder / JOURNAL_FILE, rows)
        try:
            yield journal
        finally:
            journal.close()


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How many calls are made at once.

    Attributes:
        per_call: Items in one call.
        at_once: Calls in progress.
        max_failed_share: The share of failed rows, of all that are known, beyond which the job stops.
    """

    per_call: int
    at_once: int
    max_failed_share: float


async def run_concurrently(
    items: Iterator[ItemT],
    ask: Callable[[list[ItemT], Note], Awaitable[None]],
    journal: JobJournal,
    concurrency: Concurrency,
    *,
    noun: str,
    progress: Callable[[], None],
) -> None:
    """Ask about every item, several calls at once.

    Args:
        items: What is missing in the journal.
        ask: One call: it is handed some items, and a function that notes the record of a row when it is known.
        journal: Keeps the records.
        concurrency: How many calls at once.
        noun: What the rows are, for errors: ``pairs``.
        progress: Called whenever a call is done.

    Raises:
        JudgeError: More than the allowed share of rows failed, or an error that concerns all of them.
        DataError: The journal cannot be written.
    """
    failures = _Failures(journal, concurrency.max_failed_share, noun)
    calls: set[asyncio.Task[None]] = set()

    async def call(some: list[ItemT]) -> None:
        await ask(some, failures.note)

    progress()
    try:
        while True:
            while len(calls) < concurrency.at_once and (some := list(islice(items, concurrency.per_call))):
                calls.add(asyncio.create_task(call(some)))
            if not calls:
                return failures.stop_if_too_many(enough=1)
            done, calls = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.gather(*done)  # the first error; those of calls that failed with it are taken as told
            failures.stop_if_too_many(enough=_ENOUGH)
            progress()
    finally:
        for begun in calls:
            begun.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


class _Failures:
    """Counts what failed in this run, among all that is known of the job."""

    def __init__(self, journal: JobJournal, allowed: float, noun: str) -> None:
        self._journal = journal
        self._allowed = allowed
        self._noun = noun
        self._failed = 0
        self._last = ""

    def note(self, row: int, record: Mapping[str, Any]) -> None:
        self._journal.append(row, record)
        if "error" in record:
            self._failed += 1
            self._last = str(record["error"])

    def stop_if_too_many(self, *, enough: int) -> None:
        """Raise if too many failed of the rows known so far, those of earlier runs included."""
        known = self._journal.done + self._failed
        if known >= enough and self._failed / known > self._allowed:
            raise JudgeError(
                f"{self._failed} of {known} {self._noun} failed, more than max_failed_share ({self._allowed:g}) allows; "
                f"the last time: {self._last}",
                hint="what was done is kept: mend the cause and start the job again, or raise max_failed_share",
            )
