"""A pipeline makes data in steps: its config, the steps of a row, and the resumable job that runs them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from pydantic import Field, PositiveInt

from rlaif_sdk.config import ConfigModel, TableConfig
from rlaif_sdk.config.documents import Described, Document, validate
from rlaif_sdk.config.overrides import overridden
from rlaif_sdk.exceptions import ConfigError, UnknownPluginError
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.files import write_json
from rlaif_sdk.io.jobs import FAILURES_FILE, SUMMARY_FILE
from rlaif_sdk.io.jsonl import Row, row_as_json
from rlaif_sdk.io.run_async import run_async
from rlaif_sdk.io.tables import TableForm, check_writable, read_rows, table_digest, write_rows
from rlaif_sdk.judges.backends import GeneratedText, JudgeBackend, RowError, usage_of
from rlaif_sdk.judges.usage import Usage
from rlaif_sdk.preferences.card import Card, model_facts
from rlaif_sdk.preferences.policy import PolicyConfig, answers, derived_seed, load_policy
from rlaif_sdk.preferences.resumable_job import (
    Concurrency,
    JobJournal,
    JobProgress,
    Note,
    open_job,
    run_concurrently,
)
from rlaif_sdk.preferences.tables import check_text
from rlaif_sdk.types import TextOrConversation

Results = Sequence[Any]
"""A JSON-ready mapping each, or None for a step that is not done."""
_LOCAL_ROWS = 16
"""Rows in one call of a local model: a kill loses the call in hand."""


class PromptsConfig(TableConfig):
    """The prompts to answer, each text or messages."""

    prompt: str = "prompt"
    """The column of the prompts."""
    rows: PositiveInt | None = None
    """Use only so many rows, from the first on; null uses all."""


class OutputConfig(ConfigModel):
    """Where results go. Paths are relative to the file that they stand in."""

    output: str = "made"
    """The folder of the results."""
    format: TableForm = "jsonl"
    """The kind of file that tables are written to."""
    licence: tuple[str, ...] = ()
    """Lines about the licence of what went in and of the results, for the dataset's card."""


class MakeConfig(OutputConfig):
    """What every job that asks models for data has."""

    max_failed_share: float = Field(default=0.1, ge=0, le=1)
    """The job stops when more than this share of the steps fails; it can be resumed."""
    rows_per_call: PositiveInt | None = None
    """Rows in one call of a model: by default 1 for a server, 16 for a local model."""
    calls_at_once: PositiveInt | None = None
    """Calls in progress: by default as many as a server's ``concurrency``, 1 for a local model."""

    def concurrency(self, offered: int | None, local: int) -> Concurrency:
        """How many calls are made at once.

        Args:
            offered: How many the models answer at once; None for a local model.
            local: How many rows a call of a local model has.
        """
        return Concurrency(
            per_call=self.rows_per_call or (1 if offered else local),
            at_once=self.calls_at_once or offered or 1,
            max_failed_share=self.max_failed_share,
        )


class SamplingConfig(MakeConfig):
    """A job whose models answer prompts."""

    prompts: PromptsConfig
    """What is answered."""
    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """At which answers are sampled; 0 is greedy."""
    max_new_tokens: PositiveInt = 256
    """The longest answer."""
    seed: int = 0
    """Of everything that is drawn. A local model samples by it; a job that was stopped on the way makes other batches,
    and so other samples, than one that was not. Servers sample as they like."""


ConfigT = TypeVar("ConfigT", bound=OutputConfig)


@dataclass(frozen=True, slots=True)
class MakeJob(Described, Generic[ConfigT]):
    """A job's config and the document it was read from, which knows the folder and the lines."""

    config: ConfigT
    document: Document

    def policy(self, config: PolicyConfig, *location: str | int) -> JudgeBackend:
        """The model that a part of the config describes.

        Raises:
            ConfigError: It is refused; the message has file, line and key.
        """
        with self.errors_at(*location):
            return load_policy(config)

    @contextmanager
    def errors_at(self, *location: str | int) -> Iterator[None]:
        """Within, an error about a part of the config is told with its file and line, unless it has a file of its own."""
        try:
            yield
        except (ConfigError, UnknownPluginError) as error:
            if isinstance(error, ConfigError) and error.file is not None:
                raise
            raise self.document.error(error.message, location, error.hint) from error

    def prompts_identity(self, prompts: PromptsConfig) -> list[Any]:
        """What a result depends on of the prompts: their content, wherever it is read, and the choice among it."""
        return [table_digest(prompts.source(self.folder)), prompts.prompt, prompts.rows]

    def prompt_rows(self, prompts: PromptsConfig) -> Iterator[Row]:
        """The rows of the prompts' file.

        Raises:
            DataError: A row has no prompt that is text or messages; names it.
        """
        table = prompts.source(self.folder)
        for row, record in enumerate(islice(read_rows(table), prompts.rows), start=1):
            check_text(record, prompts.prompt, table, row)
            yield record


JobSource: TypeAlias = str | Path | Mapping[str, Any] | MakeJob[ConfigT]
"""Where a job comes from: a YAML or JSON file, a mapping, or a loaded job."""


def load_make_job(
    model: type[ConfigT], source: str | Path | Mapping[str, Any], *, overrides: Sequence[str] = ()
) -> MakeJob[ConfigT]:
    """Read and check the config of a job that makes data.

    Args:
        model: The kind of config.
        source: A YAML or JSON file, or a mapping.
        overrides: ``key=value`` each, as after ``--set``.

    Raises:
        ConfigError: The config or an override is refused; the message has file, line and key.
    """
    document = overridden(source, overrides)
    return MakeJob(validate(model, document), document)


def as_make_job(model: type[ConfigT], source: JobSource[ConfigT]) -> MakeJob[ConfigT]:
    """The job that a file, a mapping or a loaded job describes; see `load_make_job`."""
    return source if isinstance(source, MakeJob) else load_make_job(model, source)


def make(
    model: type[ConfigT],
    pipeline: Callable[[MakeJob[ConfigT]], Pipeline],
    source: JobSource[ConfigT],
    progress: JobProgress,
) -> MakeResult:
    """Make data as a config of this kind says; see `run_pipeline`."""
    job = as_make_job(model, source)
    return run_pipeline(job, pipeline(job), progress=progress)


@dataclass(frozen=True, slots=True)
class Task:
    """A row of the job.

    Attributes:
        number: Its place in the job, from 0.
        item: The row as it was read.
        results: What each step before this one came to.
    """

    number: int
    item: Row
    results: Results = ()


@dataclass(frozen=True, slots=True)
class RowResult:
    """What a row comes to.

    Attributes:
        rows: Rows by table.
        skipped: Why something is not in a table, counted.
        counts: Other things worth counting, by name.
    """

    rows: Mapping[str, Sequence[Row]]
    skipped: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


class Pipeline(Protocol):
    """Makes rows in steps, each of which is kept as soon as it is done.

    Attributes:
        tables: The tables that it makes, each with one line that says what it holds.
        steps: The steps of a row.
        chained: A step needs what the step before it came to; where that failed, it is not run.
        concurrency: How many calls its models answer at once; None for a local model.
    """

    tables: Mapping[str, str]
    steps: int
    chained: bool
    concurrency: int | None

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything that a result depends on, by name, JSON-ready."""

    def items(self) -> Iterator[Row]:
        """The rows, checked; read more than once.

        Raises:
            DataError: A row is refused.
        """

    async def run_step(self, step: int, tasks: Sequence[Task]) -> Sequence[Mapping[str, Any] | RowError]:
        """Run a step for several rows: a JSON-ready mapping each, or an error in its place."""

    def row_result(self, task: Task) -> RowResult:
        """What a row comes to: ``results`` has all steps, or where not `chained` those that are done."""

    def card(self) -> Card:
        """The card, without files and counts."""

    def close(self) -> None:
        """Release models."""


SamplingT = TypeVar("SamplingT", bound=SamplingConfig)


class SamplingPipeline(Generic[SamplingT]):
    """What pipelines have in common whose models answer prompts, see `Pipeline`.

    Args:
        job: The job.
        policies: Its models, by what the card calls them.
    """

    chained = True

    def __init__(self, job: MakeJob[SamplingT], policies: Mapping[str, tuple[JudgeBackend, PolicyConfig]]) -> None:
        self.job = job
        self.config = job.config
        self._policies = policies
        limits = [getattr(policy, "concurrency", None) for policy, _ in policies.values()]
        self.concurrency: int | None = None if None in limits else min(limit for limit in limits if limit)

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Pipeline.settings`."""
        config = self.config
        return {
            "prompts file": self.job.prompts_identity(config.prompts),
            "policies": [[name, policy.identity] for name, (policy, _) in self._policies.items()],
            "sampling": [config.temperature, config.max_new_tokens, config.seed],
        }

    def items(self) -> Iterator[Row]:
        """The rows with prompts."""
        return self.job.prompt_rows(self.config.prompts)

    async def answers(
        self, policy: JudgeBackend, prompts: Sequence[TextOrConversation], *seed: object
    ) -> Sequence[GeneratedText | RowError]:
        """What a model answers to each of B prompts, sampled by a seed that is derived from the config's and these parts."""
        return await answers(
            policy,
            prompts,
            max_new_tokens=self.config.max_new_tokens,
            temperature=self.config.temperature,
            seed=derived_seed(self.config.seed, *seed),
        )

    def sampling_card(
        self, title: str, method: str, *, inputs: Mapping[str, str] | None = None, **settings: Any
    ) -> Card:
        """A card with what all such pipelines tell.

        Args:
            title: What the data is.
            method: How it was made.
            inputs: Digests of what went in beside the prompts.
            **settings: What bears on the result beside the way of sampling.
        """
        config = self.config
        return Card(
            title=title,
            method=method,
            files={},
            models={name: model_facts(policy, asked.options()) for name, (policy, asked) in self._policies.items()},
            inputs={config.prompts.file: table_digest(config.prompts.source(self.job.folder)), **(inputs or {})},
            settings={
                **settings,
                **{name: getattr(config, name) for name in ("temperature", "max_new_tokens", "seed")},
            },
        )

    def close(self) -> None:
        """Release the models."""
        for policy, _ in self._policies.values():
            policy.close()


def reply_record(reply: GeneratedText | RowError) -> Mapping[str, Any] | RowError:
    """An answer as the result of a step; an error stays one."""
    if isinstance(reply, RowError):
        return reply
    flags = {"flags": list(reply.flags)} if reply.flags else {}
    return {"text": reply.text, "truncated": reply.truncated, **flags, "usage": reply.usage.record()}


@dataclass(frozen=True, slots=True)
class MakeResult:
    """What came of a job.

    Attributes:
        tables: The files that were written, by table.
        counts: Rows read, written to each table, skipped (``skipped/REASON``) and failed, by name.
        usage: What all requests took, those of earlier runs included.
        failures: The file of the rows that failed, or None.
        card: The dataset's card.
        steps_run: Steps that this run took.
        seconds: What this run took.
    """

    tables: Mapping[str, Path]
    counts: Mapping[str, Any]
    usage: Usage
    failures: Path | None
    card: Path
    steps_run: int
    seconds: float


def run_pipeline(job: MakeJob[Any], pipeline: Pipeline, *, progress: JobProgress = lambda *_: None) -> MakeResult:
    """Make data as a config says.

    Every step of every row is on disk as soon as it is known, so a job that was killed resumes where it stopped.

    Args:
        job: The config.
        pipeline: What makes the rows.
        progress: Called with the steps done so far and all steps.

    Raises:
        ConfigError: The output folder belongs to a job with other settings.
        DataError: The input cannot be read, another process works in the folder, or the disk is full.
        MissingExtraError: Parquet is asked for and pyarrow is not installed.
        JudgeError: A model is out of reach, or more than the stated share of steps fails. The job can be resumed.
    """
    started = time.monotonic()
    tables = {name: job.output / f"{name}.{job.config.format}" for name in pipeline.tables}
    for path in tables.values():
        check_writable(path)
    rows = 0
    for rows, item in enumerate(pipeline.items(), start=1):
        row_as_json(item, "the rows to work on", rows)  # what cannot be written is known before it is paid for
    identity = {name: json_digest(value) for name, value in pipeline.settings.items()}
    with open_job(job.output, identity, rows * pipeline.steps, kind="dataset") as journal:
        before = journal.done
        try:
            run_async(_run_all(job.config, pipeline, journal, lambda: progress(journal.done, rows * pipeline.steps)))
        finally:
            pipeline.close()
        counts = _write(job, pipeline, journal, tables)
        counts = {"rows_read": rows, **counts}
        card = _with_outcome(pipeline, job, tables, counts, journal.usage).write(job.output)
        write_json(job.output / SUMMARY_FILE, {**counts, "usage": journal.usage.record()})
        failures = job.output / FAILURES_FILE
        return MakeResult(
            tables,
            counts,
            journal.usage,
            failures if failures.exists() else None,
            card,
            journal.done - before,
            time.monotonic() - started,
        )


async def _run_all(config: MakeConfig, pipeline: Pipeline, journal: JobJournal, progress: Callable[[], None]) -> None:
    steps = pipeline.steps
    concurrency = config.concurrency(pipeline.concurrency, _LOCAL_ROWS)
    missing = (
        Task(number, item)
        for number, item in enumerate(pipeline.items())
        if not all(journal.is_done(number * steps + step) for step in range(steps))
    )

    async def run_steps(tasks: list[Task], note: Note) -> None:
        known = {task.number: [_done(journal, task.number * steps + step) for step in range(steps)] for task in tasks}
        for step in range(steps):
            due = [
                replace(task, results=known[task.number][:step])
                for task in tasks
                if known[task.number][step] is None and not (pipeline.chained and None in known[task.number][:step])
            ]
            if not due:
                continue
            for task, result in zip(due, await pipeline.run_step(step, due), strict=True):
                note(task.number * steps + step, _record(result))
                known[task.number][step] = None if isinstance(result, RowError) else result

    await run_concurrently(missing, run_steps, journal, concurrency, noun="steps", progress=progress)


def _done(journal: JobJournal, row: int) -> Mapping[str, Any] | None:
    return journal.record(row) if journal.is_done(row) else None


def _record(result: Mapping[str, Any] | RowError) -> Mapping[str, Any]:
    if isinstance(result, RowError):
        return {"error": str(result), "kind": type(result).__name__, "usage": usage_of(result).record()}
    return result


def _write(job: MakeJob[Any], pipeline: Pipeline, journal: JobJournal, tables: Mapping[str, Path]) -> dict[str, Any]:
    """Write the tables in one reading, in constant memory, and count."""
    made: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    others: Counter[str] = Counter()
    failed = 0
    records = journal.records()
    with _writers([*tables.values(), job.output / FAILURES_FILE]) as (*writers, failures):
        for number, item in enumerate(pipeline.items()):
            results = list(islice(records, pipeline.steps))
            known = [result for result in results if result is not None and "error" not in result]
            if len(known) < pipeline.steps:
                failed += 1
                error = next((result for result in results if result and "error" in result), {})
                failures.write({"row": number + 1, **{name: error.get(name) for name in ("error", "kind")}, **item})
                if pipeline.chained:
                    continue
            result = pipeline.row_result(Task(number, item, known))
            skipped.update(result.skipped)
            others.update(result.counts)
            for name, writer in zip(tables, writers, strict=True):
                for row in result.rows.get(name, ()):
                    writer.write(row)
                    made[name] += 1
    if not failed:
        (job.output / FAILURES_FILE).unlink()
    return {
        **{name: made[name] for name in tables},
        "rows_failed": failed,
        **{f"skipped/{why}": count for why, count in sorted(skipped.items())},
        **dict(sorted(others.items())),
    }


@contextmanager
def _writers(paths: Sequence[Path]) -> Iterator[list[Any]]:
    with ExitStack() as stack:
        yield [stack.enter_context(write_rows(path)) for path in paths]


def _with_outcome(
    pipeline: Pipeline, job: MakeJob[Any], tables: Mapping[str, Path], counts: Mapping[str, Any], usage: Usage
) -> Card:
    asked = {name: value for name, value in usage.record().items() if value}
    return replace(
        pipeline.card(),
        files={path.name: pipeline.tables[name] for name, path in tables.items()},
        counts={**counts, **asked},
        licence=job.config.licence,
    )
