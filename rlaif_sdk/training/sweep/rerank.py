"""Best of n: what a composition would choose among sampled answers, for many weights at the price of one scoring."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlaif_sdk.composer.arrays import Array
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.digests import json_digest, rows_digest
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.tables import read_rows, write_rows
from rlaif_sdk.training.config import PPORun
from rlaif_sdk.training.manifest import resolved_config
from rlaif_sdk.training.sweep.config import Sweep, Weights
from rlaif_sdk.types import RewardBatch

if TYPE_CHECKING:
    from datasets import Dataset

    from rlaif_sdk.composer import Composition

_GROUP = "rlaif_prompt"


@dataclasses.dataclass(frozen=True, slots=True)
class Candidates:
    """Scored answers, several a prompt.

    Attributes:
        composition: What the rewards say of them, under the run's own weights.
        group: (B,) the number of each answer's prompt.
    """

    composition: Composition
    group: list[int]

    def chosen(self, sweep: Sweep, weights: Weights, seed: int) -> dict[str, float]:
        """The mean of each reward over the answers that a combination of weights would choose, one a prompt.

        Totals are composed anew from the scores at hand. A prompt of which no answer has a total is left out.
        """
        run = sweep.run_of(weights, seed, sweep.output)
        totals_B = self.composition.what_if(run.composition_document(ledger=False)).new_totals
        rows = list(best_rows(totals_B, self.group))
        raw = {name: column.raw[rows] for name, column in self.composition.rewards.items()}
        return {name: float(np.nanmean(v)) if (~np.isnan(v)).any() else float("nan") for name, v in raw.items()}


def best_rows(totals_B: Array, group: list[int]) -> Iterator[int]:
    """The row with the greatest total of each group that has one; of equals the first."""
    best: dict[int, int] = {}
    for row, label in enumerate(group):
        if not np.isnan(totals_B[row]) and (label not in best or totals_B[row] > totals_B[best[label]]):
            best[label] = row
    yield from best.values()


def candidates(sweep: Sweep, seed: int, report: Any) -> Candidates:
    """The answers to choose from, sampled or read, and scored.

    Sampled answers are kept in the sweep's folder, under the digest of what they follow from, and read from there the
    next time.

    Raises:
        RlaifError: As a run's: the model, the prompts, the answers or a reward is refused.
    """
    ready = sweep.config.completions
    file = sweep.folder / ready if ready else _sampled(sweep, seed, report)
    rows = list(read_rows(file))
    for number, row in enumerate(rows, start=1):
        if row.get("prompt") is None or row.get("completion") is None:
            raise DataError("an answer needs 'prompt' and 'completion'", file=str(file), row=number)
    labels: dict[str, int] = {}
    group = [labels.setdefault(_label(row, number), len(labels)) for number, row in enumerate(rows)]
    names = {name: None for row in rows for name in row} | {}
    batch = RewardBatch(
        prompts=[row["prompt"] for row in rows],
        completions=[row["completion"] for row in rows],
        columns={
            name: [row.get(name) for row in rows] for name in names if name not in {"prompt", "completion", _GROUP}
        },
        group=group,
    )
    report(f"scoring {len(rows)} answers to {len(labels)} prompts")
    with sweep.base.composer() as composer:
        return Candidates(composer.compose(batch), group)


def _label(row: Row, number: int) -> str:
    """What answers to one prompt share: their group, or the prompt; a group that is null is shared with no other."""
    label = row.get(_GROUP, row["prompt"])
    return f"row {number}" if label is None else repr(label)


def _sampled(sweep: Sweep, seed: int, report: Any) -> Path:
    """The file of the sampled answers, which are sampled if they are not there."""
    from rlaif_sdk.training.data import load_prompts

    run = sweep.run_of({}, seed, sweep.output)
    assert isinstance(run, PPORun)
    _, held_out = load_prompts(run.config.data, run.folder, seed=run.config.seed)
    config = resolved_config(run)
    origin = json_digest([rows_digest(held_out), config["model"], config["ppo"], sweep.config.candidates])
    file = sweep.output / f"candidates-seed{seed}-{origin.rpartition(':')[2]}.jsonl"
    if not file.is_file():
        _sample(run, held_out, sweep.config.candidates, file, report)
    return file


def _sample(run: PPORun, held_out: Dataset, count: int, file: Path, report: Any) -> None:
    from rlaif_sdk.training.heldout import answer_prompts
    from rlaif_sdk.training.models import load_policy

    prompts = held_out.select([row for row in range(len(held_out)) for _ in range(count)])
    settings = run.ppo_config()
    report(f"loading {run.model_name}")
    model, tokenizer = load_policy(run, encoder_decoder=True)
    model.to(settings.device)  # type: ignore[arg-type]
    report(f"sampling {count} answers to each of {len(held_out)} held-out prompts")
    answers = answer_prompts(model, tokenizer, prompts, settings)
    columns: Mapping[str, Any] = answers.columns
    with write_rows(file) as writer:
        for row, (prompt, completion) in enumerate(zip(answers.prompts, answers.completions, strict=True)):
            known = {name: values[row] for name, values in columns.items()}
            writer.write({**known, "prompt": prompt, "completion": completion, _GROUP: row // count})
