"""Scores one shard after another in a process that makes its composer once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.composer import Composer
from rlaif_sdk.composer.tables import Summary, TableLayout, as_batch, chunks
from rlaif_sdk.integrations.host import load_state
from rlaif_sdk.io.arrow import arrow
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.scale.figures import as_record
from rlaif_sdk.scale.parts import count_attempt, write_part
from rlaif_sdk.scale.shards import Shard, read_shard

if TYPE_CHECKING:
    import pyarrow as pa


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
            Its figures; see `rlaif_sdk.scale.figures.as_record`.

        Raises:
            RlaifError: A row is refused, a reward with the policy ``raise`` fails, or it ends its workers.
        """
        task = self._task
        count_attempt(task.output, shard)
        summary = Summary()
        figures: dict[str, Any] = {}
        rows = self._rows(shard, summary, figures)
        write_part(task.output, shard, key, schema=task.schema, rows=rows, summary=figures)
        return figures

    def _rows(self, shard: Shard, summary: Summary, figures: dict[str, Any]) -> Iterator[list[Row]]:
        task = self._task
        row = shard.first_row
        shard_rows = read_shard(task.file, shard)
        for records in chunks(shard_rows, task.layout, rows=task.chunk, first_row=row, file=str(task.file)):
            batch = as_batch(
                records, task.layout, columns=task.columns, first_row=row, training=False, file=str(task.file)
            )
            composition = self._composer.compose(batch)
            summary.add(composition)
            yield [
                {**record, task.reward_column: {**reward, "penalties": reward["penalties"] or None}}
                for record, reward in zip(records, composition.records(), strict=True)
            ]
            row += len(records)
        figures.update(as_record(summary))

    def close(self) -> None:
        """Close the composer."""
        self._composer.close()


def reward_type(composer: Composer) -> pa.DataType:
    """The Arrow type of what `rlaif_sdk.Composition.records` gives for a row, equal for all rows."""
    pa = arrow()
    numbers = [(name, pa.float64()) for name in ("raw", "normalized", "weighted")]
    one = pa.struct([*numbers, ("status", pa.string()), ("reason", pa.string())])
    penalties = [(each.constraint.key, pa.float64()) for each in composer.combiner.multipliers]
    return pa.struct(
        [
            ("total", pa.float64()),
            ("rewards", pa.struct([(name, one) for name in composer.components])),
            ("penalties", pa.struct(penalties) if penalties else pa.null()),
            ("gates_closed", pa.list_(pa.string())),
        ]
    )
