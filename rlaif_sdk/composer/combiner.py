"""The arithmetic of a composer: checked scores in, a composition out, and all that is learned on the way."""

from __future__ import annotations

import copy
import functools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rlaif_sdk.composer import state
from rlaif_sdk.composer.aggregators import Aggregator, NestedAggregation, RewardGroup, WeightedSum
from rlaif_sdk.composer.alarm import Alarm
from rlaif_sdk.composer.all_gather import AllGather, Observed, gather_observed
from rlaif_sdk.composer.asking import MOST_GROUPS, Ask, Asking, ScoreModel, begin_asking, drawn_groups, training_data
from rlaif_sdk.composer.column import RewardColumn
from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.composer.constraints import Constraint, ConstraintColumn, Multiplier
from rlaif_sdk.composer.failures import apply_failure_policy
from rlaif_sdk.composer.gates import Gate, GateOrder, apply_gates, check_gates
from rlaif_sdk.composer.normalizers import Normalizer
from rlaif_sdk.composer.stages import check_ask
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
        self.followed = [schedule.trigger.reward for schedule in self._schedules().values() if schedule.trigger]
        self.alarm = (
            Alarm(alarm, components, gates=gates, constraints=constraints, followed=self.followed) if alarm else None
        )
        self._nested = NestedAggregation(self.aggregator, self.groups, rewards)
        self._tree = self._nested.tree
        witnesses = self.alarm.witnesses if self.alarm else frozenset()
        check_ask(components, self.gates, constraints, self.followed, witnesses, is_sum=self._nested.is_linear)
        for name, component in self.components.items():
            try:
                component.normalizer.bind(component.oriented_range)
            except ConfigError as error:
                raise ConfigError(error.message, key=f"rewards.{name}.normalize", hint=error.hint) from None
        self._asks = next((name for name, part in components.items() if part.ask), None)
        self._predictors = [name for name in components if name != self._asks and name not in witnesses]
        self._model = ScoreModel(len(self._predictors))
        self._learns = (
            bool(self.multipliers)
            or self._asks is not None
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
        stated, values, dropped_B = self._stated(scores, group_B)
        observed = None
        if batch.training:
            self._warn_without_groups(group_B, rows)
            if self._learns or self.all_gather is not None:
                observed = self._observe(batch, scores, group_B)
        weights = self._current_weights(batch.progress)
        normalized_RB = np.empty((len(self.components), rows))
        workings = {}
        for index, (name, part) in enumerate(self.components.items()):
            oriented_B = values[name] if part.sign > 0 else -values[name]
            normalized_RB[index] = part.normalizer.normalize(oriented_B, group_B)
            workings[name] = part.normalizer.working(oriented_B, group_B)
        std_RB = self._stds(scores, values, group_B)
        totals_B, weighted_RB = self._nested.aggregate(normalized_RB, weights, std_RB)
        before_B, constraints = self._penalised(totals_B, stated, dropped_B)
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
                imputed=said.imputed,
                flipped_share=self._model.flipped_share if name == self._asks else None,
            )
        return Composition(
            batch,
            after_B,
            columns,
            tuple(gates),
            before_B,
            nowhere_B if dropped_B is None else dropped_B,
            **self._watch(batch, after_B, columns, stated),
            constraints=tuple(constraints),
            group_weights={name: weights[name] for name in self.groups},
            aggregation=self._tree,
            gate_order=self.gate_order,
        )

    def _stated(
        self, scores: Mapping[str, CheckedScores], group_B: Labels | None
    ) -> tuple[dict[str, Array], dict[str, Array], Mask | None]:
        """What of rewards' scores takes part, see `apply_failure_policy`; and the rows that are dropped, None for none."""
        stated: dict[str, Array] = {}
        values: dict[str, Array] = {}
        dropped_B: Mask | None = None
        for name, said in scores.items():
            part = self.components[name]
            stated[name], values[name], without_total_B = apply_failure_policy(
                name, said, part.failure, group_B, otherwise=part.otherwise_value
            )
            if without_total_B is not None:
                dropped_B = without_total_B if dropped_B is None else dropped_B | without_total_B
        return stated, values, dropped_B

    def _penalised(
        self, totals_B: Array, stated: Mapping[str, Array], dropped_B: Mask | None
    ) -> tuple[Array, list[ConstraintColumn]]:
        """The totals before gates, without what constraints take off; NaN where there is none."""
        if self.alarm is not None:
            for multiplier, constraint in zip(self.multipliers, self._constraints, strict=True):
                multiplier.constraint = self.alarm.constraint(constraint)
        constraints = [
            ConstraintColumn(m.constraint, m.value, m.penalty(stated[m.constraint.reward])) for m in self.multipliers
        ]
        for penalised in constraints:
            totals_B = totals_B - penalised.penalty
        has_total_B = np.isfinite(totals_B) if dropped_B is None else np.isfinite(totals_B) & ~dropped_B
        return (totals_B if has_total_B.all() else np.where(has_total_B, totals_B, np.nan)), constraints

    def asking(self, batch: RewardBatch, scores: Mapping[str, CheckedScores], rows: Sequence[int]) -> Asking:
        """The waves in which the reward that has an ``ask`` is asked.

        Args:
            batch: B rows.
            scores: What the other rewards said of them.
            rows: Those that its conditions let it be asked about.
        """
        ask, value_range = self._asked_part
        eligible_B = np.zeros(len(batch), dtype=bool)
        eligible_B[list(rows)] = True
        totals = self._totals_by_costly(batch, scores, eligible_B)
        return begin_asking(ask, self._model, batch, value_range, self._others(scores), eligible_B, totals)

    def warm_start(self, batch: RewardBatch, scores: Mapping[str, CheckedScores], *, skipped: bool) -> None:
        """Teach the reward that has an ``ask`` what it answered in an earlier run.

        Args:
            batch: A batch of that run.
            scores: What each reward said of it.
            skipped: Whether it was not asked about some rows of that run. Otherwise every group counts as one that is asked
                about in full.

        Raises:
            ConfigError: That run asked about fewer groups in full than ``random_share`` says.
        """
        group_B = encode_groups(batch.group)
        if group_B is None:
            return
        ask, _ = self._asked_part
        imputed = list(scores[str(self._asks)].imputed or {})
        if imputed and drawn_groups(batch, group_B, ask.random_share, ready=True)[imputed].any():
            raise ConfigError(
                "asked about fewer groups in full than random_share says, so those that it did ask about are chosen",
                hint="give random_share the value of that run, or less",
            )
        raw_RB = np.stack([scores[name].raw for name in self.components])
        data_3B = self._training_data(batch, scores, ask if skipped else replace(ask, random_share=1.0))
        self._learn_to_ask(Observed(np.concatenate([raw_RB, data_3B]), group_B))

    @property
    def knows_enough_to_ask(self) -> bool:
        """Whether intervals are measured on as many groups as ever."""
        return len(self._model.measured) >= MOST_GROUPS

    @property
    def is_ready_to_ask(self) -> bool:
        """Whether the reward that has an ``ask`` is known well enough that rows are left out."""
        return self._model.prediction.is_ready

    @property
    def _asked_part(self) -> tuple[Ask, tuple[float, float]]:
        """How the reward that has an ``ask`` is asked, and its range."""
        assert self._asks is not None
        part = self.components[self._asks]
        assert part.ask is not None
        return part.ask, part.reward.range

    def _others(self, scores: Mapping[str, CheckedScores]) -> Array:
        """(B, F) what the rewards said that the one with an ``ask`` is predicted from."""
        return np.stack([scores[name].raw for name in self._predictors], axis=1)

    def _totals_by_costly(
        self, batch: RewardBatch, scores: Mapping[str, CheckedScores], eligible_B: Mask
    ) -> Callable[[Array], tuple[Array, Array]]:
        """What the scores of the reward that has an ``ask`` make of a batch; nothing is learned of it.

        Running statistics of the others are taken as they will be after this process's rows of the batch.
        """
        name = self._asks
        assert name is not None
        part = self.components[name]
        names = list(self.components)
        group_B = encode_groups(batch.group)
        stated, values, dropped_B = self._stated({other: scores[other] for other in names if other != name}, group_B)
        weights = self._current_weights(batch.progress)
        normalized_RB = np.empty((len(names), len(batch)))
        for index, other in enumerate(names):
            if other == name:
                continue
            sign, normalizer = self.components[other].sign, self.components[other].normalizer
            if batch.training and type(normalizer).update is not Normalizer.update:
                normalizer = copy.deepcopy(normalizer)
                normalizer.update(sign * scores[other].raw, group_B)
            normalized_RB[index] = normalizer.normalize(sign * values[other], group_B)
        otherwise = math.nan if part.otherwise_value is None else part.otherwise_value

        def totals(raw_B: Array) -> tuple[Array, Array]:
            raw_B = np.where(eligible_B, raw_B, otherwise)
            normalized_RB[names.index(name)] = part.normalizer.normalize(part.sign * raw_B, group_B)
            summed_B, _ = self._nested.aggregate(normalized_RB, weights)
            before_B, _ = self._penalised(summed_B, stated, dropped_B)
            return before_B, apply_gates(before_B, self.gates, self.gate_order, stated)[0]

        return totals

    def _current_weights(self, progress: Progress) -> dict[str, float]:
        weights = {name: current_weight(weight, progress) for name, weight in self._weights.items()}
        return self.alarm.weights(weights) if self.alarm else weights

    def _watch(
        self,
        batch: RewardBatch,
        totals_B: Array,
        columns: Mapping[str, RewardColumn],
        stated: Mapping[str, Array],
    ) -> dict[str, Any]:
        """Have the alarm look at a training batch, and say what evidence there is, and from which on it goes off."""
        if self.alarm is None:
            return {}
        if batch.training:
            self.alarm.observe(batch, totals_B, columns, stated, self.all_gather)
        return {"e_values": self.alarm.e_values, "thresholds": self.alarm.thresholds}

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
        if not (names or self._asks) or (group_B is not None and len(np.unique(group_B)) < rows):
            return
        self._missed_groups = True
        key, other = (
            (f"rewards.{names[0]}.normalize", "normalize by zscore")
            if names
            else (
                f"rewards.{self._asks}.ask",
                "leave 'ask' out",
            )
        )
        what = "and all rows of the batch count as one" if group_B is None else "and of one score it makes 0"
        warnings.warn(
            f"{key} compares completions to the same prompt, but no prompt has several here, "
            f"{what if names else 'and every row is asked about'}; sample several completions a prompt (num_generations), "
            f"name the column of the group, or {other}",
            stacklevel=5,
        )

    def _observe(self, batch: RewardBatch, scores: Mapping[str, CheckedScores], group_B: Labels | None) -> Observed:
        """Gather what all ranks observed, and update the running statistics with it."""
        raw_RB: Array = np.stack([scores[name].raw for name in self.components])
        if self._asks is not None:
            raw_RB = np.concatenate([raw_RB, self._training_data(batch, scores, self._asked_part[0])])
        observed = gather_observed(raw_RB, group_B, self.all_gather)
        if self._asks is not None:
            observed = self._learn_to_ask(observed)
        for component, raw_N in zip(self.components.values(), observed.raw_RN, strict=True):
            component.normalizer.update(component.sign * raw_N, observed.group_N)
        return observed

    def _training_data(self, batch: RewardBatch, scores: Mapping[str, CheckedScores], ask: Ask) -> Array:
        """(3, B) what this process's rows teach about asking; see `rlaif_sdk.composer.asking.training_data`."""
        assert self._asks is not None
        said = scores[self._asks]
        _, value_range = self._asked_part
        eligible_B = np.ones(len(batch), dtype=bool)
        eligible_B[[row for row in said.skipped if row not in (said.imputed or {})]] = False
        totals = functools.partial(self._totals_by_costly, batch, scores, eligible_B)
        return training_data(ask, self._model, batch, value_range, self._others(scores), said.raw, eligible_B, totals)

    def _learn_to_ask(self, observed: Observed) -> Observed:
        """Teach the model of the costly reward, and give what was observed without what only that needs."""
        names = list(self.components)
        raw_RN, (use_N, weight_N, flipped_N) = observed.raw_RN[: len(names)], observed.raw_RN[len(names) :]
        if observed.group_N is not None:
            values_NK = raw_RN[[names.index(name) for name in (*self._predictors, str(self._asks))]].T
            self._model.learn(values_NK, observed.group_N, use_N, weight_N, flipped_N)
        return replace(observed, raw_RN=raw_RN)

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
        asks = {"ask": {self._asks: state.Part({"others": len(self._predictors)}, self._model)}} if self._asks else {}
        return asks | {
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
