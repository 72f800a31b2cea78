"""How hard a policy finds prompts: the mean and spread of the rewards of several answers to each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlaif_sdk.config.documents import load_document
from rlaif_sdk.exceptions import needs_extra
from rlaif_sdk.training.config import ComposedRun
from rlaif_sdk.training.curriculum import MEAN_COLUMN, SCORED_COLUMN, SPREAD_COLUMN, mean_and_spread
from rlaif_sdk.training.methods import load_run, online_methods, trainer_settings
from rlaif_sdk.types import Progress


def load_measured_run(source: str | Path | Mapping[str, Any], *, overrides: Sequence[str] = ()) -> ComposedRun:
    """Read the config of a run on composed rewards, told apart by the key that has the trainer's settings.

    Raises:
        ConfigError: The config or an override is refused; the message has file, line and key.
    """
    data = source if isinstance(source, Mapping) else load_document(source).data
    named = [name for name in online_methods() if isinstance(data, Mapping) and name in data]
    run: ComposedRun = load_run(named[0] if named else "ppo", source, overrides=overrides)
    return run


def measure_difficulty(
    run: ComposedRun, *, completions: int = 4, report: Callable[[str], None] = lambda _: None
) -> Iterator[dict[str, Any]]:
    """Answer each training prompt several times, as training would, and compose the answers.

    Args:
        run: A run of PPO, GRPO or RLOO: its model, prompts, composition, and the sampling of its trainer.
        completions: How many answers to each prompt.
        report: Called with a line of text at the start of each stage.

    Yields:
        The rows of the run's training data with the columns that a curriculum goes by: the mean reward, the standard
        deviation, and how many answers were scored. Where the held-out prompts are the last of these rows, they follow
        with null in these columns, so that the table can take the place of the training data.

    Raises:
        RlaifError: As `rlaif_sdk.training.methods.train`.
    """
    with needs_extra("train"):
        from rlaif_sdk.training.data import load_prompts
        from rlaif_sdk.training.generation import Sampling, answer_prompts, loaded_policy
        from rlaif_sdk.training.online import prompts_for_trainer

        trainer = trainer_settings(run)

    prompts, held_out = load_prompts(run.config.data, run.folder, arranged=False)
    size = max(1, trainer.per_device_eval_batch_size // completions)
    report(f"loading {run.model_name}")
    with run.composer() as composer, loaded_policy(run) as (model, tokenizer):
        composer.disarm()
        (asked,) = prompts_for_trainer(run, tokenizer, trainer, {"train": prompts})
        report(f"{completions} answers to each of {len(prompts)} prompts")
        for number, start in enumerate(range(0, len(prompts), size)):
            rows = range(start, min(start + size, len(prompts)))
            part = asked.select(rows)
            seed = int(np.random.SeedSequence((run.config.seed, number)).generate_state(1)[0])
            answers = answer_prompts(model, tokenizer, part, Sampling.of(trainer, seed=seed), completions=completions)
            group = [row for row in range(len(part)) for _ in range(completions)]
            composition = composer.compose(answers.batch(Progress(), group=group, training=True))
            totals_NK = composition.totals.reshape(len(part), completions)
            for row, totals_K in zip(prompts.select(rows), totals_NK.tolist(), strict=True):
                yield {**row, **_columns(totals_K)}
    if run.config.data.held_out_source is None:
        yield from ({**row, **dict.fromkeys((MEAN_COLUMN, SPREAD_COLUMN, SCORED_COLUMN))} for row in held_out)


def _columns(totals_K: Sequence[float]) -> dict[str, Any]:
    mean, spread, scored = mean_and_spread(totals_K)
    return {
        MEAN_COLUMN: None if math.isnan(mean) else mean,
        SPREAD_COLUMN: None if math.isnan(spread) else spread,
        SCORED_COLUMN: scored,
    }
