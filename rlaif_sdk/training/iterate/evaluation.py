"""What the held-out prompts say of each round's policy: always the same prompts, sampling and judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlaif_sdk.io.files import read_json, write_json
from rlaif_sdk.io.tables import write_table
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.estimates import paired_change, sample_mean
from rlaif_sdk.training.generation import Answers, ScoredAnswers, answer_logprobs, answer_prompts
from rlaif_sdk.training.iterate.config import CandidateSettings
from rlaif_sdk.training.iterate.stopping import RoundMetrics
from rlaif_sdk.types import Progress

if TYPE_CHECKING:
    from datasets import Dataset

    from rlaif_sdk.composer import Composer
    from rlaif_sdk.training.generation import Policy

ANSWERS_FILE = "answers.json"
SAMPLES_FILE = "samples.jsonl"
EVALUATION_FILE = "evaluation.json"
STATE_FILE = "evaluation-state.json"


def evaluate_round(
    folder: Path,
    start_folder: Path,
    held_out: Dataset,
    settings: CandidateSettings,
    *,
    policy: Callable[[], Policy],
    start: Callable[[], Policy],
    composer: Callable[[], Composer],
    seed: int,
) -> Mapping[str, Any]:
    """Evaluate a policy, unless that is done already.

    Running statistics of normalizers are learnt from the starting model's answers, and never change again, so that all
    rounds are measured alike.

    Args:
        folder: The round's, which gets its answers, samples and evaluation.
        start_folder: That of round 0, the starting model.
        held_out: B prompts.
        settings: How they are answered.
        policy: Loads the policy.
        start: Loads the starting model, from which divergence is measured.
        composer: Makes the judge of all rounds.
        seed: Of the sampling.

    Returns:
        The evaluation, JSON values: estimates of the composed reward, its change since the start, each reward and
        each sign of collapse, and the divergence in nats an answer.
    """
    file = folder / EVALUATION_FILE
    if file.exists():
        found: Mapping[str, Any] = read_json(file)
        return found
    answers, kl_B = _answers(folder, held_out, settings, policy, None if folder == start_folder else start, seed)
    with composer() as ready:
        scored = _scored(answers, ready, start_folder / STATE_FILE)
    rewards = scored.rewards()
    totals_B = rewards.pop("composed_reward")
    start_totals_B = totals_B if folder == start_folder else _totals(read_json(start_folder / EVALUATION_FILE))
    columns = scored.composition.rewards
    evaluation = {
        "composed_reward": sample_mean(totals_B).to_dict(),
        "change": paired_change(start_totals_B, totals_B).to_dict(),
        "rewards": {
            name: {**sample_mean(raw_B).to_dict(), "higher_is_better": columns[name].higher_is_better}
            for name, raw_B in rewards.items()
        },
        "health": {name: sample_mean(values_B).to_dict() for name, values_B in scored.health().items()},
        "kl": sample_mean(kl_B).to_dict(),
        "totals": scored.composition.to_list(),
    }
    samples = ({"prompt": prompt, **record} for prompt, record in zip(answers.prompts, scored.records(), strict=True))
    write_table(samples, folder / SAMPLES_FILE)
    write_json(file, evaluation)
    return evaluation


def figures(evaluation: Mapping[str, Any]) -> RoundMetrics:
    """What the stop rule reads of an evaluation."""
    return RoundMetrics(
        total=_mean(evaluation["composed_reward"]),
        rewards={
            name: _mean(reward) * (1 if reward["higher_is_better"] else -1)
            for name, reward in evaluation["rewards"].items()
        },
        kl=_mean(evaluation["kl"]),
    )


def _answers(
    folder: Path,
    held_out: Dataset,
    settings: CandidateSettings,
    policy: Callable[[], Policy],
    start: Callable[[], Policy] | None,
    seed: int,
) -> tuple[Answers, Array]:
    """The policy's answers, and (B,) log-ratios of policy to start, sampled or read."""
    file = folder / ANSWERS_FILE
    if not file.exists():
        sampling: Any = settings.sampling(seed)
        measuring: Any = {
            "temperature": settings.temperature,
            "batch_size": settings.batch_size,
            "template_arguments": settings.chat_template_kwargs,
        }
        with policy() as (model, tokenizer):
            sampled = answer_prompts(model, tokenizer, held_out, sampling)
            logprobs_B = [] if start is None else answer_logprobs(model, tokenizer, sampled, **measuring)
        kl_B = [0.0] * len(held_out)
        if start is not None:
            with start() as (model, tokenizer):
                start_logprobs_B = answer_logprobs(model, tokenizer, sampled, **measuring)
            kl_B = [now - then for now, then in zip(logprobs_B, start_logprobs_B, strict=True)]
        write_json(
            file,
            {
                "completions": list(sampled.completions),
                "completion_ids": list(sampled.completion_ids),
                "truncated": list(sampled.truncated),
                "kl": [value if math.isfinite(value) else None for value in kl_B],
            },
        )
    kept = read_json(file)
    columns = {name: list(held_out[name]) for name in held_out.column_names if name != "prompt"}
    answers = Answers(list(held_out["prompt"]), kept["completions"], kept["completion_ids"], kept["truncated"], columns)
    return answers, np.array(kept["kl"], dtype=np.float64)


def _scored(answers: Answers, composer: Composer, state_file: Path) -> ScoredAnswers:
    batch = answers.batch(Progress())
    if not state_file.exists():
        composer.compose(replace(batch, training=True))
        write_json(state_file, composer.state_dict())
    composer.load_state_dict(read_json(state_file))
    return ScoredAnswers(answers, composer.compose(batch))


def _totals(evaluation: Mapping[str, Any]) -> Array:
    totals: Sequence[float | None] = evaluation["totals"]
    return np.array(totals, dtype=np.float64)


def _mean(value: Mapping[str, Any]) -> float:
    return math.nan if value["mean"] is None else float(value["mean"])
