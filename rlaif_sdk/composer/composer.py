"""The composer: a batch in, one explained number a row out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rlaif_sdk.composer.aggregate import Aggregator, WeightedSum
from rlaif_sdk.composer.arrays import Array, Labels, encode_groups
from rlaif_sdk.composer.composition import Composition, RewardColumn
from rlaif_sdk.composer.execution import Outcome, Runner, run_all
from rlaif_sdk.composer.failures import FailurePolicy, Settled, settle
from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.composer.normalize import Identity, Normalizer
from rlaif_sdk.composer.validation import Answer, check_answer
from rlaif_sdk.exceptions import ConfigError, RewardError, StateError
from rlaif_sdk.rewards import Reward, as_reward, require_columns
from rlaif_sdk.types import RewardBatch

if TYPE_CHECKING:
    from rlaif_sdk.config import CompositionConfig
    from rlaif_sdk.plugins import Registry


@dataclass(frozen=True, slots=True, eq=False)
class Component:
    """A reward and how it takes part in a composition.

    Attributes:
        reward: The reward, or anything that `rlaif_sdk.rewards.as_reward` takes.
        weight: How much it matters; 0 only records it.
        normalizer: What makes its scale comparable.
        failure: What its failure does.
        timeout: Seconds that one call may take, or None.
        setup_timeout: Seconds that its setup may take, or None.
        columns: Dataset columns under the names that the reward knows: ``{"reference": "answer"}``.
    """

    reward: Reward | Callable[..., Any] | Any
    weight: float = 1.0
    normalizer: Normalizer = field(default_factory=Identity)
    failure: FailurePolicy = FailurePolicy()
    timeout: float | None = 300.0
    setup_timeout: float | None = 1800.0
    columns: Mapping[str, str] = field(default_factory=dict)


class Composer:
    """Scores batches with several rewards at once and makes one number a row of them.

    Args:
        rewards: Rewards by name: a `Component`, a `Reward`, a plain function, or an object with ``score(batch)``.
        weights: Weights by name, for rewards that are not given as a `Component`.
        gates: Conditions over the whole sum, applied in order.
        aggregator: How the weighted rewards become one number; `WeightedSum` if None.
        observers: Called with each finished composition.

    Raises:
        ConfigError: A weight is not finite, names nobody, or all are 0; a gate names nobody; a normalizer does not
            fit its reward.
        TypeError: A value is no reward.
    """

    def __init__(
        self,
        rewards: Mapping[str, Any],
        *,
        weights: Mapping[str, float] | None = None,
        gates: Sequence[Gate] = (),
        aggregator: Aggregator | None = None,
        observers: Sequence[Callable[[Composition], None]] = (),
    ) -> None:
        weights = weights or {}
        parts = {
            name: value if isinstance(value, Component) else Component(value, weight=weights.get(name, 1.0))
            for name, value in rewards.items()
        }
        self.components = {name: replace(part, reward=as_reward(part.reward)) for name, part in parts.items()}
        self.gates = tuple(gates)
        self.aggregator = aggregator or WeightedSum()
        self.observers = tuple(observers)
        self._check(weights)
        for name, component in self.components.items():
            try:
                component.normalizer.bind(_oriented_range(component.reward))
            except ConfigError as error:
                raise ConfigError(error.message, key=f"rewards.{name}.normalize", hint=error.hint) from None
        self._runners = {
            name: Runner(name, part.reward, timeout=part.timeout, setup_timeout=part.setup_timeout)
            for name, part in self.components.items()
        }
        self._lock = threading.Lock()

    @classmethod
    def from_config(
        cls,
        source: str | Path | Mapping[str, Any] | CompositionConfig,
        *,
        registry: Registry | None = None,
    ) -> Composer:
        """Build a composer from a YAML or JSON file, a mapping, or a `rlaif_sdk.config.CompositionConfig`.

        Args:
            source: The config. Paths in a file are relative to that file, in a mapping to the working directory.
            registry: The plugins to choose from; the installed ones if None.

        Raises:
            ConfigError: Something in it is refused; the message has the file, line and key.
            PluginError: A reward's plugin is unknown, broken, or in conflict with another.
        """
        from rlaif_sdk.composer.build import build_composer  # noqa: PLC0415 - build needs Composer

        return build_composer(source, registry=registry)

    def _check(self, weights: Mapping[str, float]) -> None:
        if not self.components:
            raise ConfigError("a composition needs at least one reward", key="rewards")
        for name in weights:
            if name not in self.components:
                raise ConfigError(f"a weight names {name!r}; there are {', '.join(self.components)}", key="weights")
        for name, component in self.components.items():
            if isinstance(component.weight, bool) or not np.isfinite(component.weight):
                key = f"rewards.{name}.weight"
                raise ConfigError(f"a weight must be a finite number, not {component.weight!r}", key=key)
        if all(component.weight == 0 for component in self.components.values()):
            raise ConfigError("every weight is 0: nothing would be rewarded", key="rewards")
        for gate in self.gates:
            if gate.reward not in self.components:
                raise ConfigError(f"a gate names {gate.reward!r}; there are {', '.join(self.components)}", key="gates")

    @property
    def weights(self) -> dict[str, float]:
        """The weights by name."""
        return {name: component.weight for name, component in self.components.items()}

    def compose(self, batch: RewardBatch) -> Composition:
        """Score a batch of B rows.

        Rewards run at once, each within its time limit; what they return is checked, normalised, weighed by name,
        aggregated and gated. Running statistics are updated if ``batch.training``.

        Raises:
            BatchError: A reward misses a column.
            RewardError: A reward failed whose policy is ``raise``.
            RlaifError: A reward failed in a way that trying again cannot mend, such as a refused key.
        """
        batches = {}
        for name, component in self.components.items():
            batches[name] = batch.with_columns(component.columns)
            require_columns(component.reward, batches[name], name)
        outcomes = run_all(self._runners, batches)
        answers = {
            name: _checked(name, outcome, len(batch), self.components[name].reward)
            for name, outcome in outcomes.items()
        }
        seconds = {name: outcome.seconds for name, outcome in outcomes.items()}
        with self._lock:
            composition = self._combine(batch, answers, seconds)
        for observer in self.observers:
            observer(composition)
        return composition

    async def acompose(self, batch: RewardBatch) -> Composition:
        """`compose` for use within a running event loop."""
        return await asyncio.to_thread(self.compose, batch)

    def _combine(self, batch: RewardBatch, answers: Mapping[str, Answer], seconds: Mapping[str, float]) -> Composition:
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
        before_B = np.where(dropped_B, np.nan, totals_B)
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
        """Go on from a saved state.

        Raises:
            StateError: It is of other rewards, of other versions of them, or of other normalizers. Nothing is loaded
                then.
        """
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

    def close(self) -> None:
        """Close the rewards and end their threads."""
        for runner in self._runners.values():
            runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _oriented_range(reward: Reward) -> tuple[float, float] | None:
    if reward.range is None or reward.higher_is_better:
        return reward.range
    low, high = reward.range
    return -high, -low


def _checked(name: str, outcome: Outcome, rows: int, reward: Reward) -> Answer:
    error: RewardError | None = outcome.error
    if error is None:
        try:
            return check_answer(outcome.answer, rows, reward.range)
        except RewardError as refused:
            error = refused
    problem = f"{error.message} ({error.hint})" if error.hint else error.message
    return Answer(np.full(rows, np.nan), dict.fromkeys(range(rows), problem), ())


def _normalized(component: Component, part: Settled, group_B: Labels | None, *, training: bool) -> Array:
    sign = 1.0 if component.reward.higher_is_better else -1.0
    if training:
        component.normalizer.update(sign * part.observed, group_B)
    return component.normalizer.normalize(sign * part.values, group_B)
