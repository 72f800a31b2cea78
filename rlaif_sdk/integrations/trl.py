"""A composer as the reward of TRL's online trainers: GRPO, RLOO and online DPO.

Nothing of TRL is imported. What is relied on of it, and of transformers, is named in
``tests/integrations/test_trl_contract.py``, which fails when it changes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlaif_sdk.composer.all_gather import torch_all_gather
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.integrations.trl_call import Call
from rlaif_sdk.integrations.trl_checks import check_columns, check_functions, gdpo_weights, generations
from rlaif_sdk.integrations.trl_online_dpo import generates_pairs, is_online_dpo, pairs, refuse_unscored
from rlaif_sdk.integrations.trl_rollout import Generate, OverlappingRollout, UnderWay, generate_as_trainer
from rlaif_sdk.types import TextOrConversation

if TYPE_CHECKING:
    from rlaif_sdk.composer.combiner import BatchComposer
    from rlaif_sdk.composer.composition import Composition

NAME = "composed_reward"
"""What TRL calls the total in its metrics: ``rewards/composed_reward/mean``."""
STATE_KEY = "rlaif_sdk.composer"
"""Where the composer's state stands in a checkpoint: in ``trainer_state.json``, among that of the callbacks."""

_logger = logging.getLogger(__name__)


class TRLReward:
    """A reward function for ``reward_funcs`` of `trl.GRPOTrainer`, `trl.RLOOTrainer` and TRL's ``OnlineDPOTrainer``.

    `rlaif_sdk.Composer.for_trl` makes it. Called by hand, without what a trainer passes, it scores and learns nothing.

    Attributes:
        __name__: Its name in TRL's metrics.
        scoring: What scores, shared by the functions of one composer.
    """

    __name__: str

    def __init__(self, name: str, scoring: Scoring, values: Callable[[Composition], Sequence[float | None]]) -> None:
        self.__name__ = name
        self.scoring = scoring
        self._values = values

    def __call__(
        self,
        /,
        *,
        prompts: Sequence[TextOrConversation],
        completions: Sequence[TextOrConversation],
        completion_ids: Sequence[Sequence[int]] | None = None,
        trainer_state: Any = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        environments: Any = None,
        **columns: Sequence[Any],
    ) -> list[float | None]:
        """One value a completion, None where it is unscored.

        Raises:
            BatchError: A reward misses a column, or the dataset has a column of a reserved name.
            ConfigError: The trainer's settings are refused; see `check`.
            StateError: Training goes on from a checkpoint with the state of another composition.
            RewardError: A reward failed whose policy is ``raise``, or a completion of online DPO is unscored.
            TrainingError: Something else than a trainer of TRL calls.
        """
        del environments
        call = Call(prompts, completions, completion_ids, columns, trainer_state, log_extra, log_metric)
        compositions = self.scoring.compositions(self.__name__, call)
        return [value for composition in compositions for value in self._values(composition)]

    def overlapped(self, *, micro_batch: int = 1, generate: Generate = generate_as_trainer) -> OverlappingRollout:
        """A ``rollout_func`` for `trl.GRPOTrainer` that has completions scored while it generates the next.

        This function, and those that were made with it, then wait for what is under way and return it. Each micro-batch
        is composed by itself: running statistics, multipliers and metrics go from one to the next. Evaluation is
        generated and scored as without.

        Args:
            micro_batch: Prompts at a time, each with all its completions, so that no group is cut.
            generate: A ``rollout_func`` that generates the completions of a micro-batch; its further fields are
                columns. As the trainer itself does if it is not given.

        Raises:
            ConfigError: ``micro_batch`` is below 1. The rollout raises it before it generates, for a trainer with tools
                or environments, with a tokenizer that parses responses, or with a dataset whose columns are not known
                from the prompt.
        """
        return OverlappingRollout(self.scoring, generate, micro_batch)

    def check(self, trainer: Any) -> None:
        """Refuse a trainer that cannot train on this reward, before it generates anything.

        The first batch is refused for the same reasons. A dataset's column called ``prompts`` or ``completions`` is
        told of here alone: TRL itself stumbles on it, with a TypeError.

        Raises:
            BatchError: A dataset has a column of a reserved name.
            ConfigError: Two functions have one name, the trainer has a second composer, the completions to one prompt
                would be scored on two processes, or the rewards are separate and the settings are not GDPO's.
        """
        self.scoring.check(trainer)


class Scoring:
    """Scores each batch once, for all functions that are called with it.

    Args:
        composer: What scores. It stays the caller's to close.
        weights: The weight of each function by name, if there is one a reward.
    """

    def __init__(self, composer: BatchComposer, weights: Mapping[str, float] | None = None) -> None:
        self._composer = composer
        self._weights = weights
        self._trainer: Any = None
        self._state: Any = None
        self._latest: tuple[Sequence[TextOrConversation], list[Composition]] | None = None
        self._served: set[str] = set()
        self.under_way = UnderWay(composer)

    def check(self, trainer: Any) -> None:
        """See `TRLReward.check`."""
        check_columns(trainer.train_dataset, trainer.eval_dataset)
        others = [getattr(function, "scoring", self) for function in trainer.reward_funcs]
        check_functions(trainer, self._weights, composers=len(set(map(id, [*others, self]))))
        if not generates_pairs(trainer):
            args = trainer.args
            generations(args.per_device_train_batch_size * args.steps_per_generation, trainer, training=True)

    def prepare(self, trainer: Any) -> None:
        """Check a trainer that is new, learn with its other processes, and go on from its checkpoint."""
        if trainer is not self._trainer:
            self.check(trainer)
            self._learn_together()
            self._trainer = trainer
        self._go_on(trainer.state)

    def compositions(self, function: str, call: Call) -> list[Composition]:
        """What a call's rows come to: composed anew, unless another function was called with the same batch before."""
        if self._latest is None or self._latest[0] is not call.completions or function in self._served:
            self._latest, self._served = None, set()
            self._latest = call.completions, self._compose(call)
        self._served.add(function)
        return self._latest[1]

    def _compose(self, call: Call) -> list[Composition]:
        if is_online_dpo(call):
            return [self._compose_pairs(call)]
        trainer = call.trainer()
        if trainer is None:
            return [self._composer.compose(call.batch(None))]
        self.prepare(trainer)
        compositions = self.under_way.take(call) or [self._composer.compose(call.batch(trainer))]
        self._keep(call.state)
        for composition in compositions:
            _report(composition, call, completions=trainer.log_completions)
        return compositions

    def _compose_pairs(self, call: Call) -> Composition:
        if self._weights is not None:
            raise ConfigError("online DPO adds rewards up", key="separate", hint="use for_trl() as one function")
        if call.state is not self._state:
            self._learn_together()
        self._go_on(call.state)
        composition = self._composer.compose(pairs(call))
        refuse_unscored(composition)
        self._keep(call.state)
        return composition

    def _learn_together(self) -> None:
        combiner = self._composer.combiner
        if combiner.all_gather is None:
            combiner.all_gather = torch_all_gather()

    def _keep(self, state: Any) -> None:
        """Put the composer's state where the trainer's next checkpoint has it."""
        state.stateful_callbacks[STATE_KEY] = {"args": {}, "attributes": self._composer.state_dict()}

    def _go_on(self, state: Any) -> None:
        """Go on from the checkpoint that a trainer's new state is of, if it is of one."""
        if state is not self._state:
            if state.global_step:
                self._restore(state)
            self._state = state

    def _restore(self, state: Any) -> None:
        saved = state.stateful_callbacks.get(STATE_KEY)
        if saved is None:
            _logger.warning("the checkpoint holds no state of the composer, which goes on as it is")
        else:
            self._composer.load_state_dict(saved["attributes"])


def composed_reward(composer: BatchComposer) -> TRLReward:
    """A function that returns the totals. See `rlaif_sdk.Composer.for_trl`."""
    return TRLReward(NAME, Scoring(composer), lambda composition: composition.to_list())


def separate_rewards(composer: BatchComposer) -> tuple[list[TRLReward], list[float]]:
    """A function for each reward that has a weight, and the weights. See `rlaif_sdk.Composer.for_trl`.

    Raises:
        ConfigError: Something in the composition holds over the total alone.
    """
    weights = gdpo_weights(composer)
    scoring = Scoring(composer, weights)
    return [TRLReward(name, scoring, _column(name)) for name in weights], list(weights.values())


def _column(name: str) -> Callable[[Composition], Sequence[float | None]]:
    return lambda composition: composition.columns_for_gdpo()[name]


def _report(composition: Composition, call: Call, *, completions: bool) -> None:
    """Metrics for TRL's log and, if it shows completions, each reward's raw score and reason beside them.

    What is not a number is left out: TRL averages over batches and processes.
    """
    if call.log_metric:
        for name, value in composition.metrics().items():
            if math.isfinite(value):
                call.log_metric(name, value)
    if completions and call.log_extra:
        rows = range(len(composition))
        for name, column in composition.rewards.items():
            call.log_extra(f"{name}/raw", [None if math.isnan(raw) else float(raw) for raw in column.raw])
            call.log_extra(f"{name}/reason", [column.reason(row) or "" for row in rows])
