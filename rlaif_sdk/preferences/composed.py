"""A composer as the labeler: a table of candidates is scored, and makes pairs or rows to imitate."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from pydantic import Field

from rlaif_sdk.config import NamedTable
from rlaif_sdk.config.documents import load_document
from rlaif_sdk.exceptions import ConfigError, DataError, JudgeResponseError
from rlaif_sdk.io.digests import file_digest
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.tables import TableSource, read_rows, table_digest
from rlaif_sdk.judges.backends import RowError
from rlaif_sdk.preferences.best import BestSettings, choose_best
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
from rlaif_sdk.preferences.policy import derived_seed
from rlaif_sdk.preferences.resumable_job import JobProgress
from rlaif_sdk.preferences.tables import check_text
from rlaif_sdk.types import RewardBatch

if TYPE_CHECKING:
    from rlaif_sdk.composer import Composition

_ROWS = "rows"
_GROUP = "group"
_RULE = tuple(each.name for each in fields(PairRule))


class ComposedConfig(MakeConfig):
    """The completions to each prompt, scored by a composition."""

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
    group: str | None = None
    """The column that is equal for completions to one prompt; by default ``group``, or the prompt in a table without it."""


class ComposedPairsConfig(ComposedConfig):
    """Pairs of the completions to each prompt, as the rewards of a composition order them."""

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


class BestConfig(ComposedConfig, BestSettings):
    """The best completions to each prompt, as rows to imitate: best of n, or rejection sampling."""

    seed: int = 0
    """Of what is drawn with a temperature."""


ConfigT = TypeVar("ConfigT", bound=ComposedConfig)


class ComposedPipeline(Generic[ConfigT]):
    """Scores the completions to each prompt, see `Pipeline`; what is made of the totals is left to each.

    How it is made may change when a job is started again, since the totals stay.
    """

    chained = True
    steps = 1
    concurrency: int | None = None

    def __init__(self, job: MakeJob[ConfigT]) -> None:
        from rlaif_sdk.composer import Composer
        from rlaif_sdk.composer.tables import TableLayout

        self._job = job
        self._config = config = job.config
        self._file = config.candidates.source(job.folder)
        self._group = config.group or _group_column(self._file, config.prompt)
        self._layout = TableLayout(config.prompt, config.completion, self._group)
        self._composer = Composer.from_config(job.folder / config.composition)
        if config.state is not None:
            self._composer.load_state_dict(json.loads((job.folder / config.state).read_text(encoding="utf-8")))

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Pipeline.settings`."""
        config = self._config
        return {
            "candidates file": [table_digest(self._file), config.prompt, config.completion, self._group],
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
                if self._group not in record:
                    hint = "name the column that is equal for completions to one prompt under group"
                    raise DataError(f"has no column {self._group!r}", file=str(self._file), row=row, hint=hint)
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

    def _unscored(self, task: Task) -> dict[str, int]:
        unscored = task.results[0]["totals"].count(None)
        return {"unscored_completion": unscored} if unscored else {}

    def _card(self, title: str, method: str, settings: Sequence[str]) -> Card:
        config = self._config
        rewards = {
            name: {"weight": str(part.weight), "version": getattr(part.reward, "version", "0")}
            for name, part in self._composer.components.items()
        }
        return Card(
            title=title,
            method=f"The completions to each prompt are scored by a composition of rewards; {method}.",
            files={},
            models={"rewards": rewards},
            inputs={
                config.candidates.file: table_digest(self._file),
                config.composition: file_digest(self._job.folder / config.composition),
            },
            settings={name: getattr(config, name) for name in settings},
        )

    def close(self) -> None:
        """Release the rewards."""
        self._composer.close()


class ComposedPairsPipeline(ComposedPipeline[ComposedPairsConfig]):
    """Pairs the completions to each prompt."""

    tables: Mapping[str, str] = {
        "pairs": "prompt, chosen (the higher total), rejected, chosen_prob, both totals, and where both come from"
    }

    def __init__(self, job: MakeJob[ComposedPairsConfig]) -> None:
        try:
            self._rule = PairRule(**{name: getattr(job.config, name) for name in _RULE})
        except ConfigError as error:
            raise job.document.error(error.message, (error.key or "choose",), error.hint) from error
        super().__init__(job)

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
        return RowResult(
            {"pairs": made},
            skipped=self._unscored(task),
            counts={"prompts_without_pair": int(not made), "completions": len(rows)},
        )

    def card(self) -> Card:
        """How the pairs were made."""
        source = "the difference of the totals" if self._config.temperature else "the higher total"
        return self._card("Preference pairs from composed rewards", f"the label is {source}", _RULE)


class BestPipeline(ComposedPipeline[BestConfig]):
    """Takes the best completions to each prompt."""

    tables: Mapping[str, str] = {"best": "prompt, completion, its total, and its place among how many"}

    def row_result(self, task: Task) -> RowResult:
        """The best of one prompt, the highest total first."""
        rows, config = task.item[_ROWS], self._config
        totals_K = np.array([math.nan if total is None else total for total in task.results[0]["totals"]])
        completions = [row[config.completion] for row in rows]
        truncated = [bool(row.get("truncated")) for row in rows]
        draw = np.random.default_rng(derived_seed(config.seed, task.number))
        own = {config.prompt, config.completion, "policy", "sample", "truncated"}
        kept = {
            name: value
            for name, value in rows[0].items()
            if name not in own and all(row.get(name) == value for row in rows)
        }
        made = [
            {
                **kept,
                "prompt": rows[place][config.prompt],
                "completion": completions[place],
                "total": float(totals_K[place]),
                "rank": rank,
                "candidates": len(rows),
                "policy": rows[place].get("policy"),
            }
            for rank, place in choose_best(totals_K, completions, truncated, config, draw)
        ]
        return RowResult(
            {"best": made},
            skipped=self._unscored(task),
            counts={"prompts_without_best": int(not made), "completions": len(rows)},
        )

    def card(self) -> Card:
        """How the rows were chosen."""
        config = self._config
        how = f"the best {config.keep} of each prompt's are kept"
        if config.temperature is not None:
            how = f"{config.keep} of each prompt's are drawn with odds of exp(total / {config.temperature:g})"
        return self._card("Completions chosen by composed rewards", how, [*BestSettings.model_fields])


def make_best(source: JobSource[BestConfig], *, progress: JobProgress = lambda *_: None) -> MakeResult:
    """Keep the best completions of each prompt; see `BestConfig` and `run_pipeline`."""
    return make(BestConfig, BestPipeline, source, progress)


def make_composed_pairs(
    source: JobSource[ComposedPairsConfig], *, progress: JobProgress = lambda *_: None
) -> MakeResult:
    """Make pairs of scored completions; see `ComposedPairsConfig` and `run_pipeline`."""
    return make(ComposedPairsConfig, ComposedPairsPipeline, source, progress)


def _group_column(file: TableSource, prompt: str) -> str:
    """The column that says which completions are to one prompt, where none is named."""
    return _GROUP if _GROUP in next(iter(read_rows(file)), {}) else prompt


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
