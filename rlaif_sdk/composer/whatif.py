"""What would have been: recorded scores combined once more under another config, and what changes."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from rlaif_sdk.composer.advantages import group_advantages
from rlaif_sdk.composer.build import ConfigSource, build_combiner
from rlaif_sdk.composer.combiner import Combiner
from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.composer.conditions import ask
from rlaif_sdk.composer.ledger import Ledger, RecordedBatch, RecordedReward
from rlaif_sdk.composer.ledger.record import recorded
from rlaif_sdk.composer.stages import columns_looked_at, in_order
from rlaif_sdk.config import CompositionConfig
from rlaif_sdk.conversations import USER, shown
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.plugins import Registry
from rlaif_sdk.rewards import Reward, Scores
from rlaif_sdk.scoring.checks import CheckedScores
from rlaif_sdk.statistics.arrays import Array, Labels, Mask, encode_groups
from rlaif_sdk.statistics.correlation import rank_correlation
from rlaif_sdk.types import Progress, RewardBatch

ZERO = 1e-9
"""An advantage nearer to 0 than this is 0: rounding left it."""
EXCERPT = 160
"""Characters of a text that are shown."""


@dataclass(frozen=True, slots=True, eq=False)
class WhatIf:
    """What N recorded rows got, and what they would have got.

    Attributes:
        step: (N,) the optimiser step of each row.
        totals: (N,) the totals that were given out; NaN where the row was unscored.
        new_totals: (N,) the totals under the other config; NaN where the row would be unscored, or a score is missing.
        advantages: (N,) GRPO's advantages of ``totals``; NaN where the row was unscored.
        new_advantages: (N,) those of ``new_totals``.
        unknown: (N,) True where no advantage can be given: the other config asks a reward about the row, or about another
            of its group, that it was not asked about when the row was recorded.
        unrecorded: On how many rows each reward's score is missing for that, by name.
        prompts: N prompts.
        completions: N completions.
    """

    step: Labels
    totals: Array
    new_totals: Array
    advantages: Array
    new_advantages: Array
    unknown: Mask
    unrecorded: Mapping[str, int]
    prompts: tuple[str, ...]
    completions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.totals)

    @property
    def flipped(self) -> Mask:
        """(N,) True where an advantage turns from positive to negative or back: what was encouraged is discouraged."""
        flipped_N: Mask = _sign(self.advantages) * _sign(self.new_advantages) < 0
        return flipped_N

    def summary(self) -> dict[str, float | int]:
        """The whole in numbers.

        ``rows``; ``compared``, those with an advantage before and after; ``flipped`` and ``flipped_share`` of these;
        ``silenced`` and ``awakened``, whose advantage becomes 0 or was; ``lost`` and ``gained``, which become unscored
        or were; ``unknown``, of which nothing can be said; ``rank_correlation`` of the totals (Spearman).
        """
        return self._numbers(np.ones(len(self), dtype=bool))

    def steps(self) -> list[dict[str, float | int]]:
        """The numbers of `summary` for each optimiser step, with ``step``."""
        return [{"step": int(step), **self._numbers(self.step == step)} for step in np.unique(self.step)]

    def _numbers(self, of_N: Mask) -> dict[str, float | int]:
        before, after = _sign(self.advantages[of_N]), _sign(self.new_advantages[of_N])
        was, will = ~np.isnan(self.advantages[of_N]), ~np.isnan(self.new_advantages[of_N])
        unknown = self.unknown[of_N]
        compared = int((was & will).sum())
        flipped = int((before * after < 0).sum())
        return {
            "rows": int(of_N.sum()),
            "compared": compared,
            "flipped": flipped,
            "flipped_share": flipped / compared if compared else 0.0,
            "silenced": int(((before != 0) & (after == 0) & was & will).sum()),
            "awakened": int(((before == 0) & (after != 0) & was & will).sum()),
            "lost": int((was & ~will & ~unknown).sum()),
            "gained": int((will & ~was).sum()),
            "unknown": int(unknown.sum()),
            "rank_correlation": rank_correlation(self.totals[of_N], self.new_totals[of_N]),
        }

    def most_changed(self, count: int = 10) -> list[dict[str, Any]]:
        """The rows whose advantage changes most, JSON-ready, the greatest change first.

        ``row`` counts the rows from 1, as ``rlaif explain RUN --row`` does where one run was replayed.
        """
        change_N = np.nan_to_num(np.abs(self.new_advantages - self.advantages), nan=-1.0)
        rows = np.argsort(-change_N, kind="stable")[:count]
        return [
            {
                "step": int(self.step[row]),
                "row": int(row) + 1,
                "advantage": float(self.advantages[row]),
                "new_advantage": float(self.new_advantages[row]),
                "total": float(self.totals[row]),
                "new_total": float(self.new_totals[row]),
                "flipped": bool(self.flipped[row]),
                "prompt": excerpt(self.prompts[row]),
                "completion": excerpt(self.completions[row]),
            }
            for row in rows
            if change_N[row] > ZERO
        ]


def what_if(
    source: str | Path | Ledger | Composition,
    config: ConfigSource,
    *,
    runs: Iterable[int] | None = None,
    registry: Registry | None = None,
) -> WhatIf:
    """Combine recorded scores under another config, and compare totals and advantages with those of the record.

    Batches are replayed in the order in which they were composed, each run from the start, so that statistics,
    multipliers and schedules learn, and alarms act, as they would have. No reward is made or asked. A reward that the config leaves out
    has no weight; parameters of rewards play no part. What an ``ask`` imputed stands where the config has
    an ``ask`` there too; where it has none, the score is missing. Conditions decide anew, from the recorded scores and columns, which
    rows a reward is asked about; where it has no recorded score for one, the new total is unknown, and a warning says so.

    Args:
        source: A ledger, its file, or the folder of a run; or one composition.
        config: The other composition.
        runs: Numbers of the runs to replay, each alone; the last one with those that it resumed if None.
        registry: The normalizers and aggregators to choose from; the installed ones if None.

    Raises:
        LedgerError: There is no ledger or no such run, or it cannot be read.
        ConfigError: The config is refused, or names a reward, or in a condition a column, that is not in the record.
        RewardError: A recorded failure meets the policy ``raise``.
    """
    with ExitStack() as stack:
        if isinstance(source, Composition):
            replays = [_replay([recorded(source)], _rewards_of(source), config, registry)]
        else:
            ledger = source if isinstance(source, Ledger) else stack.enter_context(Ledger.find(source))
            chosen = [*map(ledger.run, [None] if runs is None else runs)]
            replays = [_replay(ledger.batches(run), run.rewards, config, registry) for run in chosen]
        return _compared(chain.from_iterable(replays))


def _rewards_of(composition: Composition) -> dict[str, RecordedReward]:
    return {
        name: RecordedReward("", "", "", column.declared_range, column.higher_is_better, column.ends)
        for name, column in composition.rewards.items()
    }


def _replay(
    batches: Iterable[RecordedBatch],
    rewards: Mapping[str, RecordedReward],
    config: ConfigSource,
    registry: Registry | None,
) -> Iterator[tuple[RecordedBatch, Array, Mapping[str, Sequence[int]]]]:
    """Each batch with its (B,) totals under the other config, and the rows on which a reward's score is missing."""
    replayed = {name: ReplayedReward(reward) for name, reward in rewards.items()}
    combiner, other = build_combiner(config, replayed, registry=registry)
    _warn_of_differences(rewards, other)
    for entry in batches:
        composition, unrecorded = recombined(entry, combiner)
        yield entry, composition.totals, unrecorded


def recombined(entry: RecordedBatch, combiner: Combiner) -> tuple[Composition, dict[str, list[int]]]:
    """A recorded batch, composed anew from its recorded scores.

    Args:
        entry: The batch.
        combiner: The arithmetic; the conditions of its rewards decide which rows each is asked about.

    Returns:
        The composition, in which a row is unscored that a reward is asked about without a recorded score; and these rows
        by reward.

    Raises:
        ConfigError: A condition looks at a column that is not recorded.
        RewardError: A recorded failure meets the policy ``raise``.
    """
    if combiner.alarm is not None:  # a table's rows, which have no progress, are no training
        combiner.alarm.watching = entry.batch.progress != Progress()
    said: dict[str, CheckedScores] = {}
    unrecorded: dict[str, list[int]] = {}
    for name in in_order(combiner.components):
        said[name], unrecorded[name] = _asked_anew(name, combiner.components[name], entry, said)
    unknown = {row for rows in unrecorded.values() for row in rows}
    if unknown:  # the policies for failures are not meant for scores that a record lacks
        for name, one in said.items():
            said[name] = replace(one, failures={row: why for row, why in one.failures.items() if row not in unknown})
    composition = combiner.combine(entry.batch, said, dict.fromkeys(said, 0.0))
    composition.totals[list(unknown)] = np.nan
    return composition, unrecorded


def _asked_anew(
    name: str, part: Component, entry: RecordedBatch, said: Mapping[str, CheckedScores]
) -> tuple[CheckedScores, list[int]]:
    """What a reward said of the rows that it is asked about now, and those of them that it was not asked about then."""
    then = replace(entry.answers[name].answer, entries=entry.answers[name].entries)
    rows: Sequence[int] = range(len(then.raw))
    not_asked = None
    failures = dict(then.failures)
    if part.when:
        for column in columns_looked_at({name: part}):
            if column not in entry.batch.columns:
                known = ", ".join(sorted(entry.batch.columns)) or "none"
                raise ConfigError(
                    f"a condition looks at the column {column!r}, which is not recorded",
                    key=f"rewards.{name}.when",
                    hint=f"only columns are recorded that a condition looked at: {known}",
                )
        asked = ask(part.when, entry.batch, said)
        rows, not_asked = asked.rows, asked.not_asked
        failures = {row: why for row, why in failures.items() if row not in not_asked} | dict(asked.failures)
    imputed = None
    if part.ask is not None:  # what was taken for its score then is what is taken now
        asked_about = set(rows)
        imputed = {row: value for row, value in (then.imputed or {}).items() if row in asked_about}
        not_asked = {**(not_asked or {}), **{row: value.reason for row, value in imputed.items()}}
    missing = [row for row in rows if row in then.not_asked and row not in (imputed or {})] if then.not_asked else []
    failures |= dict.fromkeys(missing, "it was not asked about the row when this was recorded")
    raw_B = np.full(len(then.raw), np.nan)
    raw_B[rows] = then.raw[rows]
    return replace(then, raw=raw_B, failures=failures, not_asked=not_asked, imputed=imputed), missing


class ReplayedReward(Reward):
    """Has what the arithmetic asks of a reward whose scores are recorded, and scores nothing."""

    def __init__(self, recorded_reward: RecordedReward) -> None:
        self.version = recorded_reward.version
        self.range = recorded_reward.range
        self.higher_is_better = recorded_reward.higher_is_better
        self.ends = recorded_reward.ends

    def score(self, batch: RewardBatch) -> Scores:
        raise NotImplementedError("recorded scores are replayed, and nothing is scored")


def _warn_of_differences(rewards: Mapping[str, RecordedReward], config: CompositionConfig) -> None:
    """Say where the config would make a reward otherwise: its recorded scores are not those that it would give."""
    for name, reward in config.rewards.items():
        then = rewards[name]
        other_use = reward.use is not None and then.use and reward.use != then.use
        if other_use or (reward.params and then.params and json_digest(reward.params) != then.params):
            what = "another 'use'" if other_use else "other params"
            warnings.warn(f"reward {name!r} was recorded with {what}; its recorded scores are used", stacklevel=4)


def _compared(replayed: Iterable[tuple[RecordedBatch, Array, Mapping[str, Sequence[int]]]]) -> WhatIf:
    numbers: list[tuple[Array | Labels | Mask, ...]] = []
    prompts: list[str] = []
    completions: list[str] = []
    missing: Counter[str] = Counter()
    for entry, new_B, unrecorded in replayed:
        batch, group_B = entry.batch, encode_groups(entry.batch.group)
        rows = len(batch)
        missing.update({name: len(without) for name, without in unrecorded.items() if without})
        unknown_B = _with_groups({row for without in unrecorded.values() for row in without}, rows, group_B)
        numbers.append(
            (
                np.full(len(batch), batch.progress.step),
                entry.totals,
                new_B,
                group_advantages(entry.totals, group_B),
                np.where(unknown_B, np.nan, group_advantages(new_B, group_B)),
                unknown_B,
            )
        )
        prompts += [shown(prompt, role=USER) for prompt in batch.prompts]
        completions += map(shown, batch.completions)
    names = ("step", "totals", "new_totals", "advantages", "new_advantages", "unknown")
    none = [*[np.zeros(0)] * (len(names) - 1), np.zeros(0, dtype=bool)]
    columns: list[Any] = [np.concatenate(parts) for parts in zip(*numbers, strict=True)] or none
    for name, count in missing.items():
        warnings.warn(
            f"reward {name!r} would be asked about {count} rows that it was not asked about when they were recorded: their "
            "new totals are unknown, and so are the advantages of their groups",
            stacklevel=3,
        )
    return WhatIf(
        **dict(zip(names, columns, strict=True)),
        unrecorded=dict(missing),
        prompts=tuple(prompts),
        completions=tuple(completions),
    )


def _with_groups(rows: Collection[int], size: int, group_B: Labels | None) -> Mask:
    """(B,) True for rows and the others of their groups; without groups all rows are one."""
    among_B = np.zeros(size, dtype=bool)
    among_B[list(rows)] = True
    if group_B is None:
        return np.full(size, among_B.any())
    of_group_B: Mask = (np.bincount(group_B, weights=among_B) > 0)[group_B]
    return of_group_B


def _sign(advantages_N: Array) -> Array:
    """(N,) -1, 0 or 1; 0 where there is none."""
    signs_N: Array = np.sign(np.where(np.abs(advantages_N) > ZERO, advantages_N, 0.0))
    return signs_N


def excerpt(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else f"{line[: EXCERPT - 1]}…"
