"""The closed loop itself: round after round, each kept as it is done, until the stop rule ends it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import MissingExtraError
from rlaif_sdk.io.digests import rows_digest
from rlaif_sdk.io.jobs import RESUME_ANOTHER, claim, locked
from rlaif_sdk.training.iterate.config import IterateRun, Rounds, load_iterate_run
from rlaif_sdk.training.iterate.stopping import StopDecision, decide_stop
from rlaif_sdk.training.iterate.training_data import NothingToLearnError, round_rows

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerCallback


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
        claim(
            run.output,
            settings,
            kind="loop",
            results=["round-*"],
            resume=resume,
            on_change="note" if run.allow_changed else "refuse",
            may_change=("stop",),
            file=run.document.file,
            hint=f"{RESUME_ANOTHER}; what stands under 'stop' may always change",
        )
        return _Loop(Rounds(run), train, held_out, display, report).run(on_round)


@dataclass(frozen=True, slots=True)
class _Loop:
    rounds: Rounds
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
            decision = decide_stop([figures(evaluation) for evaluation in evaluations], self.rounds.run.config.stop)
            self.rounds.link(decision.best)
            if decision.end is not None:
                return self._result(evaluations, decision.best, decision.end)
            number = len(evaluations)
            try:
                self._train(number, self._starting_round(number, decision))
            except NothingToLearnError as error:
                if number == 1:
                    raise
                return self._result(evaluations, decision.best, error.message)
            evaluations.append(self._evaluate(number))
            on_round(number, evaluations[-1])

    def _result(self, evaluations: Sequence[Evaluation], best: int, end: str) -> IterateResult:
        return IterateResult(evaluations, best, self.rounds.model(best), end, self.rounds.run.output)

    def _train(self, number: int, start: int) -> None:
        from rlaif_sdk.training.iterate.training import TRAINED_FILE, train_round

        folder = self.rounds.folder(number)
        if (folder / TRAINED_FILE).exists():
            return
        train_round(
            self.rounds.run,
            self.rounds.model(start),
            folder,
            number,
            round_rows(self.rounds, number, start, self.train, self.held_out, self.report),
            display=self.display,
            report=lambda line: self.report(f"round {number}: {line}"),
        )

    def _evaluate(self, number: int) -> Evaluation:
        from rlaif_sdk.training.iterate.evaluation import EVALUATION_FILE, evaluate_round

        folder, config = self.rounds.folder(number), self.rounds.run.config
        if not (folder / EVALUATION_FILE).exists():
            self.report(f"round {number}: answering {len(self.held_out)} held-out prompts")
        key = "composition" if config.evaluation is None else "evaluation"
        return evaluate_round(
            folder,
            self.rounds.folder(0),
            self.held_out,
            config.candidates,
            policy=partial(self.rounds.policy, number),
            start=partial(self.rounds.policy, 0),
            composer=partial(self.rounds.run.composer, key),
            seed=config.seed,
        )

    def _check_names(self, evaluation: Evaluation) -> None:
        for name in self.rounds.run.config.stop.max_regression:
            if name not in evaluation["rewards"]:
                raise self.rounds.run.document.error(
                    "is no reward of the evaluation",
                    ("stop", "max_regression", name),
                    f"there are {', '.join(evaluation['rewards'])}",
                )

    def _starting_round(self, number: int, decision: StopDecision) -> int:
        return {"previous": number - 1, "best": decision.best, "start": 0}[self.rounds.run.config.start_from]
