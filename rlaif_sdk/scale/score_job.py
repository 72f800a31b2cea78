"""``rlaif score --engine ray``: a table is scored shard by shard, by actors that make the composer once."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.composer import Composer
from rlaif_sdk.composer.tables import Summary, TableLayout
from rlaif_sdk.config.documents import Document, load_document
from rlaif_sdk.exceptions import ConfigError, DataError, RlaifError
from rlaif_sdk.integrations.host import load_state
from rlaif_sdk.integrations.rowwise import check_rowwise
from rlaif_sdk.io.arrow import arrow
from rlaif_sdk.io.digests import file_digest, json_digest
from rlaif_sdk.io.files import write_json
from rlaif_sdk.io.jobs import JOB_FOLDER, claim, locked, without_secrets
from rlaif_sdk.plugins.references import code_digests
from rlaif_sdk.rewards.coercion import stated_by
from rlaif_sdk.scale.cluster import Workers, connected, import_ray, typed
from rlaif_sdk.scale.figures import from_record, merge, readable
from rlaif_sdk.scale.inspection import Findings, look_over, merge_findings
from rlaif_sdk.scale.parts import finished_part, forget_attempts
from rlaif_sdk.scale.score_shard import ScoreTask, ShardScorer, reward_type
from rlaif_sdk.scale.shards import Plan, Shard, plan_shards

if TYPE_CHECKING:
    import pyarrow as pa

SUMMARY_FILE = f"{JOB_FOLDER}/summary.json"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """What came of scoring a table.

    Attributes:
        summary: Figures over the whole table.
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
    file: str | Path,
    config: str | Path | Mapping[str, Any],
    output: str | Path,
    *,
    layout: TableLayout | None = None,
    reward_column: str = "reward",
    batch_rows: int = 5000,
    chunk: int = 1024,
    state: str | Path | None = None,
    workers: Workers | None = None,
    progress: Progress = lambda *_: None,
) -> ScoreResult:
    """Score a table with Ray.

    The table is cut into shards, and each becomes a Parquet file in the output folder, in the order of the rows. The
    files' names sort in that order too, and the folder is a plain data set for whatever reads Parquet. The numbers are those of one machine. A run that was stopped goes on with the
    shards that are missing. A worker that is killed is replaced, and its shard done again; nothing is written twice.

    Args:
        file: A ``.jsonl`` or ``.parquet`` file that all machines reach under this path.
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
    path, folder = Path(file).resolve(), Path(output).resolve()
    source = config if isinstance(config, Mapping) else Path(config).resolve()
    saved = None if state is None else Path(state).resolve()
    with Composer.from_config(source) as composer:
        _check(composer, layout, restored=saved is not None)
        if saved is not None:
            composer.load_state_dict(load_state(saved))
        rewards = {name: [*stated_by(part.reward).values()] for name, part in composer.components.items()}
        added = reward_type(composer)
    plan = plan_shards(path, rows=batch_rows, group=layout.group)
    document, beside = _read(source)
    identity = {
        "table": plan.digest,
        "columns": json_digest([asdict(layout), reward_column]),
        "batch_rows": json_digest(batch_rows),
        "config": json_digest(without_secrets(document)),
        "rewards' code": json_digest(code_digests(document, beside)),
        "rewards' versions": json_digest(rewards),
        "state": "" if saved is None else file_digest(saved),
    }
    rows = sum(shard.rows for shard in plan.shards)
    with locked(folder):
        claim(folder, identity, kind="scoring job", results=["part-*.parquet"])
        forget_attempts(folder)
        keys = {shard: json_digest([identity, shard.first_row, shard.rows]) for shard in plan.shards}
        figures = {shard.number: finished_part(folder, shard, key) for shard, key in keys.items()}
        missing = [shard for shard in plan.shards if figures[shard.number] is None]
        done = rows - sum(shard.rows for shard in missing)
        progress(done, rows)
        if missing:
            with connected(workers or Workers()) as actors, _quiet_data():
                found = _look_over(plan, layout)
                layout.check_group([*found.columns.kinds], path)
                schema = _with_reward(found.columns.schema(str(path)), reward_column, added, path)
                known = tuple(found.columns.kinds)
                task = ScoreTask(path, source, folder, layout, schema, known, reward_column, chunk, saved)
                for number, own in _scored(task, {shard: keys[shard] for shard in missing}, actors, workers):
                    figures[number] = own
                    done += plan.shards[number].rows
                    progress(done, rows)
            forget_attempts(folder)
        summary = Summary()
        for shard in plan.shards:
            merge(summary, from_record(figures[shard.number] or {}))
        write_json(folder / SUMMARY_FILE, {**readable(summary), "shards": len(plan.shards)})
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


def _look_over(plan: Plan, layout: TableLayout) -> Findings:
    """Look over all shards, spread over the cluster."""
    import ray

    look = ray.remote(look_over)
    waiting = [look.remote(plan.file, shard, layout) for shard in plan.shards]
    try:
        return merge_findings((ray.get(found) for found in waiting), plan.file)
    except ray.exceptions.RayError as error:
        raise typed(error) from error


def _scored(
    task: ScoreTask, keys: Mapping[Shard, str], actors: int, workers: Workers | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Score shards, and tell the number and the figures of each when it is written.

    The shards alone, and not their rows, travel through Ray: an actor reads its range of the file itself, so that
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
        yield int(row["number"]), json.loads(row["figures"])


class _ScoringActor:
    """What Ray Data calls: shards in; figures out, or the error, which would lose its cause if it were raised."""

    def __init__(self, task: ScoreTask) -> None:
        self._task = task
        self._scorer: ShardScorer | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        import numpy as np

        [text], [key] = batch["shard"], batch["key"]
        shard = Shard(**json.loads(str(text)))
        figures: dict[str, Any] = {}
        caught: RlaifError | None = None
        try:
            self._scorer = self._scorer or ShardScorer(self._task)
            figures = self._scorer.score(shard, str(key))
        except RlaifError as error:
            caught = error
        errors = np.empty(1, dtype=object)
        errors[0] = caught
        return {"number": [shard.number], "figures": [json.dumps(figures)], "error": errors}
