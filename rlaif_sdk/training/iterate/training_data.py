"""What a round trains on: pairs, best completions or prompts, made of candidates that are sampled and composed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.config.documents import validate
from rlaif_sdk.conversations import view
from rlaif_sdk.exceptions import TrainingError
from rlaif_sdk.io.files import read_json, write_json
from rlaif_sdk.io.jobs import NumberedFiles
from rlaif_sdk.io.tables import read_rows, write_table
from rlaif_sdk.preferences import LabelJob, make_pairs, run_labeling
from rlaif_sdk.preferences.label_job import LabelConfig
from rlaif_sdk.training.config import with_policy
from rlaif_sdk.training.iterate.candidates import Candidates
from rlaif_sdk.training.iterate.config import BestSettings, IterateRun, PairSettings, Rounds
from rlaif_sdk.training.methods import get_method
from rlaif_sdk.types import Progress, RewardBatch

if TYPE_CHECKING:
    from datasets import Dataset


PAIRS_FILE = "pairs.jsonl"
LABELS_FOLDER = "labels"


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


def labelled_rows(
    run: IterateRun, policy: str, folder: Path, pairs: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The pairs with the judge's labels; what was labelled before a kill is not asked again, unless it was asked otherwise.

    Raises:
        JudgeError: The judge cannot be used, or fails on too many pairs.
    """
    write_table(
        ({name: pair[name] for name in ("prompt", "chosen", "rejected")} for pair in pairs), folder / PAIRS_FILE
    )
    result = run_labeling(label_job(run, policy, folder), allow_changed=run.allow_changed)
    return [*read_rows(result.labels)]


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


Rows = list[Mapping[str, Any]]

CANDIDATES_FILE = "candidates.json"
_LIMITS = {
    "pairs": "pairs or data.curriculum",
    "completions": "best or data.curriculum",
    "prompts": "data.curriculum",
}


class NothingToLearnError(TrainingError):
    """A round's candidates make too few rows to train on; after the first round that ends the loop."""


def round_rows(
    rounds: Rounds, number: int, start: int, train: Dataset, held_out: Dataset, report: Callable[[str], None]
) -> tuple[Rows, Rows]:
    """The rows that a round trains on, and those held back from it. What was sampled, scored or labelled before is kept.

    Args:
        rounds: The loop's.
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
    from rlaif_sdk.training.iterate.candidates import make_candidates, round_prompts

    run, config, folder = rounds.run, rounds.run.config, rounds.folder(number)
    seed = config.seed + number
    prompts = round_prompts(train, number, config.candidates.prompts, seed=config.seed)
    if not run.needs_candidates:
        return [*prompts], [held_out[0]]
    report(f"round {number}: {config.candidates.completions} completions of each of {len(prompts)} prompts")
    before = rounds.folder(number - 1) / CANDIDATES_FILE
    # what is known of one judge's scale says nothing of another's
    known = before.exists() and not run.judge_moves
    candidates, state = make_candidates(
        prompts,
        config.candidates,
        policy=partial(rounds.policy, start),
        composer=run.with_model(rounds.model(start)).composer,
        generated=NumberedFiles(folder / "completions"),
        scored=NumberedFiles(folder / "scores"),
        state=read_json(before)["state"] if known else None,
        progress=Progress(number, config.stop.rounds),
        seed=seed,
    )
    means_N, spreads_N = candidates.difficulty()
    order = candidates.order(config.data.curriculum, seed=seed)
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
        rows: list[Mapping[str, Any]] = [*prompt_rows(candidates, order)]
        _need(rows, 1, rounds, number)
        return rows, [held_out[0]]
    found: Sequence[Mapping[str, Any]] = (
        preference_rows(candidates, order, config.pairs)
        if learns_from == "pairs"
        else best_rows(candidates, order, config.best)
    )
    _need(found, 2, rounds, number)
    if config.label is not None:
        report(f"round {number}: labelling {len(found)} pairs")
        found = labelled_rows(run, rounds.model(start), folder, found)
        _need(found, 2, rounds, number)
    return split_rows(found)


def _need(rows: Sequence[Any], least: int, rounds: Rounds, number: int) -> None:
    if len(rows) < least:
        kind = get_method(rounds.run.config.method).learns_from
        raise NothingToLearnError(
            f"round {number} has {len(rows)} {kind} to learn from, and needs {least}: "
            f"see the scores in {rounds.folder(number)}",
            hint=f"take more candidates.prompts, or widen the limits under {_LIMITS[kind]}",
        )


def _listed(values_N: Any) -> list[float | None]:
    return [None if value != value else value for value in values_N.tolist()]  # noqa: PLR0124 - NaN differs from itself
