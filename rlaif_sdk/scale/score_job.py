"""``rlaif score --engine ray``: a table is scored shard by shard, by actors that make the composer once."""

from __future__ import annotations

import json
import logging
import math
import time
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.composer import Composer
from rlaif_sdk.composer.tables import Moments, Summary, TableLayout, chunks, reward_type, typed_records
from rlaif_sdk.config.documents import Document, load_document
from rlaif_sdk.exceptions import ConfigError, DataError, RlaifError
from rlaif_sdk.integrations.host import check_rowwise, load_state
from rlaif_sdk.io.arrow import Columns, arrow
from rlaif_sdk.io.digests import file_digest, json_digest
from rlaif_sdk.io.files import write_json
from rlaif_sdk.io.jobs import JOB_FOLDER, SUMMARY_FILE, claim, locked
from rlaif_sdk.io.jsonl import Row, row_as_json
from rlaif_sdk.io.ranges import ranged_file
from rlaif_sdk.io.redaction import without_secrets
from rlaif_sdk.io.tables import TableName, table_digest
from rlaif_sdk.plugins.references import code_digests
from rlaif_sdk.rewards.coercion import stated_by
from rlaif_sdk.scale.cluster import Workers, connected, import_ray, typed
from rlaif_sdk.scale.shards import (
    Plan,
    Shard,
    count_attempt,
    finished_part,
    forget_attempts,
    plan_shards,
    read_shard,
    write_part,
)
from rlaif_sdk.types import RewardBatch

if TYPE_CHECKING:
    import pyarrow as pa


def summary_record(summary: Summary) -> dict[str, Any]:
    """A summary as a JSON-ready mapping; minimum and maximum are null without values."""
    return {
        "rows": summary.rows,
        "unscored": summary.unscored,
        "first_unscored": summary.first_unscored,
        "columns": {
            name: {
                "count": moments.count,
                "mean": moments.mean,
                "m2": moments.m2,
                "low": moments.low if moments.count else None,
                "high": moments.high if moments.count else None,
                "failed": moments.failed,
                "not_asked": moments.not_asked,
                "first_failed": moments.first_failed,
                "seconds": moments.seconds,
            }
            for name, moments in summary.columns.items()
        },
        "ends": summary.ends,
    }


def summary_of_record(record: Mapping[str, Any]) -> Summary:
    """The summary that `summary_record` wrote."""
    columns = {}
    for name, kept in record["columns"].items():
        low, high = (math.inf, -math.inf) if kept["low"] is None else (kept["low"], kept["high"])
        columns[name] = Moments(
            **{**kept, "low": low, "high": high, "first_failed": _row_and_why(kept["first_failed"])}
        )
    ends = {name: (low, high) for name, (low, high) in record["ends"].items()}
    return Summary(record["rows"], record["unscored"], columns, _row_and_why(record["first_unscored"]), ends=ends)


def _row_and_why(kept: Sequence[Any] | None) -> tuple[int, str] | None:
    return None if kept is None else (kept[0], kept[1])


def merge_summaries(whole: Summary, part: Summary) -> None:
    """Take the next part into the whole (Chan, Golub and LeVeque 1979)."""
    before = whole.rows
    if whole.first_unscored is None and part.first_unscored is not None:
        row, why = part.first_unscored
        whole.first_unscored = (before + row, why)
    whole.rows += part.rows
    whole.unscored += part.unscored
    whole.ends |= part.ends
    for name, own in part.columns.items():
        moments = whole.columns.setdefault(name, Moments())
        if moments.first_failed is None and own.first_failed is not None:
            row, why = own.first_failed
            moments.first_failed = (before + row, why)
        moments.failed += own.failed
        moments.not_asked += own.not_asked
        moments.seconds += own.seconds
        if not own.count:
            continue
        count = moments.count + own.count
        delta = own.mean - moments.mean
        moments.m2 += own.m2 + delta**2 * moments.count * own.count / count
        moments.mean += delta * own.count / count
        moments.count = count
        moments.low, moments.high = min(moments.low, own.low), max(moments.high, own.high)


def summary_report(summary: Summary) -> dict[str, Any]:
    """What ``__job__/summary.json`` says: rows, unscored rows, the first of them, each reward's failures and moments."""
    return {
        "rows": summary.rows,
        "unscored": summary.unscored,
        "first_unscored": summary.first_unscored,
        "rewards": {
            name: {
                "scored": moments.count,
                "failed": moments.failed,
                **({"not_asked": moments.not_asked} if moments.not_asked else {}),
                **{key: value for key, value in _moments(moments).items() if moments.count},
            }
            for name, moments in summary.columns.items()
        },
    }


def _moments(moments: Moments) -> dict[str, float]:
    return {"mean": moments.mean, "std": moments.std, "min": moments.low, "max": moments.high}


_CHUNK = 1024


@dataclass(slots=True)
class Findings:
    """What is known of rows that were looked over.

    Attributes:
        columns: Every column that any row has, in order of appearance, and the kind of its values.
        groups: 64-bit digests of the groups' labels, one for each run of rows with one label; a row without a label is
            a group of its own and none of these.
        first_rows: The first row of each run.
    """

    columns: Columns = field(default_factory=Columns)
    groups: array[int] = field(default_factory=lambda: array("Q"))
    first_rows: array[int] = field(default_factory=lambda: array("Q"))


def inspect_shard(file: Path, shard: Shard, layout: TableLayout) -> Findings:
    """Read the rows of a shard, and refuse what cannot be scored or written.

    Raises:
        DataError: A row cannot be read, lacks its prompt or completion, or holds what no file can; names the row.
    """
    found = Findings()
    row = shard.first_row
    label: Any = None
    for chunk in _chunks(read_shard(file, shard)):
        RewardBatch.from_records(
            chunk, **asdict(layout), columns=[layout.group] if layout.group else (), first_row=row, file=str(file)
        )
        for record in chunk:
            found.columns.add(record)
            row_as_json(record, str(file), row)  # a column may turn out to be JSON in another shard
            own = None if layout.group is None else record.get(layout.group)
            if own is not None and (row == shard.first_row or own != label):
                found.groups.append(_group_digest(own))
                found.first_rows.append(row)
            label = own
            row += 1
    return found


def merge_findings(parts: Iterable[Findings], file: Path) -> Findings:
    """What is known of the whole table, from its shards in their order.

    Raises:
        DataError: The rows of a group do not stand together.
    """
    import numpy as np

    whole = Findings()
    for part in parts:
        whole.columns.unite(part.columns)
        whole.groups.extend(part.groups)
        whole.first_rows.extend(part.first_rows)
    groups = np.frombuffer(whole.groups, dtype=np.uint64) if whole.groups else np.empty(0, np.uint64)
    order = np.argsort(groups, kind="stable")
    again = np.flatnonzero(groups[order][1:] == groups[order][:-1])
    if len(again):
        here, there = (whole.first_rows[order[again[0] + place]] for place in (0, 1))
        raise DataError(
            f"rows {here} and {there} are of one group, and rows of others stand between them",
            file=str(file),
            hint="sort the table by the group's column",
        )
    return whole


def _chunks(records: Iterator[Row]) -> Iterator[list[Row]]:
    while chunk := list(islice(records, _CHUNK)):
        yield chunk


def _group_digest(label: Any) -> int:
    return int(json_digest(label, default=repr)[:16], 16)


@dataclass(frozen=True, slots=True)
class ScoreTask:
    """What a worker must know to score a shard; it is sent to other processes.

    Attributes:
        file: The table.
        config: The composition: a file, or a mapping.
        output: The folder of the results.
        layout: Which columns are what.
        schema: The columns of the results.
        columns: The table's columns.
        reward_column: The column that is added.
        chunk: About how many rows are composed at once.
        state: A composer's saved state, or None.
    """

    file: Path
    config: Path | Mapping[str, Any]
    output: Path
    layout: TableLayout
    schema: pa.Schema
    columns: tuple[str, ...]
    reward_column: str
    chunk: int
    state: Path | None


class ShardScorer:
    """Scores shards with one composer, whose statistics stay as they are.

    Raises:
        ConfigError: The config or the state is refused.
    """

    def __init__(self, task: ScoreTask) -> None:
        self._task = task
        self._composer = Composer.from_config(task.config)
        if task.state is not None:
            self._composer.load_state_dict(load_state(task.state))

    def score(self, shard: Shard, key: str) -> dict[str, Any]:
        """Score a shard and write its part.

        Returns:
            Its summary's record; see `summary_record`.

        Raises:
            RlaifError: A row is refused, a reward with the policy ``raise`` fails, or it ends its workers.
        """
        task = self._task
        count_attempt(task.output, shard)
        summary = Summary()
        record: dict[str, Any] = {}
        rows = self._rows(shard, summary, record)
        write_part(task.output, shard, key, schema=task.schema, rows=rows, summary=record)
        return record

    def _rows(self, shard: Shard, summary: Summary, record: dict[str, Any]) -> Iterator[list[Row]]:
        task = self._task
        row = shard.first_row
        shard_rows = read_shard(task.file, shard)
        for records in chunks(shard_rows, task.layout, rows=task.chunk, first_row=row, file=str(task.file)):
            batch = RewardBatch.from_records(
                records, **asdict(task.layout), columns=task.columns, first_row=row, training=False, file=str(task.file)
            )
            composition = self._composer.compose(batch)
            summary.add(composition)
            yield [
                {**record, task.reward_column: reward}
                for record, reward in zip(records, typed_records(composition), strict=True)
            ]
            row += len(records)
        record.update(summary_record(summary))

    def close(self) -> None:
        """Close the composer."""
        self._composer.close()


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """What came of scoring a table.

    Attributes:
        summary: What is known of the whole table.
        output: The folder with the parts, and ``__job__/summary.json`` in it.
        shards: How many parts there are.
        resumed: How many of them an earlier run had finished.
        seconds: What this run took.
    """

    summary: Summary
    output: Path
    shards: int
    resumed: int
    seconds: float


def score_table(
    file: TableName,
    config: str | Path | Mapping[str, Any],
    output: str | Path,
    *,
    layout: TableLayout | None = None,
    reward_column: str = "reward",
    batch_rows: int = 5000,
    chunk: int = 1024,
    state: str | Path | None = None,
    workers: Workers | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> ScoreResult:
    """Score a table with Ray.

    The table is cut into shards, and each becomes a Parquet file in the output folder, in the order of the rows. The
    files' names sort in that order too, and the folder is a plain data set for whatever reads Parquet. The numbers are
    those of one machine. A run that was stopped is resumed with the shards that are missing. A worker that is killed is
    replaced, and its shard done again; nothing is written twice.

    Args:
        file: The table. A ``.jsonl`` or ``.parquet`` file is read where it is, under a path that all machines reach; of
            any other form a copy is made in the output folder.
        config: The composition, likewise; what it names must be installed on all machines.
        output: The folder of the results, likewise.
        layout: Which columns are what; the rows of a group stand together and are scored together.
        reward_column: The column to add.
        batch_rows: Rows in a shard: what a worker takes at once, and what is done again after a kill.
        chunk: About how many rows are composed at once.
        state: A composer's saved state; statistics stay as they are there.
        workers: The processes that share the work.
        progress: Called with the rows done so far and all rows.

    Raises:
        ConfigError: The config is refused, its numbers would depend on how the table is cut, or the output folder
            belongs to another job.
        DataError: A row is refused, the rows of a group stand apart, or a column cannot be written as Parquet.
        MissingExtraError: Ray or pyarrow is not installed.
        RlaifError: A reward with the policy ``raise`` fails, or rows end their worker again and again. What is finished
            is kept.
    """
    started = time.monotonic()
    import_ray()
    layout = layout or TableLayout()
    if batch_rows < 1 or chunk < 1:
        raise ConfigError("batch_rows and chunk are at least 1")
    folder = Path(output).resolve()
    source = config if isinstance(config, Mapping) else Path(config).resolve()
    saved = None if state is None else Path(state).resolve()
    with Composer.from_config(source) as composer:
        _check(composer, layout, restored=saved is not None)
        if saved is not None:
            composer.load_state_dict(load_state(saved))
        rewards = {name: [*stated_by(part.reward).values()] for name, part in composer.components.items()}
        added = reward_type(composer.combiner)
    document, beside = _read(source)
    identity = {
        "table": table_digest(file),
        "columns": json_digest([asdict(layout), reward_column]),
        "batch_rows": json_digest(batch_rows),
        "config": json_digest(without_secrets(document)),
        "rewards' code": json_digest(code_digests(document, beside)),
        "rewards' versions": json_digest(rewards),
        "state": "" if saved is None else file_digest(saved),
    }
    with locked(folder):
        claim(folder, identity, kind="scoring job", results=["part-*.parquet"])
        path = ranged_file(file, folder / JOB_FOLDER).resolve()
        plan = plan_shards(path, rows=batch_rows, group=layout.group)
        rows = sum(shard.rows for shard in plan.shards)
        forget_attempts(folder)
        keys = {shard: json_digest([identity, shard.first_row, shard.rows]) for shard in plan.shards}
        summaries = {shard.number: finished_part(folder, shard, key) for shard, key in keys.items()}
        missing = [shard for shard in plan.shards if summaries[shard.number] is None]
        done = rows - sum(shard.rows for shard in missing)
        progress(done, rows)
        if missing:
            with connected(workers or Workers()) as actors, _quiet_data():
                found = _inspect(plan, layout)
                layout.check_group([*found.columns.kinds], path)
                schema = _with_reward(found.columns.schema(str(path)), reward_column, added, path)
                known = tuple(found.columns.kinds)
                task = ScoreTask(path, source, folder, layout, schema, known, reward_column, chunk, saved)
                for number, own in _scored(task, {shard: keys[shard] for shard in missing}, actors, workers):
                    summaries[number] = own
                    done += plan.shards[number].rows
                    progress(done, rows)
            forget_attempts(folder)
        summary = Summary()
        for shard in plan.shards:
            merge_summaries(summary, summary_of_record(summaries[shard.number] or {}))
        write_json(folder / SUMMARY_FILE, {**summary_report(summary), "shards": len(plan.shards)})
    return ScoreResult(summary, folder, len(plan.shards), len(plan.shards) - len(missing), time.monotonic() - started)


def _check(composer: Composer, layout: TableLayout, *, restored: bool) -> None:
    """Refuse a composition whose numbers would depend on where the table is cut."""
    stack = "a table in shards"
    check_rowwise(composer, stack, grouped=True, stepped=False, restored=restored)
    if layout.group is None:
        try:
            check_rowwise(composer, stack, grouped=False, stepped=False, restored=restored)
        except ConfigError as error:
            hint = "name the column that groups them: --group-column"
            raise ConfigError(error.message, key=error.key, hint=hint) from error


def _read(source: Path | Mapping[str, Any]) -> tuple[Mapping[str, Any], Path]:
    """A config's content, and the folder that its paths are relative to."""
    document = Document(dict(source)) if isinstance(source, Mapping) else load_document(source)
    return document.data, document.folder


def _with_reward(schema: pa.Schema, column: str, kind: pa.DataType, file: Path) -> pa.Schema:
    if column in schema.names:
        raise DataError(f"already has a column {column!r}", file=str(file), hint="choose another --reward-column")
    return schema.append(arrow().field(column, kind))


@contextmanager
def _quiet_data() -> Iterator[None]:
    """Ray Data without its own progress bars, log lines and warnings of its own defaults; its errors are ours to tell."""
    from ray.data import DataContext

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context = DataContext.get_current()
    logger = logging.getLogger("ray.data")
    level = logger.level
    bars = context.enable_progress_bars
    logger.setLevel(logging.CRITICAL)
    context.enable_progress_bars = False
    try:
        yield
    finally:
        logger.setLevel(level)
        context.enable_progress_bars = bars


def _inspect(plan: Plan, layout: TableLayout) -> Findings:
    """Look over all shards, spread over the cluster."""
    import ray

    inspect = ray.remote(inspect_shard)
    waiting = [inspect.remote(plan.file, shard, layout) for shard in plan.shards]
    try:
        return merge_findings((ray.get(found) for found in waiting), plan.file)
    except ray.exceptions.RayError as error:
        raise typed(error) from error


def _scored(
    task: ScoreTask, keys: Mapping[Shard, str], actors: int, workers: Workers | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Score shards, and tell the number and the summary's record of each when it is written.

    Only the shards, and not their rows, travel through Ray: an actor reads its range of the file itself, so that
    neither this process nor the object store holds any rows.
    """
    from ray import data

    items = [{"shard": json.dumps(asdict(shard)), "key": key} for shard, key in keys.items()]
    scored = data.from_items(items, override_num_blocks=len(items)).map_batches(
        _ScoringActor,
        fn_constructor_args=[task],
        batch_size=1,
        num_cpus=0 if workers and workers.gpus else 1,
        num_gpus=workers.gpus if workers and workers.gpus else None,
        compute=data.ActorPoolStrategy(size=min(actors, len(items))),
    )
    for row in scored.iter_rows():
        if row["error"] is not None:
            raise row["error"]
        yield int(row["number"]), json.loads(row["summaries"])


class _ScoringActor:
    """What Ray Data calls: shards in; summaries out, or the error, which would lose its cause if it were raised."""

    def __init__(self, task: ScoreTask) -> None:
        self._task = task
        self._scorer: ShardScorer | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        import numpy as np

        [text], [key] = batch["shard"], batch["key"]
        shard = Shard(**json.loads(str(text)))
        summaries: dict[str, Any] = {}
        caught: RlaifError | None = None
        try:
            self._scorer = self._scorer or ShardScorer(self._task)
            summaries = self._scorer.score(shard, str(key))
        except RlaifError as error:
            caught = error
        errors = np.empty(1, dtype=object)
        errors[0] = caught
        return {"number": [shard.number], "summaries": [json.dumps(summaries)], "error": errors}
