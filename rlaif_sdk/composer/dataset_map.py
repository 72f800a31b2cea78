"""A composer over a data set of the `datasets` library: a column is added, and kept where `Dataset.map` keeps its results."""

from __future__ import annotations

import importlib.metadata
import secrets
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from rlaif_sdk.composer.calls import Calls
from rlaif_sdk.composer.combiner import Combiner
from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.composer.ledger.cache import UnidentifiedError
from rlaif_sdk.composer.tables import TableLayout, check_groups, reward_type, score_records, typed_records
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.arrow import arrow, dataset_library, distinct, empty_dataset
from rlaif_sdk.io.digests import json_digest, object_digest
from rlaif_sdk.io.tables import read_rows, table_name
from rlaif_sdk.types import RewardBatch

_FAILED = frozenset({"failed", "default", "masked", "fallback"})
"""The statuses of a row on which a reward failed, or on which another row's failure left it out."""


@dataclass(frozen=True)
class DatasetMap:
    """What `rlaif_sdk.Composer.map` does to a data set.

    Attributes:
        compose: What scores a batch: `rlaif_sdk.Composer.compose`.
        combiner: Its arithmetic, whose state is put back.
        calls: Its calls, which are set up.
        layout: Which columns are what.
        column: The column to add.
        batch_size: About how many rows are composed at once.
        training: Whether running statistics learn along the rows.
    """

    compose: Callable[[RewardBatch], Composition]
    combiner: Combiner
    calls: Calls
    layout: TableLayout
    column: str
    batch_size: int
    training: bool

    def __call__(self, source: Any) -> Any:
        """The data set, or each of a mapping's, with the column.

        Raises:
            DataError: A row is refused.
        """
        datasets = dataset_library()
        if isinstance(source, datasets.DatasetDict):
            return datasets.DatasetDict({name: self(split) for name, split in source.items()})
        if not isinstance(source, datasets.Dataset):
            hint = (
                "score its batches: composer.compose(RewardBatch.from_dataset(batch)) for batch in dataset.iter(64)"
                if isinstance(source, (datasets.IterableDataset, datasets.IterableDatasetDict))
                else "rlaif_sdk.io.tables.open_dataset makes one of a table, datasets.Dataset.from_list of rows"
            )
            raise DataError(f"a {type(source).__name__} where a Dataset or DatasetDict is wanted", hint=hint)
        self._check(source)
        features = datasets.Features({**source.features, **self._feature()})
        if not len(source):
            return empty_dataset(features)
        before, alarm = self.combiner.state_dict(), self.combiner.alarm
        watching = alarm is not None and alarm.watching
        if alarm is not None:
            alarm.watching = False  # a table is no training
        try:
            fingerprint = self._fingerprint(source)
            scored, is_new = self._map(source, features, fingerprint, load_from_cache_file=None)
            if not is_new and self._has_failures(scored):
                scored, _ = self._map(source, features, fingerprint, load_from_cache_file=False)
        finally:
            if alarm is not None:
                alarm.watching = watching
            self.combiner.load_state_dict(before)
        return scored

    def _check(self, dataset: Any) -> None:
        """Refuse what can be refused before a model is loaded."""
        layout = self.layout
        if self.column in dataset.column_names:
            raise DataError(f"already has a column {self.column!r}", hint="choose another: column=")
        if not len(dataset):
            return
        self.calls.check(RewardBatch.from_dataset(dataset.select(range(1)), **asdict(layout)))
        if layout.group is not None:
            labels = dataset.select_columns([layout.group])
            check_groups(read_rows(labels), layout, rows=self.batch_size, file=table_name(dataset))

    def _feature(self) -> Any:
        pa = arrow()
        schema = pa.schema([pa.field(self.column, reward_type(self.combiner))])
        return dataset_library().Features.from_arrow_schema(schema)

    def _map(
        self, dataset: Any, features: Any, fingerprint: str, *, load_from_cache_file: bool | None
    ) -> tuple[Any, bool]:
        """The mapped data set, and whether anything was scored for it; groups are cut by `score_records`, not by ``map``."""
        columns, asked = tuple(dataset.column_names), False
        composed = score_records(
            self.compose,
            read_rows(dataset),
            self.layout,
            columns=columns,
            chunk=self.batch_size,
            training=self.training,
        )
        records = (record for _, composition in composed for record in typed_records(composition))

        def rewards(_: Any, rows: list[int]) -> dict[str, list[Any]]:
            nonlocal asked
            asked = True
            return {self.column: [*islice(records, len(rows))]}

        mapped = dataset.with_format(None).map(
            rewards,
            with_indices=True,
            batched=True,
            batch_size=self.batch_size,
            features=features,
            new_fingerprint=fingerprint,
            load_from_cache_file=load_from_cache_file,
            desc="scoring",
        )
        shown = dataset.format
        kept = {"columns": [*shown["columns"], self.column], "output_all_columns": shown["output_all_columns"]}
        return mapped.with_format(shown["type"], **kept, **shown["format_kwargs"]), asked

    def _has_failures(self, dataset: Any) -> bool:
        """Whether a reward failed on a row of a result: what is kept of an outage is not taken for the answer."""
        paths = (["rewards", name, "status"] for name in self.combiner.components)
        return any(_FAILED & distinct(dataset, self.column, path) for path in paths)

    def _fingerprint(self, dataset: Any) -> str:
        """Equal for equal rows under an equal composition; one of its own where nothing tells a reward from another."""
        self.calls.set_up()
        try:
            return json_digest(
                [
                    importlib.metadata.version("rlaif-sdk"),
                    dataset._fingerprint,  # noqa: SLF001 - `datasets` has no other name for it
                    asdict(self.layout),
                    [self.column, self.batch_size, self.training],
                    self._composition(),
                ]
            )
        except (UnidentifiedError, TypeError, ValueError, RecursionError) as error:
            if dataset.cache_files:
                warnings.warn(f"the scores of the data set are not kept for another call: {error}", stacklevel=4)
            return secrets.token_hex(16)

    def _composition(self) -> Any:
        """What a row's reward depends on beside the row: rewards, how they are combined, what has been learned."""
        combiner = self.combiner
        return [
            self.calls.identities(),
            [
                [
                    name,
                    part.reward.range,
                    part.reward.higher_is_better,
                    asdict(part.failure),
                    part.fallback,
                    [[asdict(condition) for condition in part.when], part.otherwise],
                    object_digest(part.normalizer),
                ]
                for name, part in combiner.components.items()
            ],
            [asdict(gate) for gate in combiner.gates],
            combiner.gate_order,
            object_digest(combiner.aggregator),
            {name: [[*group.members], object_digest(group.aggregator)] for name, group in combiner.groups.items()},
            combiner.state_dict(),
        ]
