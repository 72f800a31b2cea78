"""The composer: a batch in, one explained number a row out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rlaif_sdk.composer.aggregate import Aggregator
from rlaif_sdk.composer.combiner import Combiner
from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.composer.constraints import Constraint
from rlaif_sdk.composer.execution import Outcome, Runner, run_all
from rlaif_sdk.composer.gates import Gate, GateOrder
from rlaif_sdk.composer.nesting import Group
from rlaif_sdk.composer.sync import Sync
from rlaif_sdk.composer.validation import Answer, check_answer
from rlaif_sdk.composer.weights import Weight
from rlaif_sdk.exceptions import ConfigError, RewardError
from rlaif_sdk.rewards import Reward, as_reward, require_columns
from rlaif_sdk.types import RewardBatch

if TYPE_CHECKING:
    from rlaif_sdk.config import CompositionConfig
    from rlaif_sdk.plugins import Registry


class Composer:
    """Scores batches with several rewards at once and makes one number a row of them.

    Args:
        rewards: Rewards by name: a `Component`, a `Reward`, a plain function, or an object with ``score(batch)``.
        weights: Weights by name, numbers or schedules, for rewards that are not given as a `Component`.
        gates: Conditions over the whole sum, applied in order.
        gate_order: ``lexicographic`` if a row that fails an earlier gate must rank below one that fails a later one.
        aggregator: How the weighted rewards become one number; `WeightedSum` if None.
        groups: Rewards that are aggregated among themselves before they enter the whole, by name.
        constraints: Bounds on the mean of a reward, held by multipliers that are learned.
        sync: Brings together what all ranks observed, so that statistics, multipliers and schedules are the same on
            each: `rlaif_sdk.composer.sync.torch_sync` makes one. The rows of a group must be on one rank. None: this
            process learns by itself.
        observers: Called with each finished composition.

    Raises:
        ConfigError: A weight is not finite, names nobody, or all are 0; a gate, group, constraint or schedule names
            nobody; a normalizer does not fit its reward; an aggregator does not fit the weights; lexicographic gates
            have floors out of order.
        TypeError: A value is no reward.
    """

    def __init__(
        self,
        rewards: Mapping[str, Any],
        *,
        weights: Mapping[str, Weight] | None = None,
        gates: Sequence[Gate] = (),
        gate_order: GateOrder = "independent",
        aggregator: Aggregator | None = None,
        groups: Mapping[str, Group] | None = None,
        constraints: Sequence[Constraint] = (),
        sync: Sync | None = None,
        observers: Sequence[Callable[[Composition], None]] = (),
    ) -> None:
        weights = weights or {}
        parts = {
            name: value if isinstance(value, Component) else Component(value, weight=weights.get(name, 1.0))
            for name, value in rewards.items()
        }
        self.components = {name: replace(part, reward=as_reward(part.reward)) for name, part in parts.items()}
        for name in weights:
            if name not in self.components:
                raise ConfigError(f"a weight names {name!r}; there are {', '.join(self.components)}", key="weights")
            if isinstance(rewards[name], Component):
                raise ConfigError(f"{name!r} is given a weight twice: 'weights' is for bare rewards", key="weights")
        self.combiner = Combiner(
            self.components,
            gates=gates,
            gate_order=gate_order,
            aggregator=aggregator,
            groups=groups,
            constraints=constraints,
            sync=sync,
        )
        self.observers = tuple(observers)
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

    @property
    def weights(self) -> dict[str, Weight]:
        """The weights by name, as configured."""
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
            composition = self.combiner.combine(batch, answers, seconds)
        for observer in self.observers:
            observer(composition)
        return composition

    async def acompose(self, batch: RewardBatch) -> Composition:
        """`compose` for use within a running event loop."""
        return await asyncio.to_thread(self.compose, batch)

    def state_dict(self) -> dict[str, Any]:
        """What must survive a checkpoint, as JSON values: running statistics, multipliers, how far schedules are.

        With ``sync`` it is the same on every rank, so that one rank may save it for all.
        """
        with self._lock:
            return self.combiner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            StateError: It is of other rewards, or of the same with another version, weight, normalizer, constraint,
                or other parameters; the message names what differs. Nothing is loaded then.
        """
        with self._lock:
            self.combiner.load_state_dict(state)

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


def _checked(name: str, outcome: Outcome, rows: int, reward: Reward) -> Answer:
    error: RewardError | None = outcome.error
    if error is None:
        try:
            return check_answer(outcome.answer, rows, reward.range)
        except RewardError as refused:
            error = refused
    problem = f"{error.message} ({error.hint})" if error.hint else error.message
    return Answer(np.full(rows, np.nan), dict.fromkeys(range(rows), problem), (), error)
