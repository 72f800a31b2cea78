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

from rlaif_sdk.composer.aggregators import Aggregator, RewardGroup
from rlaif_sdk.composer.alarm import Alarm
from rlaif_sdk.composer.all_gather import AllGather
from rlaif_sdk.composer.asking import Asking
from rlaif_sdk.composer.build import ConfigSource, composer_arguments, read_composition
from rlaif_sdk.composer.calls import Calls, check_fallbacks
from rlaif_sdk.composer.combiner import Combiner
from rlaif_sdk.composer.component import (
    Component,
    check_names,
    warn_of_inverted_costs,
    warn_of_inverted_rewards,
)
from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.composer.constraints import Constraint
from rlaif_sdk.composer.gates import Gate, GateOrder
from rlaif_sdk.composer.layout import Layout, ends_in_words
from rlaif_sdk.composer.ledger import Ledger
from rlaif_sdk.composer.ledger.ledger import recorded_reward
from rlaif_sdk.composer.ordered_queue import OrderedQueue, Pending
from rlaif_sdk.composer.stages import check_conditions
from rlaif_sdk.composer.weights import Weight
from rlaif_sdk.config import AlarmConfig, BudgetConfig
from rlaif_sdk.exceptions import ConfigError, LedgerError
from rlaif_sdk.io.text import short_repr
from rlaif_sdk.plugins import Registry
from rlaif_sdk.rewards import as_reward
from rlaif_sdk.scoring.checks import CheckedScores
from rlaif_sdk.scoring.factory import errors_placed
from rlaif_sdk.types import RewardBatch

if TYPE_CHECKING:
    from rlaif_sdk.integrations.trl import TRLReward


class Composer:
    """Scores batches with several rewards at once and makes one number a row of them.

    Example:
        >>> from rlaif_sdk import Composer, RewardBatch
        >>> def polite(completion_texts):
        ...     return [float("please" in text.lower()) for text in completion_texts]
        >>> def short(completion_texts):
        ...     return [1 / len(text.split()) for text in completion_texts]
        >>> batch = RewardBatch(prompts=["Ask for salt."] * 2, completions=["The salt, please.", "Salt!"])
        >>> with Composer({"polite": polite, "short": short}, weights={"polite": 1.0, "short": 0.5}) as composer:
        ...     composition = composer.compose(batch)
        >>> [round(total, 3) for total in composition.to_list()]
        [1.167, 0.5]
        >>> composition.rewards["polite"].raw.tolist()
        [1.0, 0.0]

    Args:
        rewards: Rewards by name: a `Component`, a `Reward`, a plain function, or an object with ``score(batch)``.
        weights: Weights by name, numbers or schedules, for rewards that are not given as a `Component`.
        gates: Conditions over the whole sum, applied in order.
        gate_order: ``lexicographic`` if a row that fails an earlier gate must rank below one that fails a later one.
        aggregator: How the weighted rewards become one number; `WeightedSum` if None.
        groups: Rewards that are aggregated among themselves before they enter the whole, by name.
        constraints: Bounds on the mean of a reward, held by multipliers that are learned.
        alarm: What is watched for during training, and what is done about it.
        all_gather: Brings together what all ranks observed, so that statistics, multipliers and schedules are the same on
            each: `rlaif_sdk.composer.all_gather.torch_all_gather` makes one. The rows of a group must be on one rank. None: this
            process learns by itself.
        fallbacks: Rewards that are asked on the rows where one fails whose component names them, by name.
        budget: What all rewards may spend together.
        ledger: Keeps scores, so that none is paid for twice, and records what is composed.
        observers: Called with each finished composition.

    Raises:
        ConfigError: A name is no text, has half a character or is ``total``; a weight is not finite, names no reward, or
            all are 0; a gate, group, constraint or schedule names nobody; conditions of rewards go in a circle; a normalizer does not fit its reward; an aggregator does not fit the weights; lexicographic gates
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
        groups: Mapping[str, RewardGroup] | None = None,
        constraints: Sequence[Constraint] = (),
        alarm: AlarmConfig | None = None,
        all_gather: AllGather | None = None,
        fallbacks: Mapping[str, Any] | None = None,
        budget: BudgetConfig | None = None,
        ledger: Ledger | None = None,
        observers: Sequence[Callable[[Composition], None]] = (),
    ) -> None:
        for kind, names in (("rewards", rewards), ("fallbacks", fallbacks), ("groups", groups)):
            check_names(kind, names or ())
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
            alarm=alarm,
            all_gather=all_gather,
        )
        check_conditions(self.components, gates, constraints)
        for name, part in self.components.items():
            if part.ask and part.ask.past:
                self._warm_start(name, part.ask.past)
        warn_of_inverted_costs(self.components)
        self.observers = tuple(observers)
        self.fallbacks = {name: _component(value) for name, value in (fallbacks or {}).items()}
        check_fallbacks(self.components, self.fallbacks)
        self.ledger = ledger
        self._recorder = ledger.recorder(self.components) if ledger else None
        self._calls = Calls(self.components, self.fallbacks, budget or BudgetConfig(), ledger, self._asking)
        self._queue = OrderedQueue(self._finish)
        self._lock = threading.Lock()

    @classmethod
    def from_config(
        cls,
        source: ConfigSource,
        *,
        registry: Registry | None = None,
        read_only: bool = False,
    ) -> Composer:
        """Build a composer from a YAML or JSON file, a mapping, or a `rlaif_sdk.config.CompositionConfig`.

        Args:
            source: The config. Paths in a file are relative to that file, in a mapping to the working directory.
            registry: The plugins to choose from; the installed ones if None.
            read_only: Look scores up in the config's ledger, and neither keep nor record any.

        Raises:
            ConfigError: Something in it is refused; the message has the file, line and key.
            PluginError: A reward's plugin is unknown, broken, or in conflict with another.
        """
        config, document = read_composition(source)
        arguments = composer_arguments(config, document, registry, read_only=read_only)
        with errors_placed(document):
            composer = cls(**arguments)
        warn_of_inverted_rewards(composer.components)
        return composer

    @property
    def weights(self) -> dict[str, Weight]:
        """The weights by name, as configured."""
        return {name: component.weight for name, component in self.components.items()}

    @property
    def alarm(self) -> Alarm | None:
        """What watches training batches; None where nothing does."""
        return self.combiner.alarm

    def disarm(self) -> None:
        """Let the alarm watch nothing: what is composed from here on is a table, and no training."""
        if self.alarm is not None:
            self.alarm.watching = False

    @property
    def kept(self) -> tuple[str, ...]:
        """The rewards and fallbacks whose scores the ledger keeps, so that they are not asked for again."""
        return self._calls.kept

    def set_up(self) -> None:
        """Load what the rewards and fallbacks need now, rather than at the first batch.

        Raises:
            RewardError: One did not become ready, whatever its failure policy; the message names it.
            RlaifError: Likewise, in a way that trying again cannot mend, such as a missing model or a refused key.
        """
        self._calls.set_up()

    def compose(self, batch: RewardBatch) -> Composition:
        """Score a batch of B rows.

        Rewards run at once, each within its time limit, and one with conditions about the rows that meet them, as soon as
        the rewards have answered that these look at; what they return is checked, normalised, weighed by name,
        aggregated and gated. Running statistics are updated if ``batch.training``.

        Raises:
            AlarmError: It is a training batch, an alarm has ended training, and no trainer does so.
            BatchError: A reward or a condition misses a column.
            BudgetExceededError: A budget is spent.
            LedgerError: The ledger cannot be read or written.
            RewardError: A reward failed whose policy is ``raise``.
            RlaifError: A reward failed in a way that trying again cannot mend, such as a refused key.
        """
        return self._finish(self._begin(batch, here=True))

    def submit(self, batch: RewardBatch) -> Future[Composition]:
        """Begin to score a batch and return at once, so that the next can be generated meanwhile.

        Batches are finished in the order of submission, and so learn running statistics; the rewards of a later one may
        be called while an earlier one still waits for a slower reward. Observers are called in a thread of the
        composer. Cancelling the future gives the calls up.

        Raises:
            BatchError: A reward misses a column. What `compose` raises otherwise, the future raises.
        """
        return self._queue.submit(lambda: self._begin(batch, here=False))

    async def acompose(self, batch: RewardBatch) -> Composition:
        """`compose` for use within a running event loop."""
        return await asyncio.wrap_future(self.submit(batch))

    def map(
        self,
        dataset: Any,
        *,
        prompt: str = "prompt",
        completion: str = "completion",
        group: str | None = None,
        column: str = "reward",
        batch_size: int = 1024,
        training: bool = True,
        num_proc: int | None = None,
    ) -> Any:
        """A `datasets.Dataset` with a column of what `rlaif score` writes: the total, and each reward's values.

        A row's entry is that of `Composition.to_records`, with sub-scores as a list with their names; where a row is unscored its total is null, and each reward says
        its status and reason. `datasets` keeps the result beside the data set's own files, as of any ``map``, and
        takes it from there when the same rows are scored again by equal rewards (code, version, parameters, model),
        weights, normalizers, gates and statistics, in whatever process; one in which a reward failed is scored again, which
        with a ledger costs the failed rows only. A data set that is only in memory is scored each time, and so is one
        with a reward that nothing identifies or that is not cacheable.

        Running statistics learn along the rows as they do in `rlaif score`, from what the composer has learned before; it
        is then put back, so that each call, and each split, begins alike.

        Example:
            >>> from datasets import Dataset
            >>> from rlaif_sdk import Composer
            >>> def short(completion_texts):
            ...     return [1 / len(text.split()) for text in completion_texts]
            >>> dataset = Dataset.from_dict({"prompt": ["Salt?"] * 2, "completion": ["Salt, please.", "Salt!"]})
            >>> with Composer({"short": short}) as composer:
            ...     scored = composer.map(dataset)
            >>> [row["total"] for row in scored["reward"]]
            [0.5, 1.0]
            >>> scored.flatten().column_names[2:5]
            ['reward.total', 'reward.rewards.short.raw', 'reward.rewards.short.normalized']

        Args:
            dataset: A `datasets.Dataset`, or a `datasets.DatasetDict`, of which each split is scored.
            prompt: The column of prompts, text or messages.
            completion: The column of completions, text or messages.
            group: The column that is equal for completions to the same prompt, which stand together and are composed
                together; None takes no groups.
            column: The column to add.
            batch_size: About how many rows are composed at once; more where a group would be cut.
            training: False if running statistics stay as they are.
            num_proc: Of ``Dataset.map``; None or 1, since a composer stays in its process and calls its rewards at once.

        Raises:
            BatchError: A reward misses a column.
            ConfigError: ``num_proc`` is more, or ``batch_size`` less than 1.
            DataError: It is no such data set, or has the column already; a row lacks its prompt or completion, or is of a
                group with others between; names the row. See `compose` for more.
            MissingExtraError: datasets is not installed.
        """
        from rlaif_sdk.composer.dataset_map import DatasetMap
        from rlaif_sdk.composer.tables import TableLayout

        if num_proc not in {None, 1}:
            hint = "raise 'concurrency' or set 'isolation: process' under a reward's 'execution', or score with Ray"
            raise ConfigError("a composer is not sent to other processes", key="num_proc", hint=hint)
        if batch_size < 1:
            raise ConfigError("must be at least 1", key="batch_size")
        layout = TableLayout(prompt, completion, group)
        mapped = DatasetMap(
            self.compose,
            self.combiner,
            self._calls,
            layout=layout,
            column=column,
            batch_size=batch_size,
            training=training,
        )
        return mapped(dataset)

    def _begin(self, batch: RewardBatch, *, here: bool) -> Pending:
        self._calls.check(batch)
        if batch.training and self.alarm is not None:
            self.alarm.refuse_batch()
        return Pending(batch, self._queue.ticket(), self._calls.start(batch, here=here))

    def _warm_start(self, name: str, past: str | Path) -> None:
        """Teach a reward that has an ``ask`` what it answered at the beginning of a ledger's run, whose policy was as new as this.

        Raises:
            ConfigError: There is no such ledger; the run had other rewards, no groups, or too few.
        """
        key = f"rewards.{name}.ask.past"
        try:
            with Ledger.find(past) as ledger:
                run = ledger.run()
                for other, part in self.components.items():
                    if run.rewards.get(other) != recorded_reward(part):
                        found = run.rewards.get(other, "not in it")
                        raise ConfigError(f"{other} is {recorded_reward(part)}, and in {run} {found}")
                skipped = any(entry.answers[name].imputed for entry in ledger.batches(run))
                for entry in ledger.batches(run):
                    if self.combiner.knows_enough_to_ask:
                        break
                    scores = {other: entry.answers[other].answer for other in self.components}
                    self.combiner.warm_start(entry.batch, scores, skipped=skipped)
        except (LedgerError, ConfigError) as error:
            hint = error.hint or "name the ledger of a run with the same rewards, or leave 'past' out"
            raise ConfigError(error.message, key=key, hint=hint) from None
        if not self.combiner.is_ready_to_ask:
            raise ConfigError(
                f"{run} has too few groups that were asked about in full to predict {name}",
                key=key,
                hint="leave 'past' out: this run learns it from its own first batches",
            )

    def _asking(self, batch: RewardBatch, scores: Mapping[str, CheckedScores], rows: Sequence[int]) -> Asking:
        with self._lock:
            return self.combiner.asking(batch, scores, rows)

    def _finish(self, pending: Pending) -> Composition:
        batch = pending.batch
        try:
            scores, seconds = self._calls.finish(batch, pending.calls)
            pending.ticket.wait()
            with self._lock:
                composition = self.combiner.combine(batch, scores, seconds)
            if self._recorder:
                self._recorder.write(composition)
        finally:
            pending.ticket.done()
        for observer in self.observers:
            observer(composition)
        return composition

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

        With ``all_gather`` it is the same on every rank, so that one rank may save it for all.
        """
        with self._lock:
            spent = self._calls.state_dict()
            return self.combiner.state_dict() | ({"spent": spent} if spent else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a saved state.

        Raises:
            StateError: It is of other rewards, or of the same with another version, weight, normalizer, constraint,
                or other parameters; the message names what differs. Nothing is loaded then.
        """
        with self._lock:
            self.combiner.load_state_dict({kind: part for kind, part in state.items() if kind != "spent"})
            self._calls.load_state_dict(state.get("spent", {}))

    def close(self) -> None:
        """Close the rewards and end their threads and processes; batches under way are given up."""
        self._calls.close()
        self._queue.stop()
        if self.ledger:
            self.ledger.close()

    def __repr__(self) -> str:
        return short_repr(f"Composer of {', '.join(self.components)}")

    def _repr_html_(self) -> str:
        """The rewards with their weights and normalizers, for a notebook."""
        rows = [
            (
                name,
                part.reward.name,
                str(part.weight),
                type(part.normalizer).__name__,
                ends_in_words(part.reward.ends),
            )
            for name, part in self.components.items()
        ]
        headings = ("reward", "is", "weight", "normalizer", "ends")
        notes = [
            f"{name} is asked when {part.condition}; otherwise it "
            + ("abstains" if part.otherwise_value is None else f"counts as {part.otherwise_value:g}")
            for name, part in self.components.items()
            if part.when
        ]
        notes += [
            f"{name} is asked where its answer matters: {part.ask}"
            for name, part in self.components.items()
            if part.ask
        ]
        notes += [f"gate {gate}" for gate in self.combiner.gates]
        return Layout("Composer", headings, rows, notes=notes)._repr_html_()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _component(value: Any) -> Component:
    component = value if isinstance(value, Component) else Component(value)
    return replace(component, reward=as_reward(component.reward))
