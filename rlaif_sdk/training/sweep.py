"""Sweeps over weights: each combination trained or chosen from candidates, and which are on the Pareto frontier."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import math
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from rlaif_sdk.composer import Composition, what_if
from rlaif_sdk.composer.check import Check
from rlaif_sdk.config import ConfigModel, Finite, NamedTable
from rlaif_sdk.config.documents import Described, Document, validate
from rlaif_sdk.config.overrides import overridden
from rlaif_sdk.exceptions import DataError, needs_extra
from rlaif_sdk.io.digests import json_digest, rows_digest
from rlaif_sdk.io.files import read_json, without_nan, write_json
from rlaif_sdk.io.jobs import RESUME_ANOTHER, claim, locked
from rlaif_sdk.io.tables import TableSource, read_rows, write_rows, write_table
from rlaif_sdk.statistics.arrays import Array, encode_groups
from rlaif_sdk.statistics.estimates import mean_interval, sample_mean
from rlaif_sdk.statistics.pareto import hypervolume, nondominated
from rlaif_sdk.training.config import ComposedRun
from rlaif_sdk.training.methods import check_settings, get_method, run_of, train, trainer_settings
from rlaif_sdk.training.online import PolicyResult
from rlaif_sdk.training.preflight import Preflight
from rlaif_sdk.training.ranks import refuse_processes
from rlaif_sdk.training.run_folder import can_resume, check_parts, composers_of, resolved_config
from rlaif_sdk.types import RewardBatch

if TYPE_CHECKING:
    from datasets import Dataset


Weights = dict[str, float]


class WeightRange(ConfigModel):
    """Weights to draw at random from."""

    min: Finite
    """The least weight."""
    max: Finite
    """The greatest weight."""

    @model_validator(mode="after")
    def _in_order(self) -> WeightRange:
        if self.min > self.max:
            raise ValueError("'min' is greater than 'max'")
        return self


class SweepConfig(ConfigModel):
    """Everything about a sweep. Paths are relative to the file that they stand in."""

    run: str | dict[str, Any]
    """The config of the run that is varied, or the path of a file with it."""
    method: Literal["ppo", "grpo", "rloo", "best_of"] = "ppo"
    """How each point is made: by training, or by choosing among sampled answers (``best_of``, of a run as for PPO),
    which is quick and shows what training could reach at most with as many tries."""
    weights: dict[str, list[Finite] | WeightRange] = Field(min_length=1)
    """For each reward that is varied, the weights to try, or the range to draw them from. The others keep theirs."""
    search: Literal["grid", "random"] = "grid"
    """``grid`` tries every combination; ``random`` draws `points` of them."""
    points: PositiveInt = 8
    """How many combinations ``random`` draws."""
    search_seed: int = 0
    """Seeds the drawing of weights."""
    seeds: list[NonNegativeInt] = Field(default=[0], min_length=1)
    """Each combination is run once with each."""
    objectives: list[str] | None = None
    """The rewards that are compared, of weight 0 too; null compares those that are varied."""
    reference: dict[str, Finite] | None = None
    """The point that the hypervolume is measured from, in the rewards' own units; null takes the worst of each."""
    candidates: PositiveInt = 8
    """For ``best_of``: answers a prompt to choose from."""
    completions: NamedTable | None = None
    """For ``best_of``: a table of ready answers (``prompt`` and ``completion``, several rows a prompt) in place of
    sampling; no model is loaded then."""
    keep_models: bool = True
    """False removes the trained model of each point once it is measured."""
    output: str = "sweep"
    """The folder of the points and the results."""

    @model_validator(mode="after")
    def _consistent(self) -> SweepConfig:
        ranges = [name for name, values in self.weights.items() if isinstance(values, WeightRange)]
        if self.search == "grid" and ranges:
            raise ValueError(f"a grid needs lists of weights, and {ranges[0]!r} has a range; set search: random")
        empty = [name for name, values in self.weights.items() if not values]
        if empty:
            raise ValueError(f"there are no weights of {empty[0]!r} to try")
        if self.completions is not None and self.method != "best_of":
            raise ValueError("'completions' go with method best_of")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed stands twice")
        return self

    @property
    def trained_by(self) -> str:
        """The method whose config the run has."""
        return "ppo" if self.method == "best_of" else self.method

    def combinations(self) -> list[Weights]:
        """The weights of each point, without repetition; where all are 0 nothing would be rewarded, so none is.

        A longer random search begins with the points of a shorter one.
        """
        if self.search == "grid":
            lists = [values for values in self.weights.values() if isinstance(values, list)]
            drawn = [dict(zip(self.weights, values, strict=True)) for values in itertools.product(*lists)]
        else:
            source = random.Random(self.search_seed)  # noqa: S311 - a search, no secret
            drawn = [{name: _draw(values, source) for name, values in self.weights.items()} for _ in range(self.points)]
        return [dict(items) for items in dict.fromkeys(tuple(weights.items()) for weights in drawn)]


def _draw(values: list[float] | WeightRange, source: random.Random) -> float:
    return source.uniform(values.min, values.max) if isinstance(values, WeightRange) else source.choice(values)


@dataclass(frozen=True, slots=True)
class Sweep(Described):
    """A sweep's config, and the run that it varies.

    Attributes:
        config: The settings.
        base: The run, as its own file has it.
        document: Where the settings come from.
        allow_changed: Whether to resume where the folder has points of another run, of other rows or other code.
    """

    config: SweepConfig
    base: ComposedRun
    document: Document
    allow_changed: bool = dataclasses.field(default=False, kw_only=True)

    @property
    def objectives(self) -> list[str]:
        """The rewards that are compared."""
        return self.config.objectives or list(self.config.weights)

    def run_of(self, weights: Weights, seed: int, output: Path) -> ComposedRun:
        """The run of one point."""
        config = self.base.config.model_copy(update={"seed": seed})
        run = dataclasses.replace(self.base, config=config, weights=weights, allow_changed=self.allow_changed)
        return run.with_output(output)


def load_sweep(source: str | Path | Mapping[str, Any], *, overrides: Sequence[str] = ()) -> Sweep:
    """Read and check a sweep's config and that of its run.

    Args:
        source: A YAML or JSON file, or a mapping, whose paths are relative to the working directory.
        overrides: ``seeds=[0,1,2]`` and the like; ``run.ppo.max_steps=10`` where the run stands in the same file.

    Raises:
        ConfigError: Something is refused, or a reward of `weights`, `objectives` or `reference` is none of the run's.
    """
    document = overridden(source, overrides)
    config = validate(SweepConfig, document)
    sweep = Sweep(config, _base_run(config, document), document)
    rewards = sweep.base.composition_config().rewards
    for key in ("weights", "objectives", "reference"):
        for name in getattr(config, key) or ():
            if name not in rewards:
                known = ", ".join(rewards)
                raise document.error(f"the run has no reward {name!r}", (key,), f"its rewards: {known}")
    missing = [name for name in sweep.objectives if name not in (config.reference or sweep.objectives)]
    if missing:
        raise document.error(f"has no value for the objective {missing[0]!r}", ("reference",))
    for weights in config.combinations():
        run = sweep.run_of(weights, config.seeds[0], sweep.output)
        run.composition_config()  # refuses weights that are all 0
    return sweep


def _base_run(config: SweepConfig, document: Document) -> ComposedRun:
    source: Any = document.folder / config.run if isinstance(config.run, str) else document.at("run")
    run: ComposedRun = run_of(config.trained_by, overridden(source, ()) if isinstance(source, Path) else source)
    return run


RESULT_FILE = "sweep.json"
TABLE_FILE = "points.csv"


@dataclass(frozen=True, slots=True)
class PointResult:
    """One combination of weights.

    Attributes:
        weights: The weights that were varied.
        by_seed: For each reward its mean over the held-out prompts, one a seed, in the reward's own units; NaN where
            no prompt has a score.
    """

    weights: Weights
    by_seed: Mapping[str, Sequence[float]]

    def interval(self, reward: str) -> tuple[float, float]:
        """A reward's mean over the seeds, and the half-width of its 95% interval (Student's t); NaN of one seed."""
        return mean_interval(self.by_seed[reward])

    @property
    def label(self) -> str:
        """The weights in one line."""
        return ", ".join(f"{name}={weight:.4g}" for name, weight in self.weights.items())


@dataclass(frozen=True, slots=True)
class SweepResult:
    """All points of a sweep.

    Attributes:
        objectives: The rewards that are compared, with True where higher is better.
        points: The points in the order of the sweep.
        seeds: The seeds.
        reference: What the hypervolume is measured from, in the rewards' own units; None takes the worst of each.
    """

    objectives: Mapping[str, bool]
    points: Sequence[PointResult]
    seeds: Sequence[int]
    reference: Mapping[str, float] | None = None

    @property
    def frontier(self) -> list[bool]:
        """For each point whether no other is at least as good in every objective and better in one, by the means."""
        on: list[bool] = nondominated(self._oriented()).tolist()
        return on

    def hypervolume(self) -> tuple[float, dict[str, float]]:
        """The volume that the frontier dominates, and the reference that it is measured from, in own units.

        Without a given reference it is the worst mean of each objective: only sweeps over the same points compare.
        """
        oriented_PM = self._oriented()
        signs_M = self._signs()
        if self.reference is not None:
            reference_M = signs_M * np.array([self.reference[name] for name in self.objectives])
        elif np.isnan(oriented_PM).all(axis=0).any():
            return math.nan, {}
        else:
            reference_M = np.nanmin(oriented_PM, axis=0)
        own = dict(zip(self.objectives, (signs_M * reference_M).tolist(), strict=True))
        return hypervolume(oriented_PM, reference_M), own

    def _signs(self) -> Any:
        return np.array([1.0 if higher else -1.0 for higher in self.objectives.values()])

    def _oriented(self) -> Any:
        """(P, M) means, higher being better."""
        means = [[point.interval(name)[0] for name in self.objectives] for point in self.points]
        return np.array(means, dtype=np.float64).reshape(len(self.points), -1) * self._signs()

    def rows(self) -> Iterator[dict[str, Any]]:
        """One JSON-ready mapping a point: weights, means with half-widths, whether it is on the frontier."""
        for point, on in zip(self.points, self.frontier, strict=True):
            rewards = {}
            for name, values in point.by_seed.items():
                mean, half = point.interval(name)
                rewards[name] = {"mean": mean, "ci95": half, "by_seed": list(values)}
            yield {"weights": dict(point.weights), "frontier": on, "rewards": without_nan(rewards)}

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> Self:
        """Of what is in ``sweep.json``."""
        points = [
            PointResult(
                point["weights"],
                {
                    name: [math.nan if mean is None else mean for mean in found["by_seed"]]
                    for name, found in point["rewards"].items()
                },
            )
            for point in written["points"]
        ]
        return cls(written["objectives"], points, written["seeds"], written["hypervolume_reference"] or None)

    def write(self, folder: Path) -> None:
        """Write ``sweep.json`` and ``points.csv``."""
        volume, reference = self.hypervolume()
        write_json(
            folder / RESULT_FILE,
            {
                "objectives": dict(self.objectives),
                "seeds": list(self.seeds),
                "hypervolume": without_nan(volume),
                "hypervolume_reference": reference,
                "points": list(self.rows()),
            },
        )
        write_table(map(_flat, self.rows()), folder / TABLE_FILE)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {f"weight/{name}": weight for name, weight in row["weights"].items()}
    for name, estimate in row["rewards"].items():
        flat |= {name: estimate["mean"], f"{name}/ci95": estimate["ci95"]}
    return {**flat, "frontier": row["frontier"]}


_GROUP = "rlaif_prompt"


@dataclasses.dataclass(frozen=True, slots=True)
class CandidatePool:
    """Scored answers, several a prompt.

    Attributes:
        composition: What the rewards say of them, under the run's own weights.
        group: (B,) the number of each answer's prompt.
    """

    composition: Composition
    group: list[int]

    def chosen(self, sweep: Sweep, weights: Weights, seed: int) -> dict[str, float]:
        """The mean of each reward over the answers that a combination of weights would choose, one a prompt.

        Totals are composed anew from the scores at hand. A prompt of which no answer has a total is left out.
        """
        run = sweep.run_of(weights, seed, sweep.output)
        totals_B = what_if(self.composition, run.composition_document(ledger=False)).new_totals
        rows = list(best_rows(totals_B, self.group))
        return {name: sample_mean(column.raw[rows]).mean for name, column in self.composition.rewards.items()}


def best_rows(totals_B: Array, group: list[int]) -> Iterator[int]:
    """The row with the greatest total of each group that has one; of equals the first."""
    best: dict[int, int] = {}
    for row, label in enumerate(group):
        if not np.isnan(totals_B[row]) and (label not in best or totals_B[row] > totals_B[best[label]]):
            best[label] = row
    yield from best.values()


def candidates(sweep: Sweep, seed: int, report: Any) -> CandidatePool:
    """The answers to choose from, sampled or read, and scored.

    Sampled answers are kept in the sweep's folder, under the digest of what they follow from, and read from there the
    next time.

    Raises:
        RlaifError: As a run's: the model, the prompts, the answers or a reward is refused.
    """
    ready = sweep.config.completions
    batch, group = _answers_of(ready.source(sweep.folder) if ready else _sampled(sweep, seed, report))
    report(f"scoring {len(batch)} answers to {len(set(group))} prompts")
    with sweep.base.composer() as composer:
        return CandidatePool(composer.compose(batch), group)


def _answers_of(file: TableSource | Path) -> tuple[RewardBatch, list[int]]:
    """The answers of a table, several a prompt, and the number of each one's prompt.

    Raises:
        DataError: A row lacks its prompt or completion.
    """
    rows = list(read_rows(file))
    for number, row in enumerate(rows, start=1):
        if row.get("prompt") is None or row.get("completion") is None:
            raise DataError("an answer needs 'prompt' and 'completion'", file=str(file), row=number)
    # answers to one prompt share their group, or the prompt; a group that is null is shared with no other
    labels = (row.get(_GROUP, row["prompt"]) for row in rows)
    group = encode_groups([None if label is None else repr(label) for label in labels]).tolist()
    names = dict.fromkeys(name for row in rows for name in row if name not in {"prompt", "completion", _GROUP})
    batch = RewardBatch(
        prompts=[row["prompt"] for row in rows],
        completions=[row["completion"] for row in rows],
        columns={name: [row.get(name) for row in rows] for name in names},
        group=group,
    )
    return batch, group


def _sampled(sweep: Sweep, seed: int, report: Any) -> Path:
    from rlaif_sdk.training.data import load_prompts

    run = sweep.run_of({}, seed, sweep.output)
    _, held_out = load_prompts(run.config.data, run.folder, seed=run.config.seed)
    config = resolved_config(run)
    origin = json_digest([rows_digest(held_out), config["model"], config["ppo"], sweep.config.candidates])
    file = sweep.output / f"candidates-seed{seed}-{origin}.jsonl"
    if not file.is_file():
        _sample(run, held_out, sweep.config.candidates, file, report)
    return file


def _sample(run: ComposedRun, held_out: Dataset, count: int, file: Path, report: Any) -> None:
    from rlaif_sdk.training.generation import answer_prompts
    from rlaif_sdk.training.models import load_policy
    from rlaif_sdk.training.online import prompts_for_trainer

    settings = trainer_settings(run)
    report(f"loading {run.model_name}")
    model, tokenizer = load_policy(run, encoder_decoder=True)
    model.to(settings.device)
    (asked,) = prompts_for_trainer(run, tokenizer, settings, {"held_out": held_out})
    report(f"sampling {count} answers to each of {len(held_out)} held-out prompts")
    answers = answer_prompts(model, tokenizer, asked, settings, completions=count)
    with write_rows(file) as writer:
        for row, (prompt, completion) in enumerate(zip(answers.prompts, answers.completions, strict=True)):
            known = {name: values[row] for name, values in answers.columns.items()}
            writer.write({**known, "prompt": prompt, "completion": completion, _GROUP: row // count})


MEASURED_FILE = "measured.json"
_MAY_CHANGE = frozenset({"weights", "search", "points", "search_seed", "seeds", "objectives", "reference", "output",
                         "keep_models", "run"})  # fmt: skip
"""Settings that decide which points there are and how they are compared, and not what is measured at one."""


def run_sweep(
    source: str | Path | Mapping[str, Any] | Sweep, *, report: Callable[[str], None] = lambda _: None
) -> SweepResult:
    """Measure every combination of weights with every seed, and compare them.

    Args:
        source: A YAML or JSON file, a mapping, or a loaded sweep. See `SweepConfig`. With its ``allow_changed`` it may
            differ from the one that the folder holds: points that are measured stay as they are.
        report: Called with a line of text at the start of each point and stage.

    Returns:
        All points. The output folder then holds ``sweep.json``, ``points.csv``, and under ``points/`` what each run
        left behind. What is measured already is not measured again.

    Raises:
        ConfigError: The config is refused; or the folder holds a sweep of another run, of other prompts or answers, or
            of rewards of other code.
        DataError: Another process is at work in the folder.
        RlaifError: As the runs.
    """
    refuse_processes()
    sweep = source if isinstance(source, Sweep) else load_sweep(source)
    with locked(sweep.output):
        claim(
            sweep.output,
            {**_settings(sweep), **_inputs(sweep)},
            kind="sweep",
            on_change="note" if sweep.allow_changed else "refuse",
            results=[f"points/*/*/{MEASURED_FILE}"],
            file=sweep.document.file,
            hint=RESUME_ANOTHER,
        )
        return _measure_points(sweep, report)


def check_sweep(sweep: Sweep) -> Check:
    """Check the run that a sweep varies, as `rlaif_sdk.training.run_folder.check` does; nothing is written.

    Of ready answers the first is scored, and no model is looked at.

    Returns:
        What was found; what is wrong is among its problems.

    Raises:
        MissingExtraError: Answers are to be sampled or a policy trained, and the extra ``train`` is not installed.
    """
    run = _read_run(sweep)
    if sweep.config.completions is not None:
        found = Check()
        with found.noting(), run.composer(ledger=False) as composer:
            file = sweep.config.completions.source(sweep.folder)
            batch, _ = _answers_of(file)
            found.data["completions"] = {"rows": len(batch)}
            found.score("composition", composer, batch, f"row 1 of {file}")
        return found
    checked = Preflight()
    with checked.noting():
        check_settings(run)
    return check_parts(
        checked,
        run,
        partial(trainer_settings, run),
        partial(get_method(run.method).load_rows, run),
        composers_of(run),
    )


def _measure_points(sweep: Sweep, report: Callable[[str], None]) -> SweepResult:
    combinations = sweep.config.combinations()
    total = len(combinations) * len(sweep.config.seeds)
    pools: dict[int, CandidatePool] = {}
    measured: dict[str, list[dict[str, Any]]] = {}
    for index, (weights, seed) in enumerate(
        ((weights, seed) for seed in sweep.config.seeds for weights in combinations), start=1
    ):
        folder = sweep.output / "points" / point_name(weights) / f"seed-{seed}"
        file = folder / MEASURED_FILE
        report(f"point {index} of {total}: {point_name(weights)}, seed {seed}{' (done)' if file.is_file() else ''}")
        if not file.is_file():
            write_json(file, _measure(sweep, weights, seed, folder, pools, report))
        measured.setdefault(point_name(weights), []).append(read_json(file))
    result = _compared(sweep, combinations, measured)
    result.write(sweep.output)
    return result


def point_name(weights: Weights) -> str:
    """The folder of a combination of weights: ``harmless=0.5,helpful=1``, exact to the last digit."""
    return ",".join(f"{name}={weight!r}".removesuffix(".0") for name, weight in sorted(weights.items()))


def _settings(sweep: Sweep) -> dict[str, Any]:
    own = sweep.config.model_dump(mode="json", exclude=set(_MAY_CHANGE))
    run = {**resolved_config(_read_run(sweep)), "output": "", "seed": 0}
    if sweep.config.method == "best_of":
        del run["data"]  # what is read of it is in the inputs
    return {"sweep": own, "run": run}


def _inputs(sweep: Sweep) -> dict[str, Any]:
    """Digests of what stands outside the config: the rewards' code, and the rows or the ready answers."""
    code = _read_run(sweep).code()
    if (ready := sweep.config.completions) is not None:
        return {"code": code, "completions": rows_digest(read_rows(ready.source(sweep.folder)))}
    with needs_extra("train"):
        from rlaif_sdk.training.data import load_prompts
    train, held_out = load_prompts(sweep.base.config.data, sweep.base.folder, arranged=False)
    answered = {"code": code, "held-out prompts": rows_digest(held_out)}
    return answered if sweep.config.method == "best_of" else {**answered, "training prompts": rows_digest(train)}


def _read_run(sweep: Sweep) -> ComposedRun:
    """The sweep's run, without what its method does not read."""
    if sweep.config.method != "best_of":
        return sweep.base
    return replace(sweep.base, config=sweep.base.config.model_copy(update={"evaluation": None}))


def _measure(
    sweep: Sweep,
    weights: Weights,
    seed: int,
    folder: Path,
    pools: dict[int, CandidatePool],
    report: Callable[[str], None],
) -> dict[str, Any]:
    """The mean of every reward at one point with one seed, JSON-ready, and which way each is better."""
    if sweep.config.method == "best_of":
        if seed not in pools:
            pools[seed] = candidates(sweep, seed, report)
        means, composition = pools[seed].chosen(sweep, weights, seed), pools[seed].composition
    else:
        run = sweep.run_of(weights, seed, folder)
        result: PolicyResult = train(run.method, run, report=report, resume=can_resume(run.output))
        composition = result.after.composition
        means = {name: sample_mean(column.raw).mean for name, column in composition.rewards.items()}
        if not sweep.config.keep_models:
            shutil.rmtree(result.model_folder)
        del result
        gc.collect()
    return {
        "weights": weights,
        "seed": seed,
        "means": without_nan(means),
        "higher_is_better": {name: column.higher_is_better for name, column in composition.rewards.items()},
    }


def _compared(
    sweep: Sweep, combinations: Sequence[Weights], measured: Mapping[str, Sequence[Mapping[str, Any]]]
) -> SweepResult:
    first = next(iter(measured.values()))[0]
    points = []
    for weights in combinations:
        means = [entry["means"] for entry in measured[point_name(weights)]]
        by_seed = {name: [math.nan if one[name] is None else one[name] for one in means] for name in first["means"]}
        points.append(PointResult(weights, by_seed))
    objectives = {name: first["higher_is_better"][name] for name in sweep.objectives}
    return SweepResult(objectives, points, sweep.config.seeds, sweep.config.reference)
