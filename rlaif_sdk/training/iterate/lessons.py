"""What a round trains on, made of its scored candidates: pairs, best completions, or prompts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.conversations import view
from rlaif_sdk.preferences import make_pairs
from rlaif_sdk.training.iterate.candidates import Candidates
from rlaif_sdk.training.iterate.config import BestSettings, PairSettings
from rlaif_sdk.types import RewardBatch

Row = dict[str, Any]


def preference_rows(candidates: Candidates, order: Sequence[int], settings: PairSettings) -> list[Row]:
    """Preference pairs of the prompts, in their order; see `make_pairs`. Empty completions are in none."""
    prompts = candidates.prompts.select(order)["prompt"]
    cells = [
        (prompt, row, candidates.completions_NK[row][column], candidates.totals_NK[row, column])
        for prompt, row in zip(prompts, order, strict=True)
        for column in range(candidates.totals_NK.shape[1])
        if _says_something(candidates.completions_NK[row][column])
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


def best_rows(candidates: Candidates, order: Sequence[int], settings: BestSettings) -> list[Row]:
    """The best completions of the prompts, in their order, as rows for supervised fine-tuning.

    An unscored or empty completion is none of them, and equal completions to one prompt count once.
    """
    prompts = candidates.prompts.select(order)["prompt"]
    return [
        {"prompt": prompt, "completion": completion}
        for prompt, row in zip(prompts, order, strict=True)
        for completion in _best(candidates, row, settings)
    ]


def split_rows(
    rows: Sequence[Mapping[str, Any]], share: float = 0.1
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The rows to train on, and those held back, evenly spread: at least one of each. Needs two rows."""
    every = min(math.ceil(1 / share), len(rows))
    held_back = [row for index, row in enumerate(rows) if index % every == every - 1]
    return [row for index, row in enumerate(rows) if index % every != every - 1], held_back


def prompt_rows(candidates: Candidates, order: Sequence[int]) -> Iterator[Mapping[str, Any]]:
    """The rows of the prompts, in their order."""
    yield from candidates.prompts.select(order)


def _says_something(completion: Any) -> bool:
    """Whether there is anything to learn from: words, thinking or a call."""
    return view(completion, "transcript", thinking="keep").strip() != ""


def _best(candidates: Candidates, row: int, settings: BestSettings) -> list[Any]:
    totals_K = candidates.totals_NK[row].tolist()
    completions_K, truncated_K = candidates.completions_NK[row], candidates.truncated_NK[row]
    floor = -math.inf if settings.min_reward is None else settings.min_reward
    eligible: list[Any] = []
    for column in sorted(range(len(totals_K)), key=lambda column: -np.nan_to_num(totals_K[column], nan=-math.inf)):
        completion, total = completions_K[column], totals_K[column]
        usable = not math.isnan(total) and total >= floor and _says_something(completion)
        if usable and not (settings.drop_truncated and truncated_K[column]) and completion not in eligible:
            eligible.append(completion)
    return eligible[: settings.keep]
