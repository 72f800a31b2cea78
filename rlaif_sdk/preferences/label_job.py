"""Labels a file of pairs with a judge: streamed, resumable, stopped when too much fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.files import write_json
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.tables import check_writable, write_rows, write_table
from rlaif_sdk.judges.pairwise import Pair, PairwiseLabeler
from rlaif_sdk.judges.probe import require_logprobs
from rlaif_sdk.preferences.label_card import label_card
from rlaif_sdk.preferences.label_config import LabelJob, load_label_job
from rlaif_sdk.preferences.label_journal import LabelJournal, open_job
from rlaif_sdk.preferences.label_output import labelled_row
from rlaif_sdk.preferences.label_summary import LabelSummary
from rlaif_sdk.preferences.label_table import PairTable, look_over, pair_rows, read_pairs
from rlaif_sdk.preferences.workload import Note, Pace, work_through

SUMMARY_FILE = "summary.json"
FAILURES_FILE = "failures.jsonl"
_LOCAL_PAIRS_READ, _LOCAL_PAIRS_WRITTEN = 64, 8
"""Pairs in one call of a local model; fewer where it writes, since a kill loses the call in hand."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class LabelResult:
    """What came of a labelling job.

    Attributes:
        summary: Counts, flip rate, position bias, usage.
        labels: The file of labelled pairs, which `rlaif train reward-model` and `rlaif train dpo` take as it is.
        failures: The file of the pairs that failed, or None.
        asked: Pairs that this run asked about; the others were labelled before.
        seconds: What this run took.
    """

    summary: LabelSummary
    labels: Path
    failures: Path | None
    asked: int
    seconds: float


def run_labeling(
    source: str | Path | Mapping[str, Any] | LabelJob,
    *,
    labeler: PairwiseLabeler | None = None,
    progress: Progress = lambda *_: None,
    allow_changed: bool = False,
) -> LabelResult:
    """Label the pairs of a file, as a config says.

    The output folder keeps every label as soon as it is known, so a job that was killed goes on where it stopped, asking
    only about pairs without a label. Memory does not grow with the texts.

    Args:
        source: A YAML or JSON file, a mapping, or a loaded job; see `LabelConfig`.
        labeler: Who labels, in the place of the config's ``judge``, ``prompt`` and way of asking.
        progress: Called with the pairs labelled so far and all pairs.
        allow_changed: Begin anew where the output folder belongs to a job with other settings or pairs; what it holds is
            moved to ``earlier-1/`` in it, or the next number that is free.

    Raises:
        ConfigError: The config is refused, or the output folder belongs to a job with other settings and that is not
            allowed.
        DataError: The pairs cannot be read, another process works in the folder, or the disk is full.
        MissingExtraError: Parquet is asked for and pyarrow is not installed.
        JudgeError: The judge gives no log-probabilities, refuses the key, is exhausted or out of reach, or more than
            the stated share of pairs fails. The job can be resumed.
    """
    job = source if isinstance(source, LabelJob) else load_label_job(source)
    started = time.monotonic()
    check_writable(_labels_file(job))
    table = look_over(job.pairs_file, job.config.pairs)
    asked_by = labeler or job.labeler()
    identity = _identity(job, asked_by, table)
    with open_job(job.output, identity, table.rows, kind="labelling job", allow_changed=allow_changed) as journal:
        before = journal.labelled
        try:
            asyncio.run(_label_all(job, asked_by, journal, lambda: progress(journal.labelled, table.rows)))
        finally:
            if labeler is None:
                asked_by.backend.close()
        summary = LabelSummary(usage=journal.usage)
        labels = _write_results(job, journal, summary, asked_by.fingerprint)
        failures = job.output / FAILURES_FILE
        write_json(job.output / SUMMARY_FILE, {"judge": asked_by.fingerprint, **summary.record()})
        label_card(job, asked_by, table, summary).write(job.output)
        return LabelResult(
            summary,
            labels,
            failures if failures.exists() else None,
            journal.labelled - before + summary.failed,
            time.monotonic() - started,
        )


async def _label_all(
    job: LabelJob, labeler: PairwiseLabeler, journal: LabelJournal, progress: Callable[[], None]
) -> None:
    """Ask about every pair without a label."""
    config = job.config
    concurrency = getattr(labeler.backend, "concurrency", None)
    local = _LOCAL_PAIRS_WRITTEN if labeler.writes else _LOCAL_PAIRS_READ
    pace = Pace(
        per_call=config.pairs_per_call or (1 if concurrency else local),
        at_once=config.calls_at_once or concurrency or 1,
        max_failed_share=config.max_failed_share,
    )
    missing = (
        (row, pair) for row, pair in enumerate(read_pairs(job.pairs_file, config.pairs)) if not journal.is_labelled(row)
    )
    first = list(islice(missing, 1))
    if first and labeler.needs_logprobs:
        await require_logprobs(labeler.backend)

    async def ask(rows: list[tuple[int, Pair]], note: Note) -> None:
        labels = await labeler.label([pair for _, pair in rows])
        for (row, _), label in zip(rows, labels, strict=True):
            note(row, label.record())

    await work_through(chain(first, missing), ask, journal, pace, noun="pairs", progress=progress)


def _labels_file(job: LabelJob) -> Path:
    return job.output / f"labels.{job.config.format}"


def _write_results(job: LabelJob, journal: LabelJournal, summary: LabelSummary, judge: str) -> Path:
    columns = job.config.pairs
    names = (columns.prompt, columns.response_1, columns.response_2)
    labels = _labels_file(job)
    failures = job.output / FAILURES_FILE

    def rows(failed: Callable[[Row], None]) -> Iterator[Row]:
        for row, (record, label) in enumerate(
            zip(pair_rows(job.pairs_file, columns), journal.records(), strict=True), start=1
        ):
            known = label if label is not None and "prob_1" in label else None
            summary.add(known)
            if known is None:
                failed({"row": row, **{name: (label or {}).get(name) for name in ("error", "kind")}, **record})
            elif job.config.ties == "keep" or not known["tie"]:
                prompt, first, second = (record.pop(name) for name in names)
                yield {**labelled_row(prompt, first, second, known, judge), **record}

    with write_rows(failures) as writer:
        write_table(rows(writer.write), labels)
    if not summary.failed:
        failures.unlink()
    return labels


def _identity(job: LabelJob, labeler: PairwiseLabeler, table: PairTable) -> dict[str, str]:
    """What a label depends on, by name: digests, since a folder is often shared and a prompt is long."""
    columns = job.config.pairs
    parts: dict[str, Any] = {
        "pairs file": table.digest,
        "columns": [columns.prompt, columns.response_1, columns.response_2],
        **labeler.settings,
    }
    return {name: json_digest(value) for name, value in parts.items()}
