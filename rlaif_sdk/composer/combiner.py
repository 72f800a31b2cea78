"""The arithmetic of a composer: checked answers in, a composition out, and all that is learned on the way."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlaif_sdk.composer import state
from rlaif_sdk.composer.aggregate import Aggregator, WeightedSum
from rlaif_sdk.composer.arrays import Array, Labels, encode_groups
from rlaif_sdk.composer.column import RewardColumn
from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.composer.constraints import Constraint, ConstraintColumn, Multiplier
from rlaif_sdk.composer.failures import Settled, settle
from rlaif_sdk.composer.gates import Gate, GateOrder, apply_gates, check_gates
from rlaif_sdk.composer.nesting import Group, Nested
from rlaif_sdk.composer.sync import Observed, Sync, bring_together
from rlaif_sdk.composer.tokens import token_scales
from rlaif_sdk.composer.validation import Answer
from rlaif_sdk.composer.weights import Schedule, Weight, current_weight
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.types import Progress, RewardBatch


class Combiner:
    """Normalises, weighs, aggregates and gates the answers of several rewards. See `rlaif_sdk.composer.Composer`."""

    def __init__(
        self,
        components: Mapping[str, Component],
        *,
        gates: Sequence[Gate] = (),
        gate_order: GateOrder = "independent",
        aggregator: Aggregator | None = None,
        groups: Mapping[str, Group] | None = None,
        constraints: Sequence[Constraint] = (),
        sync: Sync | None = None,
    ) -> None:
        self.components = components
        self._versions = {name: component.reward.version for name, component in components.items()}
        self.gates = tuple(gates)
        self.gate_order: GateOrder = gate_order
        self.aggregator = aggregator or WeightedSum()
        self.groups = dict(groups or {})
        self.multipliers = [Multiplier(constraint) for constraint in constraints]
        self.sync = sync
        self._missed_groups = False
        rewards = {name: component.weight for name, component in components.items()}
        self._weights: dict[str, Weight] = {**rewards, **{name: group.weight for name, group in self.groups.items()}}
        self._check()
        self._nested = Nested(self.aggregator, self.groups, rewards)
        for name, component in self.components.items():
            try:
                component.normalizer.bind(component.oriented_range)
            except ConfigError as error:
                raise ConfigError(error.message, key=f"rewards.{name}.normalize", hint=error.hint) from None

    def _check(self) -> None:
        if not self.components:
            raise ConfigError("a composition needs at least one reward", key="rewards")
        if all(component.weight == 0 for component in self.components.values()):
            raise ConfigError("every weight is 0: nothing would be rewarded", key="rewards")
        check_gates(self.gates, self.gate_order, tuple(self.components))
        known = ", ".join(self.components)
        for name, schedule in self._schedules().items():
            if schedule.after and schedule.after.reward not in self.components:
                kind = "rewards" if name in self.components else "groups"
                raise ConfigError(
                    f"a schedule waits for {schedule.after.reward!r}; there are {known}", key=f"{kind}.{name}.weight"
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

    def combine(self, batch: RewardBatch, answers: Mapping[str, Answer], seconds: Mapping[str, float]) -> Composition:
        """Make one composition of the answers to a batch of B rows, and learn from it if ``batch.training``.

        Running statistics learn from the batch before it is normalised. Multipliers, and schedules that follow
        episodes or a metric, learn from it afterwards: what is in force for a batch does not depend on it.

        Raises:
            RewardError: A row failed whose reward's policy is ``raise``.
        """
        group_B = encode_groups(batch.group)
        settled = {name: settle(name, answers[name], part.failure, group_B) for name, part in self.components.items()}
        if batch.training:
            self._warn_without_groups(group_B, len(batch))
        observed = self._observe(settled, group_B) if batch.training else None
        weights = {name: current_weight(weight, batch.progress) for name, weight in self._weights.items()}
        normalized_RB = np.stack(
            [
                part.normalizer.normalize(part.sign * settled[name].values, group_B)
                for name, part in self.components.items()
            ]
        )
        totals_B, weighted_RB = self._nested.aggregate(normalized_RB, weights)
        values = {name: part.values for name, part in settled.items()}
        scales = token_scales(self.components, answers, values, self._nested, weights, group_B)
        conditions = {
            name: np.where(settled[name].masked, answers[name].raw, settled[name].values)
            for name in {*(gate.reward for gate in self.gates), *(m.constraint.reward for m in self.multipliers)}
        }
        constraints = [
            ConstraintColumn(m.constraint, m.value, m.penalty(conditions[m.constraint.reward]))
            for m in self.multipliers
        ]
        for column in constraints:
            totals_B = totals_B - column.penalty
        dropped_B = np.logical_or.reduce([part.dropped for part in settled.values()])
        before_B = np.where(dropped_B | ~np.isfinite(totals_B), np.nan, totals_B)
        after_B, gates = apply_gates(before_B, self.gates, self.gate_order, conditions)
        if observed is not None:
            self._learn(observed, batch.progress)
        columns = {
            name: RewardColumn(
                name=name,
                weight=weights[name],
                raw=answers[name].raw,
                normalized=normalized_RB[index],
                weighted=weighted_RB[index],
                failures=answers[name].failures,
                masked=settled[name].masked,
                defaulted=np.isnan(answers[name].raw) & ~np.isnan(settled[name].values),
                seconds=seconds[name],
                entries=answers[name].entries,
                stood_in=answers[name].stood_in,
                cached=answers[name].cached,
                declared_range=component.reward.range,
                higher_is_better=component.reward.higher_is_better,
                tokens=answers[name].tokens,
                token_scale=scales.get(name),
                error=answers[name].error,
            )
            for index, (name, component) in enumerate(self.components.items())
        }
        return Composition(
            batch,
            after_B,
            columns,
            tuple(gates),
            before_B,
            dropped_B,
            constraints=tuple(constraints),
            group_weights={name: weights[name] for name in self.groups},
        )

    def _warn_without_groups(self, group_B: Labels | None, rows: int) -> None:
        """Say once that a normalizer for the completions to one prompt has nothing to go by."""
        names = [name for name, component in self.components.items() if component.normalizer.within_groups]
        grouped = group_B is not None and len(np.unique(group_B)) < rows
        if self._missed_groups or not names or grouped or rows < 2:
            return
        self._missed_groups = True
        what = "and all rows of the batch count as one" if group_B is None else "and of one score it makes 0"
        warnings.warn(
            f"rewards.{names[0]}.normalize compares completions to the same prompt, but no prompt has several here, "
            f"{what}; sample several completions a prompt (num_generations), name the column of the group, "
            "or normalize by zscore",
            stacklevel=5,
        )

    def _observe(self, settled: Mapping[str, Settled], group_B: Labels | None) -> Observed:
        """Bring together what all ranks observed, and update the running statistics with it."""
        raw_RB: Array = np.stack([settled[name].observed for name in self.components])
        observed = bring_together(raw_RB, group_B, self.sync)
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
                multiplier.constraint.key: state.Part(state.of_constraint(multiplier.constraint), multiplier)
                for multiplier in self.multipliers
            },
        }

    def state_dict(self) -> dict[str, Any]:
        """What must survive a checkpoint, as JSON values. See `rlaif_sdk.composer.Composer.state_dict`."""
        return state.save(self._parts())

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from a saved state. See `rlaif_sdk.composer.Composer.load_state_dict`."""
        state.load(self._parts(), saved)
