"""The closed loop: each round makes candidates, trains and is evaluated, until the stop rule ends it.

Each part of a round is kept as it is done. The held-out evaluation is always of the same prompts, sampling and judge.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rlaif_sdk.exceptions import needs_extra
from rlaif_sdk.io.files import atomic_symlink, read_json, write_json
from rlaif_sdk.io.jobs import locked
from rlaif_sdk.io.tables import open_rows, write_table
from rlaif_sdk.preferences.label_job import judge_pair
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.estimates import paired_change, sample_mean
from rlaif_sdk.training.config import Run
from rlaif_sdk.training.generation import Answers, ScoredAnswers, answer_logprobs, answer_prompts
from rlaif_sdk.training.iterate.candidates import NothingToLearnError, label_job, round_rows
from rlaif_sdk.training.iterate.config import TRAINING_FOLDER, IterateRun, StopSettings, load_iterate_run
from rlaif_sdk.training.methods import check_settings, get_method, run_of, train, trainer_settings
from rlaif_sdk.training.preflight import Preflight, two_answers
from rlaif_sdk.training.ranks import refuse_processes
from rlaif_sdk.training.run_folder import SAMPLES_FILE, can_resume, check_parts, composers_of
from rlaif_sdk.types import Progress

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerCallback

    from rlaif_sdk.composer import Composer

Evaluation = Mapping[str, Any]

MODEL_LINK = "model"
TRAIN_ROWS, HELD_OUT_ROWS = "train.jsonl", "held-out.jsonl"
TRAINED_FILE = "trained.json"
ANSWERS_FILE = "answers.json"
EVALUATION_FILE = "evaluation.json"
STATE_FILE = "evaluation-state.json"


@dataclass(frozen=True, slots=True)
class IterateResult:
    """What came of a loop.

    Attributes:
        evaluations: The held-out evaluation of the starting model, and of each round since, JSON values: estimates of
            ``composed_reward``, of its ``change`` since the start, of each of ``rewards`` and of each sign of collapse in
            ``health``, and ``kl``, the divergence from the starting model in nats an answer.
        best: The round of the best policy within the limits; 0 is the starting model.
        model: The best policy: a folder, or the name of the starting model.
        end: Why the loop ended.
        output: The folder of the loop.
    """

    evaluations: Sequence[Evaluation]
    best: int
    model: str
    end: str
    output: Path


def run_iterate(
    source: str | Path | Mapping[str, Any] | IterateRun,
    *,
    display: TrainerCallback | None = None,
    report: Callable[[str], None] = lambda _: None,
    on_round: Callable[[int, Evaluation], None] = lambda _number, _evaluation: None,
    resume: bool = False,
) -> IterateResult:
    """Train a policy in rounds, each on what the policy of the round before makes.

    A round samples completions, composes them, trains, and is evaluated on the held-out prompts. Each part of it is
    kept when it is done, and a loop that is resumed does only what is missing.

    Args:
        source: A YAML or JSON file, a mapping, or a loaded run. See `IterateRunConfig`. With its ``allow_changed`` it
            may differ from the loop that is resumed.
        display: Shows training's progress in place of the trainer's own printing.
        report: Called with a line of text at the start of each stage.
        on_round: Called with each round's number and evaluation, those that were done before included.
        resume: Resume the loop in the output folder; there may be none yet.

    Returns:
        What came of it. The output folder then holds a folder for each round, and ``model``, a link to the best one's.

    Raises:
        ConfigError: The config is refused; or it, the prompts or the rewards' code differ from those of the loop which
            is to be resumed.
        DataError: A prompt is refused.
        RewardError: A reward failed whose policy is to raise.
        TrainingError: The first round has nothing to learn from.
        MissingExtraError: The extra ``train`` is not installed.
    """
    refuse_processes()
    run = source if isinstance(source, IterateRun) else load_iterate_run(source)
    with needs_extra("train"):
        from rlaif_sdk.training.data import load_prompts

        if run.config.label is not None:
            label_job(run, run.model_name, run.output)
        trainer_settings(round_run(run, run.model_name, run.output, 0))
    train, held_out = load_prompts(run.config.data, run.folder, arranged=False)  # each round has its own measure
    with locked(run.output):
        run.claim_loop("loop", train, held_out, results="round-*", resume=resume, may_change=("stop",))
        return _Loop(run, train, held_out, display, report).run_rounds(on_round)


def check_iterate(run: IterateRun) -> Preflight:
    """Check what a loop is made of, as `rlaif_sdk.training.run_folder.check` does a run; nothing is written.

    Returns:
        What was found; what is wrong is among its problems.

    Raises:
        MissingExtraError: The extra ``train`` is not installed.
    """
    online = get_method(run.config.method).learns_from == "prompts"

    def settings() -> Any:
        given = trainer_settings(round_run(run, run.model_name, run.output, 0))
        return given if online else None  # what the others train on is not there yet

    def rows(**options: Any) -> tuple[Dataset, Dataset]:
        from rlaif_sdk.training.data import load_prompts

        return load_prompts(run.config.data, run.folder, arranged=False, **options)

    trained = replace(run, method=run.config.method)
    found = Preflight()
    with found.noting():
        check_settings(trained)
    found = check_parts(found, trained, settings, rows, composers_of(run))
    if run.config.label is not None and not found.problems:
        with found.noting():
            judge = label_job(run, run.model_name, run.output).labeler()
            judge_pair(found, "label", judge, two_answers(rows(open_table=open_rows)[0]))
    return found


@dataclass(frozen=True, slots=True)
class _Loop:
    run: IterateRun
    train: Dataset
    held_out: Dataset
    display: TrainerCallback | None
    report: Callable[[str], None]

    def run_rounds(self, on_round: Callable[[int, Evaluation], None]) -> IterateResult:
        evaluations = [self._evaluated(0)]
        rewards = evaluations[0]["rewards"]
        for name in self.run.config.stop.max_regression:
            if name not in rewards:
                location, known = ("stop", "max_regression", name), f"there are {', '.join(rewards)}"
                raise self.run.document.error("is no reward of the evaluation", location, known)
        on_round(0, evaluations[0])
        while True:
            decision = decide_stop([RoundMetrics.of(each) for each in evaluations], self.run.config.stop)
            best, end, number = decision.best, decision.end, len(evaluations)
            self._link(best)
            if end is None:
                try:
                    self._train(number, {"previous": number - 1, "best": best, "start": 0}[self.run.config.start_from])
                except NothingToLearnError as error:
                    if number == 1:
                        raise
                    end = error.message
            if end is not None:
                return IterateResult(evaluations, best, self.run.model_of(best), end, self.run.output)
            evaluations.append(self._evaluated(number))
            on_round(number, evaluations[-1])

    def _link(self, best: int) -> None:
        """Point ``model`` at the best round's; there is none while the starting model is the best."""
        link = self.run.output / MODEL_LINK
        if best:
            atomic_symlink(link, os.path.relpath(self.run.model_of(best), self.run.output.resolve()))
        else:
            link.unlink(missing_ok=True)

    def _train(self, number: int, start: int) -> None:
        """Train a round, unless that is done; a run that was cut off resumes from its last checkpoint if it has one."""
        folder, policy = self.run.round_folder(number), self.run.model_of(start)
        if (folder / TRAINED_FILE).exists():
            return
        rows = round_rows(self.run, number, start, self.train, self.held_out, self.report)
        for name, part in zip((TRAIN_ROWS, HELD_OUT_ROWS), rows, strict=True):
            write_table(part, folder / name)
        run = round_run(self.run, policy, folder, number)
        result = train(
            run.method,
            run,
            display=self.display,
            report=lambda line: self.report(f"round {number}: {line}"),
            resume=can_resume(run.output),
        )
        done = {"steps": result.steps, "training_seconds": round(result.training_seconds, 1)}
        write_json(folder / TRAINED_FILE, {"from": policy, "rows": len(rows[0]), **done})

    def _evaluated(self, number: int) -> Evaluation:
        """The evaluation of a round, made unless that is done already.

        Running statistics of normalizers are learnt from the starting model's answers, and never change again, so that all
        rounds are measured alike.
        """
        folder, start_folder = self.run.round_folder(number), self.run.round_folder(0)
        file = folder / EVALUATION_FILE
        if not file.exists():
            self.report(f"round {number}: answering {len(self.held_out)} held-out prompts")
            answers, kl_B = self._answers(number, folder / ANSWERS_FILE)
            with self.run.composer("composition" if self.run.config.evaluation is None else "evaluation") as composer:
                scored = _scored(answers, composer, start_folder / STATE_FILE)
            rewards = scored.rewards()
            totals_B = rewards.pop("composed_reward")
            start_B = np.array(read_json(start_folder / EVALUATION_FILE)["totals"], float) if number else totals_B
            columns = scored.composition.rewards
            evaluation = {
                "composed_reward": sample_mean(totals_B).to_dict(),
                "change": paired_change(start_B, totals_B).to_dict(),
                "rewards": {
                    name: {**sample_mean(raw_B).to_dict(), "higher_is_better": columns[name].higher_is_better}
                    for name, raw_B in rewards.items()
                },
                "health": {name: sample_mean(values_B).to_dict() for name, values_B in scored.health().items()},
                "kl": sample_mean(kl_B).to_dict(),
                "totals": scored.composition.to_list(),
            }
            records = zip(answers.prompts, scored.records(), strict=True)
            write_table(({"prompt": prompt, **record} for prompt, record in records), folder / SAMPLES_FILE)
            write_json(file, evaluation)
        found: Evaluation = read_json(file)
        return found

    def _answers(self, number: int, file: Path) -> tuple[Answers, Array]:
        """A round's answers to the held-out prompts, and (B,) log-ratios of its policy to the start, sampled or read."""
        settings = self.run.config.candidates
        if not file.exists():
            logprobs = partial(
                answer_logprobs,
                temperature=settings.temperature,
                batch_size=settings.batch_size,
                template_arguments=settings.chat_template_kwargs,
            )
            kl_B = [0.0] * len(self.held_out)
            with self.run.policy_of(number) as (model, tokenizer):
                sampled = answer_prompts(model, tokenizer, self.held_out, settings.sampling(self.run.config.seed))
                logprobs_B = logprobs(model, tokenizer, sampled) if number else []
            if number:
                with self.run.policy_of(0) as (model, tokenizer):
                    start_logprobs_B = logprobs(model, tokenizer, sampled)
                kl_B = [now - then for now, then in zip(logprobs_B, start_logprobs_B, strict=True)]
            write_json(file, {**sampled.record(), "kl": [value if math.isfinite(value) else None for value in kl_B]})
        kept = read_json(file)
        return Answers.of(self.held_out, kept), np.array(kept["kl"], dtype=np.float64)


def round_run(run: IterateRun, policy: str, folder: Path, number: int) -> Run:
    """The run that trains a round on the rows in the round's folder, from a policy; the number changes its seed.

    Raises:
        ConfigError: The trainer's settings are refused, with their place in the loop's file.
    """
    method, settings = get_method(run.config.method), dict(getattr(run.config, run.config.method))
    online = method.learns_from == "prompts"
    if run.config.data.curriculum:
        unshuffled = {"train_sampling_strategy": "sequential"} if not online else {"shuffle_dataset": False}
        settings = {**unshuffled, **settings}
    # a trainer for policies answers held-out prompts too, which the loop does by itself: one of them is enough
    data = {"train": str((folder / TRAIN_ROWS).resolve()), "held_out": str((folder / HELD_OUT_ROWS).resolve())}
    config = {
        "model": {**run.with_model(policy).config.model.model_dump(), "name": policy},
        "data": data,
        method.name: settings,
        "output": str((folder / TRAINING_FOLDER).resolve()),
        "seed": run.config.seed + number,
    }
    if online:
        config["composition"] = run.document.data["composition"]
    trained: Run = run_of(method.name, replace(run.document, data=config), allow_changed=run.allow_changed)
    return trained


def _scored(answers: Answers, composer: Composer, state_file: Path) -> ScoredAnswers:
    if not state_file.exists():
        # what answers each prompt once has nothing to compare, and says so
        composer.compose(answers.batch(Progress(), group=range(len(answers.prompts)), training=True))
        write_json(state_file, composer.state_dict())
    composer.load_state_dict(read_json(state_file))
    return ScoredAnswers(answers, composer.compose(answers.batch(Progress())))


@dataclass(frozen=True, slots=True)
class RoundMetrics:
    """What the stop rule reads of a round's evaluation.

    Attributes:
        total: The mean composed reward; NaN when no answer was scored.
        rewards: Each reward's mean, higher being better; NaN likewise.
        kl: Divergence from the starting model, in nats an answer.
    """

    total: float
    rewards: Mapping[str, float]
    kl: float

    @classmethod
    def of(cls, evaluation: Evaluation) -> Self:
        """Those of an evaluation of `IterateResult`."""
        signed = {
            name: _mean(reward) * (1 if reward["higher_is_better"] else -1)
            for name, reward in evaluation["rewards"].items()
        }
        return cls(_mean(evaluation["composed_reward"]), signed, _mean(evaluation["kl"]))


def _mean(value: Mapping[str, Any]) -> float:
    return math.nan if value["mean"] is None else float(value["mean"])


@dataclass(frozen=True, slots=True)
class StopDecision:
    """Whether a loop ends, and its best round so far.

    Attributes:
        best: The round of the best policy within the limits; 0 is the starting model.
        stale: How many rounds in a row have brought no improvement.
        end: Why the loop ends, or None.
    """

    best: int
    stale: int
    end: str | None


def decide_stop(rounds: Sequence[RoundMetrics], stop: StopSettings) -> StopDecision:
    """Decide whether a loop ends after some rounds, and which is the best.

    Args:
        rounds: The metrics of the starting model, and of each round since.
        stop: The rule.
    """
    best, stale = 0, 0
    for number, metrics in enumerate(rounds[1:], start=1):
        # a best without a mean is beaten by any that has one
        threshold = -math.inf if math.isnan(rounds[best].total) else rounds[best].total + stop.min_improvement
        improved = metrics.total > threshold and _breach(metrics, rounds[0], stop) is None
        best, stale = (number, 0) if improved else (best, stale + 1)
    return StopDecision(best, stale, _end(rounds, stale, stop))


def _end(rounds: Sequence[RoundMetrics], stale: int, stop: StopSettings) -> str | None:
    last = rounds[-1]
    breach = _breach(last, rounds[0], stop)
    if breach is not None:
        return breach
    if stop.target is not None and last.total >= stop.target:
        return f"the composed reward {last.total:.4g} has reached the target {stop.target:g}"
    if stop.patience is not None and stale >= stop.patience:
        return f"no improvement in {stale} round{'s' * (stale > 1)}"
    if len(rounds) > stop.rounds:
        return f"all {stop.rounds} rounds are done" if stop.rounds > 1 else "the one round is done"
    return None


def _breach(metrics: RoundMetrics, start: RoundMetrics, stop: StopSettings) -> str | None:
    if stop.max_kl is not None and not metrics.kl <= stop.max_kl:
        return f"the divergence of {metrics.kl:.4g} nats an answer exceeds max_kl {stop.max_kl:g}"
    for name, limit in stop.max_regression.items():
        loss = start.rewards[name] - metrics.rewards[name]
        if loss > limit:
            return f"the reward {name!r} is worse by {loss:.4g} than at the start, more than {limit:g}"
    return None
