"""A composer as the labeler: pairs of scored completions, from a table of candidates."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rlaif_sdk.config import NamedTable
from rlaif_sdk.config.documents import load_document
from rlaif_sdk.exceptions import ConfigError, DataError, JudgeResponseError
from rlaif_sdk.io.digests import file_digest
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.tables import read_rows, table_digest
from rlaif_sdk.judges.backends import RowError
from rlaif_sdk.preferences.card import Card
from rlaif_sdk.preferences.pairs import Choice, PairRule, Ties, choose_pairs
from rlaif_sdk.preferences.pipeline import (
    JobSource,
    MakeConfig,
    MakeJob,
    MakeResult,
    RowResult,
    Task,
    make,
)
from rlaif_sdk.preferences.resumable_job import JobProgress
from rlaif_sdk.preferences.tables import check_text
from rlaif_sdk.types import RewardBatch

if TYPE_CHECKING:
    from rlaif_sdk.composer import Composition

_ROWS = "rows"
_RULE = tuple(each.name for each in fields(PairRule))


class ComposedPairsConfig(MakeConfig):
    """Pairs of the completions to each prompt, as the rewards of a composition order them."""

    candidates: NamedTable
    """A table with a completion a row, such as `rlaif make candidates` writes; the completions to one prompt stand
    together."""
    composition: str
    """The composition that scores them: a YAML or JSON file, as for `rlaif score`."""
    state: str | None = None
    """A composer's saved state (JSON), where rewards are normalised by running statistics."""
    prompt: str = "prompt"
    """The column of prompts."""
    completion: str = "completion"
    """The column of completions."""
    group: str = "group"
    """The column that is equal for completions to one prompt."""
    choose: Choice = "best_worst"
    """``best_worst`` makes one pair a prompt, ``all`` every pair, ``threshold`` every pair of a completion at or above
    ``threshold`` and one below it."""
    threshold: float | None = Field(default=None, allow_inf_nan=False)
    """In units of the total."""
    min_gap: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Leave out pairs whose totals differ by less."""
    temperature: float | None = Field(default=1.0, gt=0, allow_inf_nan=False)
    """The label is the logistic of the totals' difference over this; null makes hard labels."""
    ties: Ties = "drop"
    """What becomes of two equal totals: skipped, or given 0.5 (``half``)."""


class ComposedPairsPipeline:
    """Scores the completions to each prompt, and pairs them."""

    tables: Mapping[str, str] = {
        "pairs": "prompt, chosen (the higher total), rejected, chosen_prob, both totals, and where both come from"
    }
    chained = True
    steps = 1
    concurrency: int | None = None

    def __init__(self, job: MakeJob[ComposedPairsConfig]) -> None:
        from rlaif_sdk.composer import Composer
        from rlaif_sdk.composer.tables import TableLayout

        self._job = job
        self._config = config = job.config
        try:
            self._rule = PairRule(**{name: getattr(config, name) for name in _RULE})
        except ConfigError as error:
            raise job.document.error(error.message, (error.key or "choose",), error.hint) from error
        self._file = config.candidates.source(job.folder)
        self._layout = TableLayout(config.prompt, config.completion, config.group)
        self._composer = Composer.from_config(job.folder / config.composition)
        if config.state is not None:
            self._composer.load_state_dict(json.loads((job.folder / config.state).read_text(encoding="utf-8")))

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Pipeline.settings`; how pairs are chosen may change, since the totals stay."""
        config = self._config
        return {
            "candidates file": [table_digest(self._file), config.prompt, config.completion, config.group],
            "composition": [
                load_document(self._job.folder / config.composition).data,
                file_digest(self._job.folder / config.state) if config.state else None,
            ],
        }

    def items(self) -> Iterator[Row]:
        """The completions to each prompt, as one item."""
        row = 0
        from rlaif_sdk.composer.tables import chunks

        for rows in chunks(read_rows(self._file), self._layout, rows=1, file=str(self._file)):
            for record in rows:
                row += 1
                for column in (self._config.prompt, self._config.completion):
                    check_text(record, column, self._file, row)
                if self._config.group not in record:
                    hint = "name the column that is equal for completions to one prompt under group"
                    raise DataError(f"has no column {self._config.group!r}", file=str(self._file), row=row, hint=hint)
            yield {_ROWS: rows}

    async def run_step(self, step: int, tasks: Sequence[Task]) -> Sequence[Mapping[str, Any] | RowError]:
        """The totals of the completions; no statistics are changed by them."""
        del step
        rows = [row for task in tasks for row in task.item[_ROWS]]
        batch = RewardBatch.from_records(rows, **asdict(self._layout), training=False)
        composition = await self._composer.acompose(batch)
        scored: list[Mapping[str, Any] | RowError] = []
        start = 0
        for task in tasks:
            own = range(start, start + len(task.item[_ROWS]))
            start = own.stop
            scored.append(_failure(composition, own) or {"totals": [composition.to_list()[place] for place in own]})
        return scored

    def row_result(self, task: Task) -> RowResult:
        """The pairs of one prompt."""
        rows, totals = task.item[_ROWS], task.results[0]["totals"]
        config = self._config
        completions = [row[config.completion] for row in rows]
        numbers = [math.nan if total is None else total for total in totals]
        pairs = choose_pairs(numbers, [0] * len(rows), completions, self._rule)
        made = [
            {
                "prompt": rows[better][config.prompt],
                "chosen": completions[better],
                "rejected": completions[worse],
                "chosen_prob": probability,
                "chosen_total": totals[better],
                "rejected_total": totals[worse],
                **{f"{side}_policy": rows[row].get("policy") for side, row in _sides(better, worse)},
                "source": "composition",
            }
            for better, worse, probability in pairs
        ]
        unscored = totals.count(None)
        return RowResult(
            {"pairs": made},
            skipped={"unscored_completion": unscored} if unscored else {},
            counts={"prompts_without_pair": int(not made), "completions": len(rows)},
        )

    def card(self) -> Card:
        """How the pairs were made."""
        config = self._config
        source = "the difference of the totals" if config.temperature else "the higher total"
        rewards = {
            name: {"weight": str(part.weight), "version": getattr(part.reward, "version", "0")}
            for name, part in self._composer.components.items()
        }
        return Card(
            title="Preference pairs from composed rewards",
            method=f"The completions to each prompt are scored by a composition of rewards; the label is {source}.",
            files={},
            models={"rewards": rewards},
            inputs={
                config.candidates.file: table_digest(self._file),
                config.composition: file_digest(self._job.folder / config.composition),
            },
            settings={name: getattr(config, name) for name in _RULE},
        )

    def close(self) -> None:
        """Release the rewards."""
        self._composer.close()


def make_composed_pairs(
    source: JobSource[ComposedPairsConfig], *, progress: JobProgress = lambda *_: None
) -> MakeResult:
    """Make pairs of scored completions; see `ComposedPairsConfig` and `run_pipeline`."""
    return make(ComposedPairsConfig, ComposedPairsPipeline, source, progress)


def _sides(better: int, worse: int) -> tuple[tuple[str, int], tuple[str, int]]:
    return ("chosen", better), ("rejected", worse)


def _failure(composition: Composition, rows: range) -> RowError | None:
    """Why a row has no total, where a reward failed: it may succeed later. One that abstains will not."""
    for row in rows:
        if composition.to_list()[row] is not None:
            continue
        for name, column in composition.rewards.items():
            if row in column.failures:
                return JudgeResponseError(f"the reward {name!r} failed: {column.failures[row]}")
    return None
