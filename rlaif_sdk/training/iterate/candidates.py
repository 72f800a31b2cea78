"""A round's candidates, sampled with the policy and composed, and what training takes of them: pairs, the best, or prompts.

They are kept part by part, so that a killed round does only what is missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.config.documents import validate
from rlaif_sdk.exceptions import TrainingError
from rlaif_sdk.io.files import read_json, write_json
from rlaif_sdk.io.jobs import NumberedFiles
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.tables import read_rows, write_table
from rlaif_sdk.preferences import LabelJob, make_pairs, run_labeling
from rlaif_sdk.preferences.best import BestSettings, choose_best, says_something
from rlaif_sdk.preferences.label_job import LabelConfig
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.training.config import with_policy
from rlaif_sdk.training.curriculum import arrange, mean_and_spread
from rlaif_sdk.training.generation import Answers, answer_prompts
from rlaif_sdk.training.iterate.config import CandidateSettings, IterateRun, PairSettings
from rlaif_sdk.training.methods import get_method
from rlaif_sdk.types import Progress, RewardBatch

if TYPE_CHECKING:
    from datasets import Dataset

    from rlaif_sdk.composer import Composer
    from rlaif_sdk.training.generation import Policy

CANDIDATES_FILE = "candidates.json"
PAIRS_FILE = "pairs.jsonl"
LABELS_FOLDER = "labels"
_LIMITS = {
    "pairs": "pairs or data.curriculum",
    "completions": "best or data.curriculum",
    "prompts": "data.curriculum",
}


class NothingToLearnError(TrainingError):
    """A round's candidates make too few rows to train on; after the first round that ends the loop."""


def round_prompts(prompts: Dataset, number: int, count: int, *, seed: int) -> Dataset:
    """The prompts of a round: the next ``count`` of an order that is drawn anew each time all were taken.

    Args:
        prompts: All of them.
        number: The round, from 1.
        count: How many; no more than there are.
        seed: Of the orders.
    """
    size = len(prompts)
    count = min(count, size)
    start = (number - 1) * count
    passes = range(start // size, (start + count - 1) // size + 1)
    order = [row for turn in passes for row in np.random.default_rng((seed, turn)).permutation(size).tolist()]
    offset = start - passes[0] * size
    return prompts.select(order[offset : offset + count])


def sample_parts(
    prompts: Dataset, settings: CandidateSettings, *, policy: Callable[[], Policy], generated: NumberedFiles, seed: int
) -> list[range]:
    """Sample what is missing of the candidates.

    Args:
        prompts: N rows.
        settings: How to sample.
        policy: Loads the policy; called if something has to be sampled.
        generated: Keeps what was sampled, a part a shard: ``completions``, ``completion_ids`` and ``truncated``, those
            of one prompt together.
        seed: Of the sampling.

    Returns:
        The rows of each part.
    """
    size = max(1, settings.batch_size // settings.completions)
    parts = [range(start, min(start + size, len(prompts))) for start in range(0, len(prompts), size)]
    missing = [index for index in range(len(parts)) if index not in generated]
    if missing:
        with policy() as (model, tokenizer):
            for index in missing:
                sampling = settings.sampling(int(np.random.SeedSequence((seed, index)).generate_state(1)[0]))
                part = prompts.select(parts[index])
                answers = answer_prompts(model, tokenizer, part, sampling, completions=settings.completions)
                generated[index] = answers.record()
    return parts


@dataclass(frozen=True, slots=True)
class Candidates:
    """N prompts of a round, K completions of each.

    Attributes:
        prompts: N rows with a column ``prompt``.
        completions_NK: The completions, of the prompts' kind.
        truncated_NK: True where the greatest length was reached.
        totals_NK: The composed rewards; NaN where there is none.
    """

    prompts: Dataset
    completions_NK: Sequence[Sequence[Any]]
    truncated_NK: Sequence[Sequence[bool]]
    totals_NK: Array


def _composed_candidates(
    prompts: Dataset,
    settings: CandidateSettings,
    parts: Sequence[range],
    generated: NumberedFiles,
    *,
    composer: Callable[[], Composer],
    scored: NumberedFiles,
    state: Any,
    progress: Progress,
) -> tuple[Candidates, Any]:
    """Compose what is missing, from the composer's state or None; the candidates, and its state after them."""
    count = settings.completions
    with ExitStack() as stack:
        ready: Composer | None = None
        for index, rows in enumerate(parts):
            if index not in scored:
                if ready is None:
                    ready = stack.enter_context(composer())
                    if state is not None:
                        ready.load_state_dict(state)
                repeated = [row for row in range(len(rows)) for _ in range(count)]
                answers = Answers.of(prompts.select(rows).select(repeated), generated[index])
                composition = ready.compose(answers.batch(progress, group=repeated, training=True))
                scored[index] = {
                    "totals": composition.to_list(),
                    "rows": composition.to_records(),
                    "state": ready.state_dict(),
                }
            state = scored[index]["state"]

    def by_prompt(kept: NumberedFiles, name: str) -> list[Sequence[Any]]:
        values = [value for index in range(len(parts)) for value in kept[index][name]]
        return [values[start : start + count] for start in range(0, len(values), count)]

    totals_NK = np.array(by_prompt(scored, "totals"), dtype=np.float64)
    return Candidates(prompts, by_prompt(generated, "completions"), by_prompt(generated, "truncated"), totals_NK), state


def round_rows(
    run: IterateRun, number: int, start: int, train: Dataset, held_out: Dataset, report: Callable[[str], None]
) -> tuple[list[Row], list[Row]]:
    """The rows that a round trains on, and those held back from it. What was sampled, scored or labelled before is kept.

    Args:
        run: The loop.
        number: The round.
        start: The round whose policy makes the candidates.
        train: The prompts to train on.
        held_out: The held-out prompts.
        report: Called with a line of text at the start of each stage.

    Raises:
        NothingToLearnError: There are too few.
        RewardError: A reward failed whose policy is to raise.
        JudgeError: The judge that labels pairs cannot be used.
    """
    config, folder = run.config, run.round_folder(number)
    seed = config.seed + number
    prompts = round_prompts(train, number, config.candidates.prompts, seed=config.seed)
    if not run.needs_candidates:
        return [*prompts], [held_out[0]]
    report(f"round {number}: {config.candidates.completions} completions of each of {len(prompts)} prompts")
    generated = NumberedFiles(folder / "completions")
    parts = sample_parts(
        prompts, config.candidates, policy=partial(run.policy_of, start), generated=generated, seed=seed
    )
    before = run.round_folder(number - 1) / CANDIDATES_FILE
    # what is known of one judge's scale says nothing of another's
    known = before.exists() and not run.judge_moves
    candidates, state = _composed_candidates(
        prompts,
        config.candidates,
        parts,
        generated,
        composer=run.with_model(run.model_of(start)).composer,
        scored=NumberedFiles(folder / "scores"),
        state=read_json(before)["state"] if known else None,
        progress=Progress(number, config.stop.rounds),
    )
    measured = np.array([mean_and_spread(totals_K)[:2] for totals_K in candidates.totals_NK.tolist()])
    means_N, spreads_N = measured[:, 0], measured[:, 1]
    curriculum = config.data.curriculum
    order = [*range(len(prompts))] if curriculum is None else arrange(means_N, spreads_N, curriculum, seed=seed)
    write_json(
        folder / CANDIDATES_FILE,
        {
            "prompts": list(prompts["prompt"]),
            "reward_mean": _listed(means_N),
            "reward_spread": _listed(spreads_N),
            "order": order,
            "state": state,
        },
    )
    learns_from = get_method(config.method).learns_from
    if learns_from == "prompts":
        rows = [*prompts.select(order)]
        _need(rows, 1, run, number)
        return rows, [held_out[0]]
    rows = (
        preference_rows(candidates, order, config.pairs)
        if learns_from == "pairs"
        else best_rows(candidates, order, config.best, seed=seed)
    )
    _need(rows, 2, run, number)
    if config.label is not None:
        report(f"round {number}: labelling {len(rows)} pairs")
        rows = _labelled_rows(run, run.model_of(start), folder, rows)
        _need(rows, 2, run, number)
    return split_rows(rows)


def _need(rows: Sequence[Any], least: int, run: IterateRun, number: int) -> None:
    if len(rows) < least:
        kind = get_method(run.config.method).learns_from
        raise NothingToLearnError(
            f"round {number} has {len(rows)} {kind} to learn from, and needs {least}: "
            f"see the scores in {run.round_folder(number)}",
            hint=f"take more candidates.prompts, or widen the limits under {_LIMITS[kind]}",
        )


def _listed(values_N: Any) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values_N.tolist()]


def preference_rows(candidates: Candidates, order: Sequence[int], settings: PairSettings) -> list[Row]:
    """Preference pairs of the prompts, in their order; see `make_pairs`. Empty completions are in none."""
    prompts = candidates.prompts.select(order)["prompt"]
    cells = [
        (prompt, row, candidates.completions_NK[row][column], candidates.totals_NK[row, column])
        for prompt, row in zip(prompts, order, strict=True)
        for column in range(candidates.totals_NK.shape[1])
        if says_something(candidates.completions_NK[row][column])
    ]
    if not cells:
        return []
    prompt_B, row_B, completion_B, totals = zip(*cells, strict=True)
    totals_B = np.array(totals, dtype=np.float64)
    composition = Composition(
        batch=RewardBatch(prompts=prompt_B, completions=completion_B, group=row_B),
        totals=totals_B,
        rewards={},
        gates=(),
        before_gates=totals_B,
        dropped=np.isnan(totals_B),
    )
    return [pair.record() for pair in make_pairs(composition, **settings.model_dump())]


def best_rows(candidates: Candidates, order: Sequence[int], settings: BestSettings, *, seed: int) -> list[Row]:
    """The best completions of the prompts, in their order, as rows for supervised fine-tuning; see `choose_best`."""
    prompts = candidates.prompts.select(order)["prompt"]
    rows: list[Row] = []
    for prompt, row in zip(prompts, order, strict=True):
        completions = candidates.completions_NK[row]
        kept = choose_best(
            candidates.totals_NK[row],
            completions,
            candidates.truncated_NK[row],
            settings,
            np.random.default_rng((seed, row)),
        )
        rows += [{"prompt": prompt, "completion": completions[place]} for _, place in kept]
    return rows


def split_rows(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows to train on, and a tenth held back, evenly spread: at least one of each. Needs two rows."""
    every = min(10, len(rows))
    held_back = [row for index, row in enumerate(rows) if index % every == every - 1]
    return [row for index, row in enumerate(rows) if index % every != every - 1], held_back


def label_job(run: IterateRun, policy: str, folder: Path) -> LabelJob:
    """The job that labels the pairs in a round's folder, with ``$policy`` for the policy that made them.

    Raises:
        ConfigError: The settings under ``label`` are refused.
    """
    pairs = {"file": str((folder / PAIRS_FILE).resolve()), "response_1": "chosen", "response_2": "rejected"}
    settings = run.document.at("label")
    output = str((folder / LABELS_FOLDER).resolve())
    document = replace(settings, data={**with_policy(settings.data, policy), "pairs": pairs, "output": output})
    return LabelJob(validate(LabelConfig, document), document)


def _labelled_rows(run: IterateRun, policy: str, folder: Path, pairs: Sequence[Row]) -> list[Row]:
    """The pairs with the judge's labels; what was labelled before a kill is not asked again, unless it was asked otherwise."""
    names = ("prompt", "chosen", "rejected")
    write_table(({name: pair[name] for name in names} for pair in pairs), folder / PAIRS_FILE)
    result = run_labeling(label_job(run, policy, folder), allow_changed=run.allow_changed)
    return [*read_rows(result.labels)]
