"""Runs a job that makes data: step by step, streamed, resumable, with a card beside the result."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.files import write_json
from rlaif_sdk.io.jsonl import row_as_json
from rlaif_sdk.io.tables import check_writable, write_rows
from rlaif_sdk.judges.backends import RowError, usage_of
from rlaif_sdk.judges.usage import Usage
from rlaif_sdk.preferences.card import Card
from rlaif_sdk.preferences.label_journal import LabelJournal, open_job
from rlaif_sdk.preferences.make_config import MakeConfig, MakeJob
from rlaif_sdk.preferences.maker import Maker, Task
from rlaif_sdk.preferences.workload import Note, Pace, work_through

SUMMARY_FILE = "summary.json"
FAILURES_FILE = "failures.jsonl"
_LOCAL_ROWS = 16
"""Rows in one call of a local model: a kill loses the call in hand."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class MakeResult:
    """What came of a job.

    Attributes:
        tables: The files that were written, by table.
        counts: Rows read, made, left out and failed.
        usage: What all requests took, those of earlier runs included.
        failures: The file of the rows that failed, or None.
        card: The dataset's card.
        taken: Steps that this run took.
        seconds: What this run took.
    """

    tables: Mapping[str, Path]
    counts: Mapping[str, Any]
    usage: Usage
    failures: Path | None
    card: Path
    taken: int
    seconds: float


def run_maker(job: MakeJob[Any], maker: Maker, *, progress: Progress = lambda *_: None) -> MakeResult:
    """Make data as a config says.

    Every step of every row is on disk as soon as it is known, so a job that was killed goes on where it stopped.

    Args:
        job: The config.
        maker: What makes the rows.
        progress: Called with the steps done so far and all steps.

    Raises:
        ConfigError: The output folder belongs to a job with other settings.
        DataError: The input cannot be read, another process works in the folder, or the disk is full.
        MissingExtraError: Parquet is asked for and pyarrow is not installed.
        JudgeError: A model is out of reach, or more than the stated share of steps fails. The job can be resumed.
    """
    started = time.monotonic()
    tables = {name: job.output / f"{name}.{job.config.format}" for name in maker.tables}
    for path in tables.values():
        check_writable(path)
    rows = 0
    for rows, item in enumerate(maker.items(), start=1):
        row_as_json(item, "the rows to work on", rows)  # what cannot be written is known before it is paid for
    identity = {name: json_digest(value) for name, value in maker.settings.items()}
    with open_job(job.output, identity, rows * maker.steps, kind="dataset") as journal:
        before = journal.labelled
        try:
            asyncio.run(_take_all(job.config, maker, journal, lambda: progress(journal.labelled, rows * maker.steps)))
        finally:
            maker.close()
        counts = _write(job, maker, journal, tables)
        counts = {"rows read": rows, **counts}
        card = _with_outcome(maker, job, tables, counts, journal.usage).write(job.output)
        write_json(job.output / SUMMARY_FILE, {**counts, "usage": journal.usage.record()})
        failures = job.output / FAILURES_FILE
        return MakeResult(
            tables,
            counts,
            journal.usage,
            failures if failures.exists() else None,
            card,
            journal.labelled - before,
            time.monotonic() - started,
        )


async def _take_all(config: MakeConfig, maker: Maker, journal: LabelJournal, progress: Callable[[], None]) -> None:
    steps = maker.steps
    pace = Pace(
        per_call=config.rows_per_call or (1 if maker.concurrency else _LOCAL_ROWS),
        at_once=config.calls_at_once or maker.concurrency or 1,
        max_failed_share=config.max_failed_share,
    )
    missing = (
        Task(number, item)
        for number, item in enumerate(maker.items())
        if not all(journal.is_labelled(number * steps + step) for step in range(steps))
    )

    async def take(tasks: list[Task], note: Note) -> None:
        known = {task.number: [_done(journal, task.number * steps + step) for step in range(steps)] for task in tasks}
        for step in range(steps):
            due = [
                replace(task, results=known[task.number][:step])
                for task in tasks
                if known[task.number][step] is None and not (maker.chained and None in known[task.number][:step])
            ]
            if not due:
                continue
            for task, result in zip(due, await maker.take(step, due), strict=True):
                note(task.number * steps + step, _record(result))
                known[task.number][step] = None if isinstance(result, RowError) else result

    await work_through(missing, take, journal, pace, noun="steps", progress=progress)


def _done(journal: LabelJournal, row: int) -> Mapping[str, Any] | None:
    return journal.record(row) if journal.is_labelled(row) else None


def _record(result: Mapping[str, Any] | RowError) -> Mapping[str, Any]:
    if isinstance(result, RowError):
        return {"error": str(result), "kind": type(result).__name__, "usage": usage_of(result).record()}
    return result


def _write(job: MakeJob[Any], maker: Maker, journal: LabelJournal, tables: Mapping[str, Path]) -> dict[str, Any]:
    """Write the tables in one reading, in constant memory, and count."""
    made: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    noted: Counter[str] = Counter()
    failed = 0
    records = journal.records()
    with _writers([*tables.values(), job.output / FAILURES_FILE]) as (*writers, failures):
        for number, item in enumerate(maker.items()):
            results = list(islice(records, maker.steps))
            known = [result for result in results if result is not None and "error" not in result]
            if len(known) < maker.steps:
                failed += 1
                error = next((result for result in results if result and "error" in result), {})
                failures.write({"row": number + 1, **{name: error.get(name) for name in ("error", "kind")}, **item})
                if maker.chained:
                    continue
            outcome = maker.made(Task(number, item, known))
            left_out.update(outcome.left_out)
            noted.update(outcome.noted)
            for name, writer in zip(tables, writers, strict=True):
                for row in outcome.rows.get(name, ()):
                    writer.write(row)
                    made[name] += 1
    if not failed:
        (job.output / FAILURES_FILE).unlink()
    return {
        **{name: made[name] for name in tables},
        "rows failed": failed,
        **{f"left out: {why}": count for why, count in sorted(left_out.items())},
        **dict(sorted(noted.items())),
    }


@contextmanager
def _writers(paths: Sequence[Path]) -> Iterator[list[Any]]:
    with ExitStack() as stack:
        yield [stack.enter_context(write_rows(path)) for path in paths]


def _with_outcome(
    maker: Maker, job: MakeJob[Any], tables: Mapping[str, Path], counts: Mapping[str, Any], usage: Usage
) -> Card:
    asked = {name: value for name, value in usage.record().items() if value}
    return replace(
        maker.card(),
        files={path.name: maker.tables[name] for name, path in tables.items()},
        counts={**counts, **asked},
        licence=job.config.licence,
    )
