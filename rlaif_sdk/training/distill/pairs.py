"""What the judge compares, and what becomes of its labels: pairs for training, pairs held out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import TrainingError
from rlaif_sdk.io.jobs import NumberedFiles
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.tables import read_rows, write_table
from rlaif_sdk.training.distill.config import DistillRun
from rlaif_sdk.training.iterate.candidates import round_prompts, sample_parts
from rlaif_sdk.training.iterate.policy import held_policy
from rlaif_sdk.training.run import check_chat_template

if TYPE_CHECKING:
    from datasets import Dataset

    from rlaif_sdk.training.iterate.policy import Policy

PAIRS_FILE, TRAIN_FILE, HELD_OUT_FILE = "pairs.jsonl", "train.jsonl", "held-out.jsonl"
ROW = "prompt_row"
"""The column that says which of the run's candidate prompts a pair answers, from 0."""


def sample_pairs(run: DistillRun, train: Dataset, folder: Path) -> dict[str, Any]:
    """Sample the candidates, and write every two different completions of a prompt to `PAIRS_FILE`.

    Args:
        run: The run.
        train: The prompts to draw from.
        folder: The stage's; it keeps every batch that was sampled.

    Returns:
        Counts of prompts, completions and pairs, and how long the completions are.

    Raises:
        ConfigError: The prompts are messages, and the policy has no chat template.
        TrainingError: There are no two different completions.
    """
    settings = run.config.candidates
    prompts = round_prompts(train, 1, settings.prompts, seed=run.config.seed)
    generated = NumberedFiles(folder / "completions")
    parts = sample_parts(
        prompts, settings, policy=partial(_policy, run, prompts), generated=generated, seed=run.config.seed
    )
    sampled = [generated[index] for index in range(len(parts))]
    completions = [completion for part in sampled for completion in part["completions"]]
    pairs = [*_pairs(prompts, completions, settings.completions)]
    if not pairs:
        raise TrainingError(
            "the policy gives each prompt the same completion every time: there is nothing to compare",
            hint="raise candidates.temperature or candidates.completions",
        )
    write_table(pairs, folder / PAIRS_FILE)
    possible = len(prompts) * settings.completions * (settings.completions - 1) // 2
    return {
        "prompts": len(prompts),
        "completions": len(completions),
        "pairs": len(pairs),
        "identical_pairs": possible - len(pairs),
        "mean_tokens": sum(len(ids) for part in sampled for ids in part["completion_ids"]) / len(completions),
        "truncated_share": sum(flag for part in sampled for flag in part["truncated"]) / len(completions),
    }


def split_labels(labels: Path, folder: Path, prompts: int, share: float) -> dict[str, int]:
    """Sort labelled pairs by prompt into those to train on and those held out; no prompt is in both files.

    Args:
        labels: The labelled pairs.
        folder: For `TRAIN_FILE` and `HELD_OUT_FILE`.
        prompts: N, how many prompts there are; the last ones are held out.
        share: How many of them, as a share of N; at least one.

    Returns:
        The rows in each file.

    Raises:
        TrainingError: One of them would be empty.
    """
    rows = [*read_rows(labels)]
    first = prompts - max(1, round(share * prompts))
    apart = {_key(row) for row in rows if row[ROW] >= first}
    held_out = [row for row in rows if _key(row) in apart]
    train = [row for row in rows if _key(row) not in apart]
    if not train or not held_out:
        raise TrainingError(
            f"{len(train)} labelled pairs are left to train on and {len(held_out)} to evaluate on: "
            "the reward model needs both",
            hint="take more candidates.prompts",
        )
    write_table(train, folder / TRAIN_FILE)
    write_table(held_out, folder / HELD_OUT_FILE)
    return {"train": len(train), "held_out": len(held_out)}


def _policy(run: DistillRun, prompts: Dataset) -> Policy:
    from transformers import AutoTokenizer

    conversational = not isinstance(prompts[0]["prompt"], str)
    if conversational:
        tokenizer = AutoTokenizer.from_pretrained(run.model_name, revision=run.config.model.revision)
        check_chat_template(run, tokenizer, needed=True)
    return held_policy(run)


def _pairs(prompts: Dataset, completions: Sequence[Any], each: int) -> Iterator[Row]:
    for row, prompt in enumerate(prompts["prompt"]):
        for first, second in combinations(completions[row * each : (row + 1) * each], 2):
            if first != second:
                yield {"prompt": prompt, "response_1": first, "response_2": second, ROW: row}


def _key(row: Row) -> str:
    return json.dumps(row["prompt"])
