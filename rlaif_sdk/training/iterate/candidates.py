"""A round's candidates: sampled with the policy, then composed, part by part, so that a killed round keeps its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlaif_sdk.io.jobs import NumberedFiles
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.training.curriculum import CurriculumSettings, arrange, mean_and_spread
from rlaif_sdk.training.generation import sample_completions
from rlaif_sdk.training.iterate.config import CandidateSettings
from rlaif_sdk.types import Progress, RewardBatch

if TYPE_CHECKING:
    from datasets import Dataset

    from rlaif_sdk.composer import Composer
    from rlaif_sdk.training.generation import Policy


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

    def difficulty(self) -> tuple[Array, Array]:
        """(N,) means and (N,) spreads of the prompts' rewards; see `mean_and_spread`."""
        found = np.array([mean_and_spread(totals_K)[:2] for totals_K in self.totals_NK.tolist()])
        return found[:, 0], found[:, 1]

    def order(self, curriculum: CurriculumSettings | None, *, seed: int) -> list[int]:
        """The prompts that a round trains on, in order: all, or as the curriculum has it."""
        if curriculum is None:
            return [*range(len(self.prompts))]
        return arrange(*self.difficulty(), curriculum, seed=seed)


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


def make_candidates(
    prompts: Dataset,
    settings: CandidateSettings,
    *,
    policy: Callable[[], Policy],
    composer: Callable[[], Composer],
    generated: NumberedFiles,
    scored: NumberedFiles,
    state: Any,
    progress: Progress,
    seed: int,
) -> tuple[Candidates, Any]:
    """Sample and compose what is missing of a round's candidates.

    Args:
        prompts: N rows.
        settings: How to sample.
        policy: Loads the policy; called if something has to be sampled. It is let go before composing.
        composer: Makes the composer; called if something has to be composed.
        generated: Keeps what was sampled.
        scored: Keeps what was composed, and the composer's state after each part.
        state: The composer's state to begin with, or None.
        progress: How far the loop is, for schedules: rounds are its steps.
        seed: Of the sampling.

    Returns:
        The candidates, and the composer's state after them.
    """
    parts = sample_parts(prompts, settings, policy=policy, generated=generated, seed=seed)
    with ExitStack() as stack:
        ready: Composer | None = None
        for index, rows in enumerate(parts):
            if index not in scored:
                if ready is None:
                    ready = stack.enter_context(composer())
                    if state is not None:
                        ready.load_state_dict(state)
                batch = _batch(prompts.select(rows), generated[index], settings.completions, progress)
                composition = ready.compose(batch)
                scored[index] = {
                    "totals": composition.to_list(),
                    "rows": [*composition.records()],
                    "state": ready.state_dict(),
                }
            state = scored[index]["state"]
    answers = [generated[index] for index in range(len(parts))]
    totals = [total for index in range(len(parts)) for total in scored[index]["totals"]]
    totals_NK = np.array(totals, dtype=np.float64).reshape(len(prompts), settings.completions)
    candidates = Candidates(
        prompts,
        _by_prompt([answer for part in answers for answer in part["completions"]], settings.completions),
        _by_prompt([flag for part in answers for flag in part["truncated"]], settings.completions),
        totals_NK,
    )
    return candidates, state


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
    if not missing:
        return parts
    with policy() as (model, tokenizer):
        for index in missing:
            sampling = settings.sampling(int(np.random.SeedSequence((seed, index)).generate_state(1)[0]))
            answers = sample_completions(
                model, tokenizer, prompts.select(parts[index]), sampling, completions=settings.completions
            )
            generated[index] = {
                "completions": list(answers.completions),
                "completion_ids": list(answers.completion_ids),
                "truncated": list(answers.truncated),
            }
    return parts


def _batch(prompts: Dataset, answers: Any, completions: int, progress: Progress) -> RewardBatch:
    rows = [row for row in range(len(prompts)) for _ in range(completions)]
    repeated = prompts.select(rows)
    return RewardBatch(
        prompts=list(repeated["prompt"]),
        completions=answers["completions"],
        completion_ids=answers["completion_ids"],
        columns={name: list(repeated[name]) for name in repeated.column_names if name != "prompt"},
        group=rows,
        progress=progress,
    )


def _by_prompt(values: Sequence[Any], completions: int) -> list[Sequence[Any]]:
    return [values[start : start + completions] for start in range(0, len(values), completions)]
