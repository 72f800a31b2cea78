"""The stages of distilled RLAIF, each kept in a folder when it is done: label, reward model, PPO."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlaif_sdk.exceptions import MissingExtraError, TrainingError
from rlaif_sdk.io.digests import rows_digest
from rlaif_sdk.io.files import read_json, without_nan, write_json
from rlaif_sdk.io.jobs import RESUME_ANOTHER, claim, locked
from rlaif_sdk.io.tables import read_rows, write_table
from rlaif_sdk.preferences import LabelJob, LabelResult, run_labeling
from rlaif_sdk.reporting.estimates import estimate
from rlaif_sdk.training.distill.config import DistillRun, load_distill_run
from rlaif_sdk.training.distill.pairs import HELD_OUT_FILE, PAIRS_FILE, TRAIN_FILE, sample_pairs, split_labels
from rlaif_sdk.training.run_folder import MODEL_FOLDER, SAMPLES_FILE

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerCallback

    from rlaif_sdk.training.preference_run import PreferenceResult
    from rlaif_sdk.training.run import PolicyResult

    Result = PreferenceResult | PolicyResult

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
        resume: Go on with the run in the output folder; there may be none yet.

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
    from rlaif_sdk.training.preference_run import preference_settings

    run.label_job(run.output, run.output).labeler().backend.close()
    preference_settings("reward_model", run.reward_model_run(run.output, run.output, 1))
    ppo = run.ppo_run(run.model_name)
    ppo.ppo_config()
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
        from rlaif_sdk.training.iterate.training import can_go_on
        from rlaif_sdk.training.preference_run import run_preferences

        labels, rows = self.config.stage("labels"), done["labels"]["rows"]
        run = self.config.reward_model_run(labels / TRAIN_FILE, labels / HELD_OUT_FILE, rows["held_out"])
        resume = can_go_on(folder)
        result = run_preferences("reward_model", run, display=self.display, report=self.report, resume=resume)
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
        from rlaif_sdk.training.iterate.training import can_go_on
        from rlaif_sdk.training.run import run_ppo

        run = self.config.ppo_run(str(self._reward_model_folder.resolve()))
        result = run_ppo(run, display=self.display, report=self.report, resume=can_go_on(folder))
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
            "win_rate": estimate(wins_B).to_dict(),
            "mean_probability": estimate(prob_after_B).to_dict(),
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
