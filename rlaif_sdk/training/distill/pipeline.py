"""The stages of distilled RLAIF, each kept in a folder when it is done: label, reward model, PPO."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlaif_sdk.exceptions import MissingExtraError, TrainingError
from rlaif_sdk.io.digests import rows_digest
from rlaif_sdk.io.files import read_json, without_nan, write_json
from rlaif_sdk.io.jobs import RESUME_ANOTHER, NumberedFiles, claim, locked
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.tables import read_rows, write_table
from rlaif_sdk.preferences import LabelJob, LabelResult, run_labeling
from rlaif_sdk.statistics.estimates import sample_mean
from rlaif_sdk.training.distill.config import DistillRun, load_distill_run
from rlaif_sdk.training.generation import loaded_policy
from rlaif_sdk.training.iterate.candidates import round_prompts, sample_parts
from rlaif_sdk.training.methods import train, trainer_settings
from rlaif_sdk.training.online import check_chat_template
from rlaif_sdk.training.run_folder import MODEL_FOLDER, SAMPLES_FILE, can_resume

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerCallback

    from rlaif_sdk.training.generation import Policy
    from rlaif_sdk.training.online import PolicyResult
    from rlaif_sdk.training.preferences import PreferenceResult

    Result = PreferenceResult | PolicyResult


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
    return loaded_policy(run)


def _pairs(prompts: Dataset, completions: Sequence[Any], each: int) -> Iterator[Row]:
    for row, prompt in enumerate(prompts["prompt"]):
        for first, second in combinations(completions[row * each : (row + 1) * each], 2):
            if first != second:
                yield {"prompt": prompt, "response_1": first, "response_2": second, ROW: row}


def _key(row: Row) -> str:
    return json.dumps(row["prompt"])


STAGE_FILE = "stage.json"
"""Written last: a folder that has it holds a stage that is done."""


@dataclass(frozen=True, slots=True)
class DistillResult:
    """What came of a run.

    Attributes:
        stages: The figures of each stage by its name: ``candidates``, ``labels``, ``reward_model``, ``policy``,
            ``comparison``; JSON-ready.
        reward_model: The folder of the trained reward model.
        policy: The folder of the trained policy.
        output: The folder of the run, with a folder a stage.
    """

    stages: Mapping[str, Mapping[str, Any]]
    reward_model: Path
    policy: Path
    output: Path


def run_distill(
    source: str | Path | Mapping[str, Any] | DistillRun,
    *,
    display: TrainerCallback | None = None,
    report: Callable[[str], None] = lambda _: None,
    on_result: Callable[[Result], None] = lambda _: None,
    resume: bool = False,
) -> DistillResult:
    """Distil a judge into a reward model and train a policy on it (Lee et al. 2023, arXiv:2309.00267).

    The stages: completions are sampled with the policy; the judge compares them; a reward model learns its labels and is
    evaluated on pairs of other prompts; PPO trains the policy on it; the judge compares the answers to the held-out
    prompts before and after. What is done is kept, batch by batch while sampling and label by label, and a run that is
    resumed does what is missing alone.

    Args:
        source: A YAML or JSON file, a mapping, or a loaded run. See `DistillConfig`. With its ``allow_changed`` it may
            differ from the run that is resumed.
        display: Shows training's progress in place of the trainers' own printing.
        report: Called with a line of text at the start of each stage.
        on_result: Called with what came of a training before its stage counts as done.
        resume: Resume the run in the output folder; there may be none yet.

    Raises:
        ConfigError: The config is refused; or it, the prompts or the rewards' code differ from those of the run which
            is to be resumed.
        DataError: A prompt is refused.
        JudgeError: The judge cannot be used, or fails on too many pairs. The run can be resumed.
        RewardError: A reward failed whose policy is to raise.
        TrainingError: There is nothing to learn from.
        MissingExtraError: The extra ``train`` is not installed.
    """
    run = source if isinstance(source, DistillRun) else load_distill_run(source)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError(
            "distillation from a config is one process", hint="run its stages: rlaif label, rlaif train"
        )
    try:
        from rlaif_sdk.training.data import load_prompts

        _check_stages(run)
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="train") from error
    train, held_out = load_prompts(run.config.data.model_copy(update={"curriculum": None}), run.folder)
    settings = {
        **run.config.model_dump(mode="json", exclude={"output"}),
        **{key: run.composition_config(key).model_dump(mode="json") for key in run.composition_keys},
        "code": run.code(),
        "training prompts": rows_digest(train),
        "held-out prompts": rows_digest(held_out),
    }
    with locked(run.output):
        claim(
            run.output,
            settings,
            kind="distillation",
            results=[f"*/{STAGE_FILE}"],
            resume=resume,
            on_change="note" if run.allow_changed else "refuse",
            file=run.document.file,
            hint=RESUME_ANOTHER,
        )
        return _Pipeline(run, train, display, report, on_result).run()


def _check_stages(run: DistillRun) -> None:
    """Refuse the settings of any stage before the first one begins; no model is loaded.

    Raises:
        RlaifError: A setting is refused, or a reward unknown.
    """
    run.label_job(run.output, run.output).labeler().backend.close()
    trainer_settings(run.reward_model_run(run.output, run.output, 1))
    ppo = run.ppo_run(run.model_name)
    trainer_settings(ppo)
    for key in ("composition", "evaluation") if run.config.evaluation else ("composition",):
        ppo.composer(key, ledger=False).close()


@dataclass(frozen=True, slots=True)
class _Pipeline:
    config: DistillRun
    train: Dataset
    display: TrainerCallback | None
    report: Callable[[str], None]
    on_result: Callable[[Result], None]

    def run(self) -> DistillResult:
        stages: dict[str, Mapping[str, Any]] = {}
        makers = (self._candidates, self._labels, self._reward_model, self._policy, self._comparison)
        for number, make in enumerate(makers, start=1):
            name = make.__name__.removeprefix("_")
            folder = self.config.stage(name)
            if (folder / STAGE_FILE).exists():
                self.report(f"{number}/{len(makers)} {name}: done before")
            else:
                self.report(f"{number}/{len(makers)} {name}")
                write_json(folder / STAGE_FILE, make(folder, stages))
                gc.collect()
            stages[name] = read_json(folder / STAGE_FILE)
        return DistillResult(stages, self._reward_model_folder, self._policy_folder, self.config.output)

    def _candidates(self, folder: Path, _: Mapping[str, Any]) -> dict[str, Any]:
        settings = self.config.config.candidates
        self.report(f"sampling {settings.completions} completions of each of {settings.prompts} prompts")
        return sample_pairs(self.config, self.train, folder)

    def _labels(self, folder: Path, done: Mapping[str, Any]) -> dict[str, Any]:
        result = self._ask(self.config.label_job(self.config.stage("candidates") / PAIRS_FILE, folder))
        share = self.config.config.candidates.held_out_share
        chosen_prob_B = np.array([row["chosen_prob"] for row in read_rows(result.labels)])
        return {
            **result.summary.record(),
            "mean_confidence": float(chosen_prob_B.mean()) if chosen_prob_B.size else None,
            "rows": split_labels(result.labels, folder, done["candidates"]["prompts"], share),
        }

    def _reward_model(self, folder: Path, done: Mapping[str, Any]) -> dict[str, Any]:

        labels, rows = self.config.stage("labels"), done["labels"]["rows"]
        run = self.config.reward_model_run(labels / TRAIN_FILE, labels / HELD_OUT_FILE, rows["held_out"])
        resume = can_resume(folder)
        result = train(run.method, run, display=self.display, report=self.report, resume=resume)
        self.on_result(result)
        return {
            "held_out_pairs": result.calibration.pairs,
            "before": without_nan(result.before),
            "after": without_nan(result.after),
            "steps": result.steps,
            "training_seconds": round(result.training_seconds, 1),
        }

    def _policy(self, folder: Path, _: Mapping[str, Any]) -> dict[str, Any]:
        from rlaif_sdk.reporting.training_report import comparison

        run = self.config.ppo_run(str(self._reward_model_folder.resolve()))
        result = train(run.method, run, display=self.display, report=self.report, resume=can_resume(folder))
        self.on_result(result)
        divergence = [entry["kl"] for entry in result.history if entry.get("kl") is not None]
        return {
            "rewards": comparison(result.before.rewards(), result.after.rewards()),
            "evaluation": comparison(result.before.evaluation_rewards(), result.after.evaluation_rewards()),
            "health": comparison(result.before.health(), result.after.health()),
            "kl_per_answer": divergence[-1] if divergence else None,
            "steps": result.steps,
            "training_seconds": round(result.training_seconds, 1),
        }

    def _comparison(self, folder: Path, _: Mapping[str, Any]) -> dict[str, Any]:
        samples = read_rows(self.config.stage("policy") / SAMPLES_FILE)
        write_table(
            (
                {
                    "prompt": sample["prompt"],
                    "response_1": sample["before"]["completion"],
                    "response_2": sample["after"]["completion"],
                }
                for sample in samples
            ),
            folder / PAIRS_FILE,
        )
        job = self.config.label_job(folder / PAIRS_FILE, folder / "labels")
        job = LabelJob(job.config.model_copy(update={"ties": "keep", "format": "jsonl"}), job.document)
        result = self._ask(job)
        labels = [*read_rows(result.labels)]
        wins_B = np.array([0.5 if label["tie"] else float(label["prob_1"] < 0.5) for label in labels], dtype=np.float64)
        prob_after_B = np.array([1 - label["prob_1"] for label in labels], dtype=np.float64)
        return {
            "win_rate": sample_mean(wins_B).to_dict(),
            "mean_probability": sample_mean(prob_after_B).to_dict(),
            "flip_rate": result.summary.flip_rate,
            "ties": result.summary.ties,
            "failed": result.summary.failed,
        }

    def _ask(self, job: LabelJob) -> LabelResult:
        told = -1

        def tell(done: int, rows: int) -> None:
            nonlocal told
            if done * 10 // rows > told:
                told = done * 10 // rows
                self.report(f"{done} of {rows} pairs labelled")

        return run_labeling(job, progress=tell, allow_changed=self.config.allow_changed)

    @property
    def _reward_model_folder(self) -> Path:
        return self.config.stage("reward_model") / MODEL_FOLDER

    @property
    def _policy_folder(self) -> Path:
        return self.config.stage("policy") / MODEL_FOLDER
