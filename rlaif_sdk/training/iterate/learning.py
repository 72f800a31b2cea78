"""What a round has to learn from: candidates sampled and composed, and the rows made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import TrainingError
from rlaif_sdk.io.files import read_json, write_json
from rlaif_sdk.io.jobs import NumberedFiles
from rlaif_sdk.training.iterate.config import OFFLINE
from rlaif_sdk.training.iterate.rounds import Rounds
from rlaif_sdk.types import Progress

if TYPE_CHECKING:
    from datasets import Dataset

Rows = list[Mapping[str, Any]]

CANDIDATES_FILE = "candidates.json"
_LIMITS = {
    "pairs": "pairs or data.curriculum",
    "best completions": "best or data.curriculum",
    "prompts": "data.curriculum",
}


class NothingToLearnError(TrainingError):
    """A round's candidates make too few rows to train on; after the first round that ends the loop."""


def round_lessons(
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
    from rlaif_sdk.training.iterate import lessons
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
    if config.method not in OFFLINE:
        rows: list[Mapping[str, Any]] = [*lessons.prompt_rows(candidates, order)]
        _need(rows, 1, rounds, number)
        return rows, [held_out[0]]
    found: Sequence[Mapping[str, Any]] = (
        lessons.preference_rows(candidates, order, config.pairs)
        if config.method == "dpo"
        else lessons.best_rows(candidates, order, config.best)
    )
    _need(found, 2, rounds, number)
    if config.label is not None:
        from rlaif_sdk.training.iterate.labelling import labelled_rows

        report(f"round {number}: labelling {len(found)} pairs")
        found = labelled_rows(run, rounds.model(start), folder, found)
        _need(found, 2, rounds, number)
    return lessons.split_rows(found)


def _need(rows: Sequence[Any], least: int, rounds: Rounds, number: int) -> None:
    if len(rows) < least:
        kind = {"dpo": "pairs", "sft": "best completions"}.get(rounds.run.config.method, "prompts")
        raise NothingToLearnError(
            f"round {number} has {len(rows)} {kind} to learn from, and needs {least}: "
            f"see the scores in {rounds.folder(number)}",
            hint=f"take more candidates.prompts, or widen the limits under {_LIMITS[kind]}",
        )


def _listed(values_N: Any) -> list[float | None]:
    return [None if value != value else value for value in values_N.tolist()]  # noqa: PLR0124 - NaN differs from itself
