"""The composer: a batch in, one explained number a row out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np

from rlaif_sdk.composer.aggregate import Aggregator
from rlaif_sdk.composer.combiner import Combiner
from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.composer.constraints import Constraint
from rlaif_sdk.composer.execution import Budget, Outcome, Runner, described, wait_all
from rlaif_sdk.composer.fallback import check_fallbacks, with_fallback
from rlaif_sdk.composer.gates import Gate, GateOrder
from rlaif_sdk.composer.ledger import Ledger
from rlaif_sdk.composer.nesting import Group
from rlaif_sdk.composer.signs import warn_of_turned_costs
from rlaif_sdk.composer.submission import Finisher, Pending, Turns
from rlaif_sdk.composer.sync import Sync
from rlaif_sdk.composer.validation import Answer, check_answer
from rlaif_sdk.composer.weights import Weight
from rlaif_sdk.config import BudgetConfig
from rlaif_sdk.exceptions import ConfigError, RewardError
from rlaif_sdk.rewards import Reward, as_reward, require_columns
from rlaif_sdk.types import RewardBatch

if TYPE_CHECKING:
    from rlaif_sdk.config import CompositionConfig
    from rlaif_sdk.integrations.trl import TRLReward
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
        fallbacks: Rewards that stand in where one fails whose component names them, by name.
        budget: What all rewards may spend together.
        ledger: Keeps scores, so that none is paid for twice, and records what is composed.
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
        fallbacks: Mapping[str, Any] | None = None,
        budget: BudgetConfig | None = None,
        ledger: Ledger | None = None,
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
        warn_of_turned_costs(self.components)
        self.observers = tuple(observers)
        self.fallbacks = {name: _component(value) for name, value in (fallbacks or {}).items()}
        check_fallbacks(self.components, self.fallbacks)
        self._budget = Budget(budget or BudgetConfig(), "the composition")
        self.ledger = ledger
        self._recorder = ledger.recorder(self.components) if ledger else None
        self._runners = {name: self._runner(name, part) for name, part in self.components.items()}
        self._fallback_runners = {name: self._runner(name, part) for name, part in self.fallbacks.items()}
        self._turns = Turns()
        self._finisher = Finisher(self._finish)
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
        from rlaif_sdk.composer.build import build_composer

        return build_composer(source, registry=registry)

    @property
    def weights(self) -> dict[str, Weight]:
        """The weights by name, as configured."""
        return {name: component.weight for name, component in self.components.items()}

    def _runner(self, name: str, part: Component) -> Runner:
        return Runner(
            name,
            part.reward,
            timeout=part.timeout,
            setup_timeout=part.setup_timeout,
            execution=part.execution,
            recipe=part.recipe,
            budgets=[self._budget],
            recall=self.ledger.recall(name, part) if self.ledger else None,
        )

    def compose(self, batch: RewardBatch) -> Composition:
        """Score a batch of B rows.

        Rewards run at once, each within its time limit; what they return is checked, normalised, weighed by name,
        aggregated and gated. Running statistics are updated if ``batch.training``.

        Raises:
            BatchError: A reward misses a column.
            BudgetExceededError: A budget is spent.
        LedgerError: The ledger cannot be read or written.
            RewardError: A reward failed whose policy is ``raise``.
            RlaifError: A reward failed in a way that trying again cannot mend, such as a refused key.
        """
        return self._finish(self._begin(batch))

    def submit(self, batch: RewardBatch) -> Future[Composition]:
        """Begin to score a batch and return at once, so that the next can be generated meanwhile.

        Batches are finished in the order of submission, and so learn running statistics; the rewards of a later one may
        be called while an earlier one still waits for a slower reward. Observers are called in a thread of the
        composer. Cancelling the future gives the calls up.

        Raises:
            BatchError: A reward misses a column. What `compose` raises otherwise, the future raises.
        """
        return self._finisher.submit(lambda: self._begin(batch))

    async def acompose(self, batch: RewardBatch) -> Composition:
        """`compose` for use within a running event loop."""
        return await asyncio.wrap_future(self.submit(batch))

    def _begin(self, batch: RewardBatch) -> Pending:
        for name, part in (*self.components.items(), *self.fallbacks.items()):
            require_columns(part.reward, batch.with_columns(part.columns), name)
        turn = self._turns.take()
        calls = {
            name: runner.start(batch.with_columns(self.components[name].columns))
            for name, runner in self._runners.items()
        }
        return Pending(batch, turn, calls)

    def _finish(self, pending: Pending) -> Composition:
        batch = pending.batch
        try:
            outcomes = wait_all(pending.calls)
            answers = {
                name: _checked(outcome, batch, self.components[name].reward) for name, outcome in outcomes.items()
            }
            answers |= self._stand_in(batch, answers)
            seconds = {name: outcome.seconds for name, outcome in outcomes.items()}
            pending.turn.wait()
            with self._lock:
                composition = self.combiner.combine(batch, answers, seconds)
            if self._recorder:
                self._recorder.write(composition)
        finally:
            pending.turn.done()
        for observer in self.observers:
            observer(composition)
        return composition

    def _stand_in(self, batch: RewardBatch, answers: Mapping[str, Answer]) -> dict[str, Answer]:
        """The answers of the rewards that have a fallback, with its scores where they failed."""
        named = {name: part.fallback for name, part in self.components.items() if part.fallback is not None}
        rows = {name: sorted(answers[name].failures) for name in named}
        asked = {name: batch.select(failed) for name, failed in rows.items() if failed}
        calls = {}
        for name, seen in asked.items():
            columns = self.fallbacks[named[name]].columns
            calls[name] = self._fallback_runners[named[name]].start(seen.with_columns(columns))
        others = {
            name: _checked(outcome, asked[name], self.fallbacks[named[name]].reward)
            for name, outcome in wait_all(calls).items()
        }
        return {
            name: with_fallback(answers[name], rows[name], others.get(name), fallback)
            for name, fallback in named.items()
        }

    @overload
    def for_trl(self, *, separate: Literal[False] = False) -> TRLReward: ...

    @overload
    def for_trl(self, *, separate: Literal[True]) -> tuple[list[TRLReward], list[float]]: ...

    def for_trl(self, *, separate: bool = False) -> TRLReward | tuple[list[TRLReward], list[float]]:
        """This composer as ``reward_funcs`` of `trl.GRPOTrainer`, `trl.RLOOTrainer` or TRL's experimental ``OnlineDPOTrainer``.

        Evaluation teaches it nothing, TRL's checkpoints hold its state, and several processes learn as one. Online DPO
        has no word for an unscored completion, so it ends there with a `RewardError`.

        Args:
            separate: For GDPO, ``GRPOConfig(multi_objective_aggregation="normalize_then_sum", reward_weights=weights)``:
                a function for each reward that has a weight, and the weights. A batch is still scored once.

        Returns:
            One function that returns the totals; with ``separate``, the functions and their weights.

        Raises:
            ConfigError: The rewards cannot be separate: there are gates, constraints, groups, schedules, or another
                aggregator than the weighted sum.
        """
        from rlaif_sdk.integrations.trl import composed_reward, separate_rewards

        return separate_rewards(self) if separate else composed_reward(self)

    def state_dict(self) -> dict[str, Any]:
        """What must survive a checkpoint, as JSON values: running statistics, multipliers, how far schedules are.

        With ``sync`` it is the same on every rank, so that one rank may save it for all.
        """
        with self._lock:
            spent = {name: budget.state_dict() for name, budget in self._budgets().items()}
            return self.combiner.state_dict() | ({"spent": spent} if spent else {})

    def _budgets(self) -> dict[str, Budget]:
        """The budgets that have a limit: of rewards and fallbacks by name, and that of all under ``""``."""
        runners = (*self._runners.items(), *self._fallback_runners.items())
        budgets = {name: runner.budget for name, runner in runners} | {"": self._budget}
        return {name: budget for name, budget in budgets.items() if budget.is_limited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            StateError: It is of other rewards, or of the same with another version, weight, normalizer, constraint,
                or other parameters; the message names what differs. Nothing is loaded then.
        """
        with self._lock:
            self.combiner.load_state_dict({kind: part for kind, part in state.items() if kind != "spent"})
            for name, budget in self._budgets().items():
                if name in state.get("spent", {}):
                    budget.load_state_dict(state["spent"][name])

    def close(self) -> None:
        """Close the rewards and end their threads and processes; batches under way are given up."""
        for runner in (*self._runners.values(), *self._fallback_runners.values()):
            runner.close()
        self._finisher.stop()
        if self.ledger:
            self.ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _component(value: Any) -> Component:
    component = value if isinstance(value, Component) else Component(value)
    return replace(component, reward=as_reward(component.reward))


def _checked(outcome: Outcome, batch: RewardBatch, reward: Reward) -> Answer:
    rows = len(batch)
    error: RewardError | None = outcome.error
    if error is None:
        try:
            answer = check_answer(outcome.answer, rows, reward.range, batch.completion_ids)
        except RewardError as refused:
            error = refused
        else:
            cached = None if outcome.cached is None else outcome.cached & ~np.isnan(answer.raw)
            return replace(answer, cached=cached)
    return Answer(np.full(rows, np.nan), dict.fromkeys(range(rows), described(error)), (), error)
