"""Many calls of a model at once, each noted in a journal when it is answered, until too much fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from rlaif_sdk.exceptions import JudgeError
from rlaif_sdk.preferences.label_journal import LabelJournal

ItemT = TypeVar("ItemT")
Note = Callable[[int, Mapping[str, Any]], None]
_ENOUGH = 20
"""So many rows must have been tried before a share of failures says something."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is asked at once.

    Attributes:
        per_call: Items in one call.
        at_once: Calls in progress.
        max_failed_share: The share of failed rows, of all that are known, beyond which the job stops.
    """

    per_call: int
    at_once: int
    max_failed_share: float


async def work_through(
    items: Iterator[ItemT],
    ask: Callable[[list[ItemT], Note], Awaitable[None]],
    journal: LabelJournal,
    pace: Pace,
    *,
    noun: str,
    progress: Callable[[], None],
) -> None:
    """Ask about every item, several calls at once.

    Args:
        items: What is missing in the journal.
        ask: One call: it is handed some items, and a function that notes the record of a row when it is known.
        journal: Keeps the records.
        pace: How much at once.
        noun: What the rows are, for errors: ``pairs``.
        progress: Called whenever a call is done.

    Raises:
        JudgeError: More than the allowed share of rows failed, or an error that concerns all of them.
        DataError: The journal cannot be written.
    """
    failures = _Failures(journal, pace.max_failed_share, noun)
    calls: set[asyncio.Task[None]] = set()

    async def call(some: list[ItemT]) -> None:
        await ask(some, failures.note)

    progress()
    try:
        while True:
            while len(calls) < pace.at_once and (some := list(islice(items, pace.per_call))):
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

    def __init__(self, journal: LabelJournal, allowed: float, noun: str) -> None:
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
        known = self._journal.labelled + self._failed
        if known >= enough and self._failed / known > self._allowed:
            raise JudgeError(
                f"{self._failed} of {known} {self._noun} failed, more than max_failed_share ({self._allowed:g}) allows; "
                f"the last time: {self._last}",
                hint="what was done is kept: mend the cause and start the job again, or raise max_failed_share",
            )
