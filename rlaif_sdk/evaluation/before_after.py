"""Rewards of the same prompts' completions before and after something: toxicity, harmless rate, anything composed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rlaif_sdk.composer import Composer
from rlaif_sdk.composer.tables import TableLayout, score_records
from rlaif_sdk.exceptions import ConfigError, DataError
from rlaif_sdk.io.jsonl import plain
from rlaif_sdk.io.tables import TableName, read_rows
from rlaif_sdk.statistics.arrays import Array, json_number
from rlaif_sdk.statistics.estimates import Estimate, mean_interval, wilson


@dataclass(frozen=True, slots=True)
class Measure:
    """One reward of one or two tables.

    Attributes:
        before: Mean of the raw scores with its interval by Student's t.
        after: Of the second table; None without one.
        change: Mean of after minus before over the prompts scored in both, with the interval of the differences.
        spreads: Standard deviation of the scores before, and after where there is an after.
        threshold: From which score on a completion passes; None where no threshold was given.
        passed: Share of the completions that pass before, and after: the harmless rate of a harmlessness reward.
        passed_change: The change of that share, paired as ``change``.
        unscored: Rows without a score before, and after.
    """

    before: Estimate
    after: Estimate | None
    change: Estimate | None
    spreads: tuple[float, ...]
    threshold: float | None
    passed: tuple[Estimate, ...]
    passed_change: Estimate | None
    unscored: tuple[int, ...]

    def record(self) -> dict[str, Any]:
        """The estimates as a JSON-ready mapping."""
        estimates = {"before": self.before, "after": self.after, "change": self.change}
        return {
            **{name: estimate.record() if estimate else None for name, estimate in estimates.items()},
            "standard_deviations": [*map(json_number, self.spreads)],
            "threshold": self.threshold,
            "passed": [share.record() for share in self.passed],
            "passed_change": self.passed_change.record() if self.passed_change else None,
            "unscored": list(self.unscored),
        }


def evaluate_answers(
    files: Sequence[TableName],
    composer: Composer,
    *,
    layout: TableLayout | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> dict[str, Measure]:
    """Score one or two tables of completions and compare each reward's raw scores.

    Args:
        files: One table, or two with the same prompts in the same order: before and after.
        composer: What scores; its running statistics are read and not updated.
        layout: Which columns are what.
        thresholds: For rewards by name, the score from which on (or down to, where lower is better) a completion
            passes.

    Raises:
        ConfigError: A threshold is given for a reward that is not there.
        DataError: A row is refused, or the tables' prompts differ.
    """
    thresholds = thresholds or {}
    if unknown := thresholds.keys() - composer.components.keys():
        names = ", ".join(composer.components)
        raise ConfigError(f"there is no reward {min(unknown)!r} to give a threshold to", hint=f"there are {names}")
    layout = layout or TableLayout()
    _check_prompts(files, layout.prompt)
    tables = [_scores(path, composer, layout) for path in files]
    measures = {}
    for name, component in composer.components.items():
        sign = 1.0 if component.reward.higher_is_better else -1.0
        measures[name] = _measure([table[name] for table in tables], thresholds.get(name), sign)
    return measures


def _scores(path: TableName, composer: Composer, layout: TableLayout) -> dict[str, Array]:
    raw: dict[str, list[Array]] = {name: [] for name in composer.components}
    for _, composition in score_records(composer.compose, read_rows(path), layout, training=False, file=str(path)):
        for name, column in composition.rewards.items():
            raw[name].append(column.raw)
    return {name: np.concatenate(parts) for name, parts in raw.items()}


def _check_prompts(files: Sequence[TableName], prompt: str) -> None:
    """Paired rows are about the same prompts: else a change would be one of the prompts."""
    found = [
        [json.dumps(record.get(prompt), sort_keys=True, default=plain) for record in read_rows(path)] for path in files
    ]
    for path, prompts in zip(files, found, strict=True):
        if not prompts:
            raise DataError("has no rows", file=str(path))
        if len(prompts) != len(found[0]):
            raise DataError(f"has {len(prompts)} rows where {files[0]} has {len(found[0])}", file=str(path))
        differing = (
            row for row, (own, other) in enumerate(zip(prompts, found[0], strict=True), start=1) if own != other
        )
        if row := next(differing, 0):
            raise DataError(f"has another prompt than {files[0]} in the same row", file=str(path), row=row)


def _measure(tables: Sequence[Array], threshold: float | None, sign: float) -> Measure:
    scored = [scores_N[~np.isnan(scores_N)] for scores_N in tables]
    passed = (
        [np.where(np.isnan(scores_N), np.nan, sign * scores_N >= sign * threshold) for scores_N in tables]
        if threshold is not None
        else []
    )
    paired = len(tables) == 2
    return Measure(
        before=_mean(tables[0]),
        after=_mean(tables[1]) if paired else None,
        change=_mean(tables[1] - tables[0]) if paired else None,
        spreads=tuple(float(own.std(ddof=1)) if len(own) > 1 else math.nan for own in scored),
        threshold=threshold,
        passed=tuple(wilson(float(np.nansum(own)), int((~np.isnan(own)).sum())) for own in passed),
        passed_change=_within_one(_mean(passed[1] - passed[0])) if paired and passed else None,
        unscored=tuple(int(np.isnan(scores_N).sum()) for scores_N in tables),
    )


def _within_one(change: Estimate) -> Estimate:
    """The change of a share with its interval cut to what a share can change by; few rows reach beyond."""
    known = math.isfinite(change.low)
    return replace(change, low=max(-1.0, change.low), high=min(1.0, change.high)) if known else change


def _mean(values_N: Array) -> Estimate:
    mean, half = mean_interval(values_N.tolist())
    return Estimate(mean, mean - half, mean + half, int((~np.isnan(values_N)).sum()))
