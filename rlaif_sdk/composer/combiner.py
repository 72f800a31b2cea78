"""The arithmetic of a composer: checked scores in, a composition out, and all that is learned on the way."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlaif_sdk.composer import state
from rlaif_sdk.composer.aggregators import Aggregator, NestedAggregation, RewardGroup, WeightedSum
from rlaif_sdk.composer.alarm import Alarm
from rlaif_sdk.composer.all_gather import AllGather, Observed, gather_observed
from rlaif_sdk.composer.column import RewardColumn
from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.composer.constraints import Constraint, ConstraintColumn, Multiplier
from rlaif_sdk.composer.failures import apply_failure_policy
from rlaif_sdk.composer.gates import Gate, GateOrder, apply_gates, check_gates
from rlaif_sdk.composer.normalizers import Normalizer
from rlaif_sdk.composer.weights import Schedule, Weight, current_weight
from rlaif_sdk.config import AlarmConfig
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.scoring.checks import CheckedScores
from rlaif_sdk.statistics.arrays import Array, Labels, Mask, encode_groups
from rlaif_sdk.types import STD, Progress, RewardBatch, Score


class Combiner:
    """Normalises, weighs, aggregates and gates the scores of several rewards. See `rlaif_sdk.composer.Composer`."""

    def __init__(
        self,
        components: Mapping[str, Component],
        *,
        gates: Sequence[Gate] = (),
        gate_order: GateOrder = "independent",
        aggregator: Aggregator | None = None,
        groups: Mapping[str, RewardGroup] | None = None,
        constraints: Sequence[Constraint] = (),
        alarm: AlarmConfig | None = None,
        all_gather: AllGather | None = None,
    ) -> None:
        self.components = components
        self._versions = {name: component.reward.version for name, component in components.items()}
        self.gates = tuple(gates)
        self.gate_order: GateOrder = gate_order
        self.aggregator = aggregator or WeightedSum()
        self.groups = dict(groups or {})
        self._constraints = tuple(constraints)
        self.multipliers = [Multiplier(constraint) for constraint in constraints]
        self.all_gather = all_gather
        self._missed_groups = False
        rewards = {name: component.weight for name, component in components.items()}
        self._weights: dict[str, Weight] = {**rewards, **{name: group.weight for name, group in self.groups.items()}}
        self._check()
        self.alarm = Alarm(alarm, components, gates=gates, constraints=constraints) if alarm else None
        self._nested = NestedAggregation(self.aggregator, self.groups, rewards)
        self._tree = self._nested.tree
        for name, component in self.components.items():
            try:
                component.normalizer.bind(component.oriented_range)
            except ConfigError as error:
                raise ConfigError(error.message, key=f"rewards.{name}.normalize", hint=error.hint) from None
        self._learns = (
            bool(self.multipliers)
            or bool(self._schedules())
            or any(type(part.normalizer).update is not Normalizer.update for part in components.values())
        )

    def _check(self) -> None:
        if not self.components:
            raise ConfigError("a composition needs at least one reward", key="rewards")
        if all(component.weight == 0 for component in self.components.values()):
            raise ConfigError("every weight is 0: nothing would be rewarded", key="rewards")
        check_gates(self.gates, self.gate_order, tuple(self.components))
        known = ", ".join(self.components)
        for name, schedule in self._schedules().items():
            if schedule.trigger and schedule.trigger.reward not in self.components:
                kind = "rewards" if name in self.components else "groups"
                raise ConfigError(
                    f"a schedule waits for {schedule.trigger.reward!r}; there are {known}", key=f"{kind}.{name}.weight"
                )
        seen: set[str] = set()
        for index, multiplier in enumerate(self.multipliers):
            constraint, key = multiplier.constraint, f"constraints.{index}"
            if constraint.reward not in self.components:
                raise ConfigError(f"a constraint names {constraint.reward!r}; there are {known}", key=f"{key}.reward")
            if constraint.key in seen:
                raise ConfigError(f"{constraint.reward!r} is constrained twice in the same direction", key=key)
            seen.add(constraint.key)

    def _schedules(self) -> dict[str, Schedule]:
        return {name: weight for name, weight in self._weights.items() if isinstance(weight, Schedule)}

    def combine(
        self, batch: RewardBatch, scores: Mapping[str, CheckedScores], seconds: Mapping[str, float]
    ) -> Composition:
        """Make one composition of what the rewards said of B rows, and learn from it if ``batch.training``.

        Running statistics learn from the batch before it is normalised. Multipliers, and schedules that follow
        rewards, learn after it is composed, so that what is in force for a batch does not depend on it.

        Raises:
            RewardError: A row failed whose reward's policy is ``raise``.
        """
        rows = len(batch)
        group_B = encode_groups(batch.group)
        nowhere_B = np.zeros(rows, dtype=bool)
        stated: dict[str, Array] = {}
        values: dict[str, Array] = {}
        dropped_B = nowhere_B
        for name, part in self.components.items():
            stated[name], values[name], without_total_B = apply_failure_policy(
                name, scores[name], part.failure, group_B, otherwise=part.otherwise_value
            )
            dropped_B = dropped_B if without_total_B is None else dropped_B | without_total_B
        observed = None
        if batch.training:
            self._warn_without_groups(group_B, rows)
            if self._learns or self.all_gather is not None:
                observed = self._observe(scores, group_B)
        weights = self._current_weights(batch.progress)
        normalized_RB = np.empty((len(self.components), rows))
        workings = {}
        for index, (name, part) in enumerate(self.components.items()):
            oriented_B = values[name] if part.sign > 0 else -values[name]
            normalized_RB[index] = part.normalizer.normalize(oriented_B, group_B)
            workings[name] = part.normalizer.working(oriented_B, group_B)
        std_RB = self._stds(scores, values, group_B)
        totals_B, weighted_RB = self._nested.aggregate(normalized_RB, weights, std_RB)
        constraints = self._penalties(stated)
        for penalised in constraints:
            totals_B = totals_B - penalised.penalty
        has_total_B = np.isfinite(totals_B) if dropped_B is nowhere_B else np.isfinite(totals_B) & ~dropped_B
        before_B = totals_B if has_total_B.all() else np.where(has_total_B, totals_B, np.nan)
        after_B, gates = apply_gates(before_B, self.gates, self.gate_order, stated)
        scales = _credit_scales(self.components, scores, values, self._nested, weights, group_B)
        for _, closed_B in gates if scales else ():
            scales = {name: np.where(closed_B, 0.0, scale_B) for name, scale_B in scales.items()}
        if observed is not None:
            self._learn(observed, batch.progress)
        columns = {}
        for index, (name, part) in enumerate(self.components.items()):
            said = scores[name]
            columns[name] = RewardColumn(
                name=name,
                weight=weights[name],
                raw=said.raw,
                normalized=normalized_RB[index],
                weighted=weighted_RB[index],
                failures=said.failures,
                masked=nowhere_B if values[name] is stated[name] else ~np.isnan(stated[name]) & np.isnan(values[name]),
                defaulted=_failed(said, rows) if said.failures and part.failure.policy == "default" else nowhere_B,
                seconds=seconds[name],
                entries=said.entries,
                fallback_reasons=said.fallback_reasons,
                cached=said.cached,
                declared_range=part.reward.range,
                higher_is_better=part.reward.higher_is_better,
                ends=part.reward.ends,
                working=workings[name],
                credit=said.credit,
                credit_scale=scales.get(name),
                error=said.error,
                not_asked=said.not_asked,
                unseen_images=() if part.reward.reads_images else batch.images,
            )
        return Composition(
            batch,
            after_B,
            columns,
            tuple(gates),
            before_B,
            dropped_B,
            e_values=self._watch(batch, after_B, columns),
            constraints=tuple(constraints),
            group_weights={name: weights[name] for name in self.groups},
            aggregation=self._tree,
            gate_order=self.gate_order,
        )

    def _current_weights(self, progress: Progress) -> dict[str, float]:
        weights = {name: current_weight(weight, progress) for name, weight in self._weights.items()}
        return self.alarm.weights(weights) if self.alarm else weights

    def _penalties(self, stated: Mapping[str, Array]) -> list[ConstraintColumn]:
        if self.alarm is not None:
            for multiplier in self.multipliers:
                multiplier.constraint = self.alarm.constraint(multiplier.constraint)
        return [
            ConstraintColumn(m.constraint, m.value, m.penalty(stated[m.constraint.reward])) for m in self.multipliers
        ]

    def _watch(self, batch: RewardBatch, totals_B: Array, columns: Mapping[str, RewardColumn]) -> dict[str, float]:
        """Have the alarm look at a training batch, and say what evidence there is."""
        if self.alarm is None:
            return {}
        if batch.training:
            self.alarm.observe(batch, totals_B, columns, self.all_gather)
        return self.alarm.e_values

    def _stds(
        self, scores: Mapping[str, CheckedScores], values: Mapping[str, Array], group_B: Labels | None
    ) -> Array | None:
        """(R, B) how unsure the rewards say they are of each value, on the common scale; None where no aggregator asks."""
        if not self._nested.weighs_certainty:
            return None
        std_RB = np.full((len(self.components), len(next(iter(values.values())))), np.nan)
        for index, (name, part) in enumerate(self.components.items()):
            for row, entry in enumerate(scores[name].entries):
                if isinstance(entry, Score) and STD in entry.subscores:
                    said = entry.subscores[STD].value
                    std_RB[index, row] = np.nan if said is None else said
            if not np.isnan(std_RB[index]).all():
                std_RB[index] *= part.normalizer.scale(part.sign * values[name], group_B)
        return std_RB

    def _warn_without_groups(self, group_B: Labels | None, rows: int) -> None:
        """Say once that a normalizer for the completions to one prompt has nothing to go by."""
        if self._missed_groups or rows < 2:
            return
        names = [name for name, component in self.components.items() if component.normalizer.within_groups]
        if not names or (group_B is not None and len(np.unique(group_B)) < rows):
            return
        self._missed_groups = True
        what = "and all rows of the batch count as one" if group_B is None else "and of one score it makes 0"
        warnings.warn(
            f"rewards.{names[0]}.normalize compares completions to the same prompt, but no prompt has several here, "
            f"{what}; sample several completions a prompt (num_generations), name the column of the group, "
            "or normalize by zscore",
            stacklevel=5,
        )

    def _observe(self, scores: Mapping[str, CheckedScores], group_B: Labels | None) -> Observed:
        """Gather what all ranks observed, and update the running statistics with it."""
        raw_RB: Array = np.stack([scores[name].raw for name in self.components])
        observed = gather_observed(raw_RB, group_B, self.all_gather)
        for component, raw_N in zip(self.components.values(), observed.raw_RN, strict=True):
            component.normalizer.update(component.sign * raw_N, observed.group_N)
        return observed

    def _learn(self, observed: Observed, progress: Progress) -> None:
        schedules = self._schedules().values()
        if not self.multipliers and not schedules:
            return
        means = dict(zip(self.components, map(float, observed.means_R()), strict=True))
        for multiplier in self.multipliers:
            multiplier.learn(means[multiplier.constraint.reward])
        for schedule in schedules:
            schedule.observe(means, observed.rows, progress)

    def _parts(self) -> state.Parts:
        schedules = self._schedules()
        return {
            "reward": {
                name: state.Part(state.of_reward(component, self._versions[name]), component.normalizer)
                for name, component in self.components.items()
            },
            "weight": {
                name: state.Part(state.of_weight(weight), schedules.get(name)) for name, weight in self._weights.items()
            },
            "constraint": {
                constraint.key: state.Part(state.of_constraint(constraint), multiplier)
                for constraint, multiplier in zip(self._constraints, self.multipliers, strict=True)
            },
            **(
                {"alarm": {"alarm": state.Part(self.alarm.config.model_dump(mode="json"), self.alarm)}}
                if self.alarm
                else {}
            ),
        }

    def state_dict(self) -> dict[str, Any]:
        """What must survive a checkpoint, as JSON values. See `rlaif_sdk.composer.Composer.state_dict`."""
        return state.save(self._parts())

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Resume from a saved state. See `rlaif_sdk.composer.Composer.load_state_dict`."""
        state.load(self._parts(), saved)


def _failed(scores: CheckedScores, rows: int) -> Mask:
    failed_B = np.zeros(rows, dtype=bool)
    failed_B[list(scores.failures)] = True
    return failed_B


def _credit_scales(
    components: Mapping[str, Component],
    scores: Mapping[str, CheckedScores],
    values: Mapping[str, Array],
    nested: NestedAggregation,
    weights: Mapping[str, float],
    group_B: Labels | None,
) -> dict[str, Array]:
    """What one unit of a reward's credit adds to a row's total, for each reward that gave any.

    It is the reward's weight in force, scaled up where others are missing, times its normalizer's scale, and NaN where
    either has none: the normalizer keeps only the order of scores, or the total is no weighted sum.

    Args:
        components: The rewards by name.
        scores: What they said.
        values: The (B,) scores that take part.
        nested: How they are aggregated.
        weights: The weight in force of every reward and group.
        group_B: (B,) integers, equal for rows that answer the same prompt; None when there are no groups.

    Returns:
        (B,) scales by name, 0 where the reward takes no part.
    """
    given = [name for name in components if scores[name].credit]
    if not given:
        return {}
    ones_RB = np.where(np.isnan(np.stack([values[name] for name in components])), np.nan, 1.0)
    slopes_RB = nested.aggregate(ones_RB, weights)[1] if nested.is_linear else np.full_like(ones_RB, np.nan)
    scales = {}
    for slopes_B, (name, part) in zip(slopes_RB, components.items(), strict=True):
        if name in given:
            scale_B = part.sign * part.normalizer.scale(part.sign * values[name], group_B) * slopes_B
            idle_B = np.isnan(values[name]) | (slopes_B == 0) | (weights[name] == 0)
            scales[name] = np.where(idle_B, 0.0, scale_B)
    return scales
