"""Compositions out of a ledger's record, without scoring anything again."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rlaif_sdk.composer import Composition, RewardColumn
from rlaif_sdk.composer.aggregators import WeightedSum
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.scoring.checks import CheckedScores
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.types import Score

if TYPE_CHECKING:
    from rlaif_sdk.composer.build import ConfigSource
    from rlaif_sdk.composer.combiner import Combiner
    from rlaif_sdk.composer.ledger import Ledger, RecordedBatch, RecordedRun
    from rlaif_sdk.composer.ledger.record import RecordedScores

_NEAR = 1e-6


def recorded_compositions(
    ledger: Ledger, run: RecordedRun, config: ConfigSource | None = None
) -> Iterator[Composition]:
    """What was composed in a recorded run, batch by batch.

    What each reward added to a total is not recorded. With the run's config it is computed anew, from the recorded
    scores. Without, it is known where the totals are what a weighted sum of the scores gives; elsewhere it is NaN.

    Args:
        ledger: The record.
        run: Which run.
        config: The composition that the run had.

    Raises:
        ConfigError: The config is refused, or has other rewards.
        LedgerError: The ledger cannot be read.
    """
    combiner = None if config is None else _combiner(run, config)
    differing = 0
    for recorded in ledger.batches(run.number):
        composition = _as_recorded(recorded, run) if combiner is None else _replayed(recorded, combiner)
        differing += not np.allclose(composition.totals, recorded.totals, rtol=_NEAR, atol=_NEAR, equal_nan=True)
        yield composition
    if differing:
        warnings.warn(
            f"the config gives other totals than were recorded, in {differing} batches: it is not the run's, or the run "
            "was resumed or shared its statistics with other ranks",
            stacklevel=2,
        )


def _combiner(run: RecordedRun, config: ConfigSource) -> Combiner:
    from rlaif_sdk.composer.build import build_combiner
    from rlaif_sdk.composer.whatif import ReplayedReward

    combiner, _ = build_combiner(config, {name: ReplayedReward(reward) for name, reward in run.rewards.items()})
    if left_out := run.rewards.keys() - combiner.components.keys():
        raise ConfigError(
            f"the config has no reward {', '.join(sorted(left_out))}, and the run has", hint="give the run's config"
        )
    return combiner


def _replayed(recorded: RecordedBatch, combiner: Combiner) -> Composition:
    answers = {name: _with_reasons(answer) for name, answer in recorded.answers.items()}
    return combiner.combine(recorded.batch, answers, dict.fromkeys(answers, 0.0))


def _with_reasons(answer: RecordedScores) -> CheckedScores:
    values = [None if np.isnan(value) else float(value) for value in answer.raw]
    entries = [Score(value, reason=answer.reasons.get(row)) for row, value in enumerate(values)]
    return replace(answer.answer, entries=entries)


def _as_recorded(recorded: RecordedBatch, run: RecordedRun) -> Composition:
    """A composition of the recorded numbers only."""
    weights, totals_B = recorded.in_force["weights"], recorded.totals
    parts = _weighted_parts(recorded, run)
    answers = {name: _with_reasons(recorded.answers[name]) for name in run.rewards}
    nowhere_B = np.zeros(len(totals_B), dtype=bool)
    columns = {
        name: RewardColumn(
            name=name,
            weight=weights[name],
            raw=answer.raw,
            normalized=np.full_like(answer.raw, np.nan),
            weighted=parts[name],
            failures=answer.failures,
            masked=nowhere_B,
            defaulted=nowhere_B,
            seconds=0.0,
            entries=answer.entries,
            fallback_reasons=answer.fallback_reasons,
            declared_range=run.rewards[name].range,
            higher_is_better=run.rewards[name].higher_is_better,
        )
        for name, answer in answers.items()
    }
    return Composition(recorded.batch, totals_B, columns, (), totals_B, nowhere_B)


def _weighted_parts(recorded: RecordedBatch, run: RecordedRun) -> Mapping[str, Array]:
    """What each reward adds, where a plain weighted sum gives the recorded total; NaN on other rows."""
    weights = recorded.in_force["weights"]
    oriented_RB = np.stack(
        [answer.raw if run.rewards[name].higher_is_better else -answer.raw for name, answer in recorded.answers.items()]
    )
    weights_R = np.array([weights[name] for name in recorded.answers])
    totals_B, parts_RB = WeightedSum().aggregate(oriented_RB, weights_R)
    known_B = np.isclose(totals_B, recorded.totals, rtol=_NEAR, atol=_NEAR)
    return dict(zip(recorded.answers, np.where(known_B, parts_RB, np.nan), strict=True))
