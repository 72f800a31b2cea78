"""The arithmetic of a composer: checked answers in, a composition out, and all that is learned on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlaif_sdk.composer.aggregate import Aggregator
from rlaif_sdk.composer.arrays import Array, Labels, encode_groups, is_finite_number
from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.composition import Composition, RewardColumn
from rlaif_sdk.composer.failures import Settled, settle
from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.composer.validation import Answer
from rlaif_sdk.exceptions import ConfigError, StateError
from rlaif_sdk.types import RewardBatch


class Combiner:
    """Normalises, weighs, aggregates and gates the answers of several rewards. See `rlaif_sdk.composer.Composer`."""

    def __init__(self, components: Mapping[str, Component], *, gates: Sequence[Gate], aggregator: Aggregator) -> None:
        self.components = components
        self.gates = tuple(gates)
        self.aggregator = aggregator
        self._check()
        for name, component in self.components.items():
            try:
                component.normalizer.bind(component.oriented_range)
            except ConfigError as error:
                raise ConfigError(error.message, key=f"rewards.{name}.normalize", hint=error.hint) from None

    def _check(self) -> None:
        if not self.components:
            raise ConfigError("a composition needs at least one reward", key="rewards")
        for name, component in self.components.items():
            if not is_finite_number(component.weight):
                key = f"rewards.{name}.weight"
                raise ConfigError(f"a weight must be a finite number, not {component.weight!r}", key=key)
        if all(component.weight == 0 for component in self.components.values()):
            raise ConfigError("every weight is 0: nothing would be rewarded", key="rewards")
        for index, gate in enumerate(self.gates):
            if gate.reward not in self.components:
                known = ", ".join(self.components)
                raise ConfigError(f"a gate names {gate.reward!r}; there are {known}", key=f"gates.{index}.reward")

    def combine(self, batch: RewardBatch, answers: Mapping[str, Answer], seconds: Mapping[str, float]) -> Composition:
        """Make one composition of the answers to a batch of B rows; running statistics learn if ``batch.training``.

        Raises:
            RewardError: A row failed whose reward's policy is ``raise``.
        """
        group_B = encode_groups(batch.group)
        settled = {name: settle(name, answers[name], part.failure, group_B) for name, part in self.components.items()}
        normalized_RB = np.stack(
            [
                _normalized(part, settled[name], group_B, training=batch.training)
                for name, part in self.components.items()
            ]
        )
        weights_R = np.array([component.weight for component in self.components.values()], dtype=np.float64)
        totals_B, weighted_RB = self.aggregator.aggregate(normalized_RB, weights_R)
        dropped_B = np.logical_or.reduce([part.dropped for part in settled.values()])
        before_B = np.where(dropped_B | ~np.isfinite(totals_B), np.nan, totals_B)
        after_B, gates = before_B, []
        for gate in self.gates:
            raw_B = np.where(settled[gate.reward].masked, answers[gate.reward].raw, settled[gate.reward].values)
            gates.append((gate, gate.closed(raw_B)))
            after_B = gate.apply(after_B, raw_B)
        columns = {}
        for index, (name, component) in enumerate(self.components.items()):
            part, answer = settled[name], answers[name]
            columns[name] = RewardColumn(
                name=name,
                weight=component.weight,
                raw=answer.raw,
                normalized=normalized_RB[index],
                weighted=weighted_RB[index],
                failures=answer.failures,
                masked=part.masked,
                defaulted=np.isnan(answer.raw) & ~np.isnan(part.values),
                seconds=seconds[name],
                entries=answer.entries,
            )
        return Composition(batch, after_B, columns, tuple(gates), before_B, dropped_B)

    def state_dict(self) -> dict[str, Any]:
        """What must survive a checkpoint (running statistics), as JSON values."""
        return {
            "rewards": {
                name: {
                    "version": component.reward.version,
                    "normalizer": type(component.normalizer).__name__,
                    "state": component.normalizer.state_dict(),
                }
                for name, component in self.components.items()
            }
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state. See `rlaif_sdk.composer.Composer.load_state_dict`."""
        saved, own = state.get("rewards", {}), self.state_dict()["rewards"]
        if saved.keys() != own.keys():
            raise StateError(f"the saved state is of the rewards {sorted(saved)}; this composer has {sorted(own)}")
        for name in own:
            for part in ("version", "normalizer"):
                if saved[name][part] != own[name][part]:
                    raise StateError(
                        f"reward {name!r}: saved with {part} {saved[name][part]!r}, now {own[name][part]!r}",
                        hint="go on with the former, or start with fresh statistics",
                    )
        for name, component in self.components.items():
            component.normalizer.load_state_dict(saved[name]["state"])


def _normalized(component: Component, part: Settled, group_B: Labels | None, *, training: bool) -> Array:
    if training:
        component.normalizer.update(component.sign * part.observed, group_B)
    return component.normalizer.normalize(component.sign * part.values, group_B)
