"""The closed loop itself: round after round, each kept as it is done, until the stop rule ends it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import MissingExtraError, TrainingError
from rlaif_sdk.json_files import write_json
from rlaif_sdk.training.fingerprints import rows_digest
from rlaif_sdk.training.iterate.config import OFFLINE, IterateRun, load_iterate_run
from rlaif_sdk.training.iterate.stopping import Standing, standing
from rlaif_sdk.training.iterate.store import Shards, check_same_job, locked, read_json
from rlaif_sdk.types import Progress

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerCallback

    from rlaif_sdk.training.iterate.policy import Policy


class NothingToLearnError(TrainingError):
    """A round's candidates make too few rows to train on; after the first round that ends the loop."""


CANDIDATES_FILE = "candidates.json"
MODEL_LINK = "model"
Evaluation = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class IterateResult:
    """What came of a loop.

    Attributes:
        evaluations: The held-out evaluation of the starting model, and of each round since; see `evaluate_round`.
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
    kept when it is done, and a loop that is resumed does what is missing alone.

    Args:
        source: A YAML or JSON file, a mapping, or a loaded run. See `IterateRunConfig`. With its ``allow_changed`` it
            may differ from the loop that is resumed.
        display: Shows training's progress in place of the trainer's own printing.
        report: Called with a line of text at the start of each stage.
        on_round: Called with each round's number and evaluation, those that were done before included.
        resume: Go on with the loop in the output folder; there may be none yet.

    Returns:
        What came of it. The output folder then holds a folder for each round, and ``model``, a link to the best one's.

    Raises:
        ConfigError: The config is refused; or it, the prompts or the rewards' code differ from those of the loop which
            is to be resumed.
        DataError: A prompt is refused.
        RewardError: A reward failed whose policy is to raise.
        TrainingError: Another process is at work on the loop, or the first round has nothing to learn from.
        MissingExtraError: The extra ``train`` is not installed.
    """
    run = source if isinstance(source, IterateRun) else load_iterate_run(source)
    try:
        from rlaif_sdk.training.data import load_prompts
        from rlaif_sdk.training.iterate.training import check_settings

        check_settings(run)
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="train") from error
    data = run.config.data.model_copy(update={"curriculum": None})  # goes by each round's own measure
    train, held_out = load_prompts(data, run.folder)
    in_files = [key for key in run.composition_keys if isinstance(getattr(run.config, key), str)]
    settings = {
        **run.config.model_dump(mode="json", exclude={"output"}),
        **{key: run.composition_document(key).data for key in in_files},
        "code": run.code(),
        "training prompts": rows_digest(train),
        "held-out prompts": rows_digest(held_out),
    }
    with locked(run.output):
        check_same_job(run.output, settings, run.document, resume=resume, allow_changed=run.allow_changed)
        return _Loop(run, train, held_out, display, report).run(on_round)


@dataclass(frozen=True, slots=True)
class _Loop:
    run_config: IterateRun
    train: Dataset
    held_out: Dataset
    display: TrainerCallback | None
    report: Callable[[str], None]

    def run(self, on_round: Callable[[int, Evaluation], None]) -> IterateResult:
        from rlaif_sdk.training.iterate.evaluation import figures

        evaluations = [self._evaluate(0)]
        self._check_names(evaluations[0])
        on_round(0, evaluations[0])
        while True:
            stands = standing([figures(evaluation) for evaluation in evaluations], self.run_config.config.stop)
            self._link(stands.best)
            if stands.end is not None:
                return self._result(evaluations, stands.best, stands.end)
            number = len(evaluations)
            try:
                self._train(number, self._starting_round(number, stands))
            except NothingToLearnError as error:
                if number == 1:
                    raise
                return self._result(evaluations, stands.best, error.message)
            evaluations.append(self._evaluate(number))
            on_round(number, evaluations[-1])

    def _result(self, evaluations: Sequence[Evaluation], best: int, end: str) -> IterateResult:
        return IterateResult(evaluations, best, self._model(best), end, self.run_config.output)

    def _train(self, number: int, start: int) -> None:
        from rlaif_sdk.training.iterate.training import TRAINED_FILE, train_round

        folder = self._folder(number)
        if (folder / TRAINED_FILE).exists():
            return
        train_round(
            self.run_config,
            self._model(start),
            folder,
            number,
            self._lessons(number, start),
            display=self.display,
            report=lambda line: self.report(f"round {number}: {line}"),
        )

    def _lessons(self, number: int, start: int) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
        from rlaif_sdk.training.iterate import lessons
        from rlaif_sdk.training.iterate.candidates import make_candidates, round_prompts

        config, folder, seed = self.run_config.config, self._folder(number), self.run_config.config.seed + number
        prompts = round_prompts(self.train, number, config.candidates.prompts, seed=config.seed)
        if not self.run_config.needs_candidates:
            return [*prompts], [self.held_out[0]]
        self.report(f"round {number}: {config.candidates.completions} completions of each of {len(prompts)} prompts")
        before = self._folder(number - 1) / CANDIDATES_FILE
        # what is known of one judge's scale says nothing of another's
        known = before.exists() and not self.run_config.judge_moves
        candidates, state = make_candidates(
            prompts,
            config.candidates,
            policy=partial(self._policy, start),
            composer=self.run_config.with_model(self._model(start)).composer,
            generated=Shards(folder / "completions"),
            scored=Shards(folder / "scores"),
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
            self._need(rows, 1, number)
            return rows, [self.held_out[0]]
        found: Sequence[Mapping[str, Any]] = (
            lessons.preference_rows(candidates, order, config.pairs)
            if config.method == "dpo"
            else lessons.best_rows(candidates, order, config.best)
        )
        self._need(found, 2, number)
        if config.label is not None:
            from rlaif_sdk.training.iterate.labelling import labelled_rows

            self.report(f"round {number}: labelling {len(found)} pairs")
            found = labelled_rows(self.run_config, self._model(start), folder, found)
            self._need(found, 2, number)
        return lessons.split_rows(found)

    def _need(self, rows: Sequence[Any], least: int, number: int) -> None:
        if len(rows) < least:
            kind = {"dpo": "pairs", "sft": "best completions"}.get(self.run_config.config.method, "prompts")
            raise NothingToLearnError(
                f"round {number} has {len(rows)} {kind} to learn from, and needs {least}: "
                f"see the scores in {self._folder(number)}",
                hint=f"take more candidates.prompts, or widen the limits under {_LIMITS[kind]}",
            )

    def _evaluate(self, number: int) -> Evaluation:
        from rlaif_sdk.training.iterate.evaluation import EVALUATION_FILE, evaluate_round

        folder, config = self._folder(number), self.run_config.config
        if not (folder / EVALUATION_FILE).exists():
            self.report(f"round {number}: answering {len(self.held_out)} held-out prompts")
        key = "composition" if config.evaluation is None else "evaluation"
        return evaluate_round(
            folder,
            self._folder(0),
            self.held_out,
            config.candidates,
            policy=partial(self._policy, number),
            start=partial(self._policy, 0),
            composer=partial(self.run_config.composer, key),
            seed=config.seed,
        )

    def _check_names(self, evaluation: Evaluation) -> None:
        for name in self.run_config.config.stop.max_regression:
            if name not in evaluation["rewards"]:
                raise self.run_config.document.error(
                    "is no reward of the evaluation",
                    ("stop", "max_regression", name),
                    f"there are {', '.join(evaluation['rewards'])}",
                )

    def _starting_round(self, number: int, stands: Standing) -> int:
        return {"previous": number - 1, "best": stands.best, "start": 0}[self.run_config.config.start_from]

    def _folder(self, number: int) -> Path:
        return self.run_config.output / f"round-{number:03}"

    def _model(self, number: int) -> str:
        return str((self._folder(number) / "training" / "model").resolve()) if number else self.run_config.model_name

    def _policy(self, number: int) -> Policy:
        from rlaif_sdk.training.iterate.policy import held_policy

        return held_policy(self.run_config.with_model(self._model(number)))

    def _link(self, best: int) -> None:
        """Point ``model`` at the best round's; there is none while the starting model is the best."""
        link = self.run_config.output / MODEL_LINK
        if best == 0:
            link.unlink(missing_ok=True)
            return
        unfinished = link.with_name(".model.partial")
        unfinished.unlink(missing_ok=True)
        unfinished.symlink_to(os.path.relpath(self._model(best), self.run_config.output.resolve()))
        unfinished.replace(link)


_LIMITS = {
    "pairs": "pairs or data.curriculum",
    "best completions": "best or data.curriculum",
    "prompts": "data.curriculum",
}


def _listed(values_N: Any) -> list[float | None]:
    return [None if value != value else value for value in values_N.tolist()]  # noqa: PLR0124 - NaN differs from itself
