"""Distilled RLAIF: a judge's labels train a reward model, and the reward model trains the policy."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from rlaif_sdk.config.base import refused
from rlaif_sdk.config.documents import Document, validate
from rlaif_sdk.config.overrides import overridden
from rlaif_sdk.exceptions import TrainingError, needs_extra
from rlaif_sdk.io.files import read_json, without_nan, write_json
from rlaif_sdk.io.jobs import NumberedFiles, locked
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.tables import open_rows, read_rows, write_table
from rlaif_sdk.preferences import LabelJob, LabelResult, run_labeling
from rlaif_sdk.preferences.label_job import LabelConfig, judge_pair
from rlaif_sdk.statistics.estimates import comparison, sample_mean
from rlaif_sdk.training.config import (
    ComposedRun,
    ComposedRunConfig,
    Composition,
    ModelSettings,
    Run,
    has_placeholder,
    with_model,
    with_policy,
)
from rlaif_sdk.training.generation import loaded_policy
from rlaif_sdk.training.iterate.candidates import round_prompts, sample_parts
from rlaif_sdk.training.iterate.config import CandidateSettings
from rlaif_sdk.training.methods import get_method, run_of, train, trainer_settings
from rlaif_sdk.training.online import check_chat_template
from rlaif_sdk.training.preflight import Preflight, two_answers
from rlaif_sdk.training.ranks import refuse_processes
from rlaif_sdk.training.run_folder import MODEL_FOLDER, SAMPLES_FILE, can_resume, check_parts

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
STAGE_FILE = "stage.json"
"""Written last: a folder that has it holds a stage that is done."""
REWARD_MODEL = "$reward_model"
"""Stands in a composition for the folder of the reward model that the run trains."""

DEFAULT_COMPOSITION = {"rewards": {"reward_model": {"normalize": "zscore", "params": {"model": REWARD_MODEL}}}}
"""A reward model's scores have no scale of their own, and the price of divergence has: hence the normalizer."""


class DistillCandidateSettings(CandidateSettings):
    """The completions that the judge compares, sampled with the policy as it stands before training."""

    prompts: PositiveInt = 512
    """How many training prompts, drawn at random."""
    completions: int = Field(default=2, ge=2)
    """How many completions of each; every two different ones make a pair."""
    held_out_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of these prompts whose pairs the reward model never trains on: they say how good it is."""


class DistillConfig(ComposedRunConfig):
    """Everything about a run of distilled RLAIF (Lee et al. 2023, arXiv:2309.00267)."""

    candidates: DistillCandidateSettings = DistillCandidateSettings()
    """What the judge compares."""
    label: dict[str, Any]
    """The judge and how it is asked: what a labelling job takes without ``pairs`` and ``output``. ``$policy`` stands for
    the model of the run."""
    reward_base: ModelSettings | None = None
    """The model that becomes the reward model, with a new head of one score; null takes the policy's, with an adapter
    like the policy's."""
    reward_model: dict[str, Any] = Field(default_factory=dict)
    """Fields of `trl.RewardConfig`, as in a run of its own."""
    composition: Composition = Field(default=DEFAULT_COMPOSITION, validate_default=True)
    """The rewards: a composition, or the path of a file with one. ``$reward_model`` in it stands for the trained reward
    model, which is the only reward by default; ``$policy`` for the model of the run."""
    evaluation: Composition | None = None
    """Rewards only for held-out prompts, which training never sees: a judge's score, for example."""
    ppo: dict[str, Any] = Field(default_factory=dict)
    """Fields of `rlaif_sdk.training.ppo.PPOConfig`, as in a run of its own."""

    @model_validator(mode="after")
    def _stages_name_their_own_files(self) -> Self:
        for key in ("pairs", "output"):
            if key in self.label:
                raise refused("is the run's own affair: leave it out", "label", key)
        return self


@dataclass(frozen=True, slots=True)
class DistilledPolicyRun(ComposedRun):
    """The PPO run whose composition speaks of a reward model that was just trained.

    Attributes:
        reward_model: Its folder.
    """

    reward_model: str = field(default="", kw_only=True)

    def composition_document(self, key: str = "composition", *, ledger: bool = True) -> Document:
        document = ComposedRun.composition_document(self, key, ledger=ledger)
        return replace(document, data=with_model(document.data, REWARD_MODEL, self.reward_model))


@dataclass(frozen=True, slots=True)
class DistillRun(ComposedRun):
    """The config of distilled RLAIF and the document it was read from."""

    config: DistillConfig

    def stage(self, name: str) -> Path:
        """The folder of a stage."""
        return self.output / name

    def label_job(self, pairs: Path, output: Path) -> LabelJob:
        """The job that labels ``response_1`` and ``response_2`` of a file.

        Raises:
            ConfigError: The settings under ``label`` are refused.
        """
        settings = self.document.at("label")
        label = with_policy(settings.data, self.model_name)
        document = replace(
            settings, data={**label, "pairs": {"file": str(pairs.resolve())}, "output": str(output.resolve())}
        )
        return LabelJob(validate(LabelConfig, document), document)

    def reward_model_run(self, train: Path, held_out: Path, rows: int) -> Run:
        """The run that trains the reward model.

        Args:
            train: The file of labelled pairs to train on.
            held_out: That of the pairs to evaluate on.
            rows: How many those are.

        Raises:
            ConfigError: A setting is refused.
        """
        model = self.config.reward_base or self.config.model.model_copy(update={"quantization": None})
        if model.dtype == "auto" and model.lora is None:
            model = model.model_copy(update={"dtype": "float32"})
        document = replace(
            self.document,
            data={
                "model": model.model_dump(),
                "data": {"train": str(train.resolve()), "held_out": str(held_out.resolve()), "held_out_rows": rows},
                "reward_model": self.config.reward_model,
                "output": str(self.stage("reward_model").resolve()),
                "seed": self.config.seed,
            },
        )
        run: Run = run_of("reward_model", document, allow_changed=self.allow_changed)
        return run

    def ppo_run(self, reward_model: str) -> DistilledPolicyRun:
        """The run that trains the policy.

        Args:
            reward_model: The folder of the trained reward model.

        Raises:
            ConfigError: A setting is refused.
        """
        keys = ("model", "data", "composition", "evaluation", "ppo", "seed")
        data = {key: self.document.data[key] for key in keys if key in self.document.data}
        document = replace(self.document, data={**data, "output": str(self.stage("policy").resolve())})
        return DistilledPolicyRun(
            validate(get_method("ppo").config, document),
            document,
            method="ppo",
            reward_model=reward_model,
            allow_changed=self.allow_changed,
        )

    @property
    def uses_reward_model(self) -> bool:
        """Whether ``$reward_model`` stands in the composition.

        Raises:
            ConfigError: The composition's file cannot be read.
        """
        return has_placeholder(self.composition_document().data, REWARD_MODEL)


def load_distill_run(source: str | Path | Mapping[str, Any], *, overrides: Sequence[str] = ()) -> DistillRun:
    """Read and check the config of distilled RLAIF; see `rlaif_sdk.training.methods.load_run`.

    Raises:
        ConfigError: The config or an override is refused; the message has file, line and key.
    """
    document = overridden(source, overrides)
    if isinstance(document.data, Mapping):
        document = replace(document, data={"composition": DEFAULT_COMPOSITION, **document.data})
    run = DistillRun(validate(DistillConfig, document), document)
    if not run.uses_reward_model:
        raise run.document.error(
            f"rewards nothing by {REWARD_MODEL}, the reward model that the run trains",
            ("composition", "rewards"),
            f"add reward_model: {{params: {{model: {REWARD_MODEL}}}}}, or train with rlaif train ppo",
        )
    return run


def _sample_pairs(run: DistillRun, train: Dataset, folder: Path) -> dict[str, Any]:
    """Sample the candidates, and write every two different completions of a prompt to `PAIRS_FILE`.

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


def _split_labels(labels: Path, folder: Path, prompts: int, share: float) -> dict[str, int]:
    """Sort labelled pairs by prompt into `TRAIN_FILE` and `HELD_OUT_FILE`, and count each.

    No prompt is in both files: of so many prompts the last ones are held out, as a share, and at least one.

    Raises:
        TrainingError: One of them would be empty.
    """
    rows = [*read_rows(labels)]
    first = prompts - max(1, round(share * prompts))
    keys = [json.dumps(row["prompt"]) for row in rows]
    apart = {key for key, row in zip(keys, rows, strict=True) if row[ROW] >= first}
    held_out = [row for key, row in zip(keys, rows, strict=True) if key in apart]
    train = [row for key, row in zip(keys, rows, strict=True) if key not in apart]
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

    if not isinstance(prompts[0]["prompt"], str):
        tokenizer = AutoTokenizer.from_pretrained(run.model_name, revision=run.config.model.revision)
        check_chat_template(run, tokenizer, needed=True)
    return loaded_policy(run)


def _pairs(prompts: Dataset, completions: Sequence[Any], each: int) -> Iterator[Row]:
    for row, prompt in enumerate(prompts["prompt"]):
        for first, second in combinations(completions[row * each : (row + 1) * each], 2):
            if first != second:
                yield {"prompt": prompt, "response_1": first, "response_2": second, ROW: row}


@dataclass(frozen=True, slots=True)
class DistillResult:
    """What came of a run.

    Attributes:
        stages: What each stage measured, by its name: ``candidates``, ``labels``, ``reward_model``, ``policy``,
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
    resumed does only what is missing.

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
    refuse_processes("start it without; of its stages rlaif train reward-model and rlaif train ppo take several")
    run = source if isinstance(source, DistillRun) else load_distill_run(source)
    with needs_extra("train"):
        from rlaif_sdk.training.data import load_prompts

        _check_stages(run)
    train, held_out = load_prompts(run.config.data, run.folder, arranged=False)
    with locked(run.output):
        run.claim_loop("distillation", train, held_out, results=f"*/{STAGE_FILE}", resume=resume)
        return _Pipeline(run, train, display, report, on_result).run()


def check_distill(run: DistillRun) -> Preflight:
    """Check what every stage is made of, as `rlaif_sdk.training.run_folder.check` does a run; nothing is written.

    The judge compares two stated answers to the first prompt. What is scored by the reward model, which is not there yet,
    is left out.

    Returns:
        What was found; what is wrong is among its problems.

    Raises:
        MissingExtraError: The extra ``train`` is not installed.
    """
    from rlaif_sdk.composer import Composer

    found = Preflight()
    with found.noting():
        _check_stages(run)
    ppo = run.ppo_run(run.model_name)

    def rows(**options: Any) -> tuple[Dataset, Dataset]:
        from rlaif_sdk.training.data import load_prompts

        return load_prompts(run.config.data, run.folder, arranged=False, **options)

    def composers() -> Iterator[tuple[str, Callable[[], Composer]]]:
        for key in ppo.composition_keys:
            document = ComposedRun.composition_document(run, key, ledger=False)
            rewards = {
                name: each for name, each in document.data["rewards"].items() if not has_placeholder(each, REWARD_MODEL)
            }
            if rewards:  # without gates and groups, which may name what is left out
                parts = {name: document.data[name] for name in ("fallbacks", "block_plugins") if name in document.data}
                left = {name: {**(each or {}), "weight": 1} for name, each in rewards.items()}
                yield key, partial(Composer.from_config, replace(document, data={**parts, "rewards": left}))

    found = check_parts(found, ppo, partial(trainer_settings, ppo), rows, composers())
    if not found.problems:
        judge_pair(
            found, "label", run.label_job(run.output, run.output).labeler(), two_answers(rows(open_table=open_rows)[0])
        )
    return found


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
        stage_makers = (self._candidates, self._labels, self._reward_model, self._policy, self._comparison)
        for number, make in enumerate(stage_makers, start=1):
            name = make.__name__.removeprefix("_")
            folder = self.config.stage(name)
            if (folder / STAGE_FILE).exists():
                self.report(f"{number}/{len(stage_makers)} {name}: done before")
            else:
                self.report(f"{number}/{len(stage_makers)} {name}")
                write_json(folder / STAGE_FILE, make(folder, stages))
                gc.collect()
            stages[name] = read_json(folder / STAGE_FILE)
        return DistillResult(stages, self._reward_model_folder, self._policy_folder, self.config.output)

    def _candidates(self, folder: Path, _: Mapping[str, Any]) -> dict[str, Any]:
        settings = self.config.config.candidates
        self.report(f"sampling {settings.completions} completions of each of {settings.prompts} prompts")
        return _sample_pairs(self.config, self.train, folder)

    def _labels(self, folder: Path, done: Mapping[str, Any]) -> dict[str, Any]:
        result = self._ask(self.config.label_job(self.config.stage("candidates") / PAIRS_FILE, folder))
        share = self.config.config.candidates.held_out_share
        chosen_prob_B = np.array([row["chosen_prob"] for row in read_rows(result.labels)])
        return {
            **result.summary.record(),
            "mean_confidence": float(chosen_prob_B.mean()) if chosen_prob_B.size else None,
            "rows": _split_labels(result.labels, folder, done["candidates"]["prompts"], share),
        }

    def _reward_model(self, _folder: Path, done: Mapping[str, Any]) -> dict[str, Any]:
        labels, rows = self.config.stage("labels"), done["labels"]["rows"]
        run = self.config.reward_model_run(labels / TRAIN_FILE, labels / HELD_OUT_FILE, rows["held_out"])
        result, done_in = self._trained(run)
        before, after = without_nan(result.before), without_nan(result.after)
        return {"held_out_pairs": result.calibration.pairs, "before": before, "after": after, **done_in}

    def _policy(self, _folder: Path, _: Mapping[str, Any]) -> dict[str, Any]:
        result, done_in = self._trained(self.config.ppo_run(str(self._reward_model_folder.resolve())))
        divergence = [entry["kl"] for entry in result.history if entry.get("kl") is not None]
        return {
            "rewards": comparison(result.before.rewards(), result.after.rewards()),
            "evaluation": comparison(result.before.evaluation_rewards(), result.after.evaluation_rewards()),
            "health": comparison(result.before.health(), result.after.health()),
            "kl_per_answer": divergence[-1] if divergence else None,
            **done_in,
        }

    def _trained(self, run: Run) -> tuple[Any, dict[str, Any]]:
        result = train(
            run.method,
            run,
            display=self.display,
            report=self.report,
            on_result=self.on_result,
            resume=can_resume(run.output),
        )
        return result, {"steps": result.steps, "training_seconds": round(result.training_seconds, 1)}

    def _comparison(self, folder: Path, _: Mapping[str, Any]) -> dict[str, Any]:
        pairs = (
            {
                "prompt": sample["prompt"],
                "response_1": sample["before"]["completion"],
                "response_2": sample["after"]["completion"],
            }
            for sample in read_rows(self.config.stage("policy") / SAMPLES_FILE)
        )
        write_table(pairs, folder / PAIRS_FILE)
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
