"""A composer as the reward of TRL's online trainers: GRPO, RLOO and online DPO.

Nothing of TRL is imported. What is relied on of it, and of transformers, is named in
``tests/integrations/test_trl_contract.py``, which fails when it changes.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from rlaif_sdk.composer.aggregators import WeightedSum
from rlaif_sdk.composer.all_gather import torch_all_gather
from rlaif_sdk.composer.weights import Schedule
from rlaif_sdk.conversations import USER, read
from rlaif_sdk.exceptions import BatchError, ConfigError, ConversationError, RewardError, TrainingError
from rlaif_sdk.integrations.environments import COLUMN as OWN_REWARD
from rlaif_sdk.integrations.environments import own_rewards
from rlaif_sdk.integrations.samples import Scored
from rlaif_sdk.statistics.arrays import json_number
from rlaif_sdk.types import RESERVED_COLUMNS, Progress, RewardBatch, TextOrConversation, TrainerArguments

if TYPE_CHECKING:
    from rlaif_sdk.composer.combiner import Combiner
    from rlaif_sdk.composer.component import Component
    from rlaif_sdk.composer.composition import Composition
    from rlaif_sdk.composer.weights import Weight


class BatchComposer(Protocol):
    """What an adapter asks of the `rlaif_sdk.Composer` that hands itself to it."""

    combiner: Combiner
    components: dict[str, Component]
    fallbacks: dict[str, Component]

    @property
    def weights(self) -> dict[str, Weight]:
        """The weights by name, as configured."""

    def compose(self, batch: RewardBatch) -> Composition:
        """Score a batch."""

    def submit(self, batch: RewardBatch) -> Future[Composition]:
        """Begin to score a batch."""

    def state_dict(self) -> dict[str, Any]:
        """What must survive a checkpoint, as JSON values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a saved state."""


def check_columns(*datasets: Any) -> None:
    """Refuse columns of reserved names; each is a dataset, a mapping of name to one, or None.

    Raises:
        BatchError: There is such a column.
    """
    for dataset in datasets:
        for part in dataset.values() if isinstance(dataset, Mapping) else [dataset]:
            for name in sorted(RESERVED_COLUMNS.intersection(getattr(part, "column_names", None) or ())):
                raise BatchError(f"the column {name!r} has a reserved name", hint="rename the column in the dataset")


def check_functions(trainer: Any, weights: Mapping[str, float] | None, *, composers: int) -> None:
    """Refuse a trainer's reward functions and how it adds them up.

    Args:
        trainer: The trainer.
        weights: The weight of each function by name, if there is one a reward.
        composers: How many composers it has.

    Raises:
        ConfigError: Two functions have one name, there are several composers, or the rewards are separate and are not
            all there, with their weights, normalised before they are summed.
    """
    names = trainer.reward_func_names
    if composers > 1:
        raise ConfigError("the trainer has two composers", key="reward_funcs", hint="put all rewards into one")
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"two reward functions are named {name!r}", key="reward_funcs", hint="TRL mixes their logs"
            )
    if weights is None:
        return
    if getattr(trainer, "multi_objective_aggregation", None) != "normalize_then_sum":
        raise ConfigError(
            "separate rewards must be normalised before they are summed",
            key="multi_objective_aggregation",
            hint="set GRPOConfig(multi_objective_aggregation='normalize_then_sum'), or use for_trl() as one function",
        )
    given = dict(zip(names, trainer.reward_weights.tolist(), strict=True))
    for name, weight in weights.items():
        if name not in given:
            raise ConfigError(f"the reward {name!r} is left out", key="reward_funcs", hint="pass all functions")
        if not math.isclose(given[name], weight, rel_tol=1e-6):
            raise ConfigError(
                f"{name!r} has the weight {given[name]:g} in the trainer and {weight:g} in the composition",
                key="reward_weights",
                hint="pass the weights that for_trl(separate=True) returns",
            )


def generations(rows: int, trainer: Any, *, training: bool) -> int:
    """How many completions a prompt has.

    Raises:
        ConfigError: The ``rows`` of this process are no multiple of it, so that the completions to one prompt are
            scored on two processes.
    """
    size: int = trainer.num_generations if training else trainer.num_generations_eval
    if rows % size:
        raise ConfigError(
            f"each process scores {rows} completions at a time, and a prompt has {size}: some prompt's are torn apart",
            key="num_generations" if training else "num_generations_eval",
            hint="make per_device_train_batch_size * steps_per_generation a multiple of it"
            if training
            else "make per_device_eval_batch_size a multiple of it",
        )
    return size


def gdpo_weights(composer: BatchComposer) -> dict[str, float]:
    """The weight of each reward that has one, of a composition that can be taken apart into its rewards.

    Raises:
        ConfigError: Something in it holds only over the total.
    """
    combiner = composer.combiner
    weights, scheduled = {}, []
    for name, weight in composer.weights.items():
        if isinstance(weight, Schedule):
            scheduled.append(name)
        elif weight != 0:
            weights[name] = float(weight)
    for key, found, reason in (
        ("gates", combiner.gates, "gates hold over the total"),
        ("constraints", combiner.multipliers, "constraints are taken off the total"),
        ("groups", combiner.groups, "groups are aggregated before they are weighed"),
        (
            "alarm",
            combiner.alarm and combiner.alarm.changes_rewards,
            "TRL's weights are constant, and the alarm changes some",
        ),
        ("aggregate", type(combiner.aggregator) is not WeightedSum, "TRL adds the rewards up, weighted"),
        ("ask", any(part.ask for part in composer.components.values()), "who is asked follows from the total"),
        ("weights", scheduled, f"TRL's weights are constant, and {', '.join(scheduled)} has a schedule"),
    ):
        if found:
            raise ConfigError(f"{reason}, so rewards cannot be separate", key=key, hint="use for_trl() as one function")
    return weights


def reads_own_rewards(composer: BatchComposer) -> bool:
    """Whether a reward reads what environments say of their rollouts."""
    parts = (*composer.components.values(), *composer.fallbacks.values())
    return any(OWN_REWARD in (part.reward.inputs or ()) for part in parts)


def _asked_class(function: Any) -> type | None:
    """The class of environments whose reward a function of TRL's own asks for; None of any other function."""
    if not inspect.isfunction(function):
        return None
    asked = inspect.signature(function).parameters.get("_env_type")
    return asked.default if asked else None


@dataclass(frozen=True, slots=True)
class Call:
    """What TRL passes to a reward function, B rows."""

    prompts: Sequence[TextOrConversation]
    completions: Sequence[TextOrConversation]
    completion_ids: Sequence[Sequence[int]] | None
    columns: Mapping[str, Sequence[Any]]
    state: Any
    log_extra: Callable[[str, list[Any]], None] | None
    log_metric: Callable[[str, float], None] | None
    environments: Sequence[Any] | None = None

    def trainer(self) -> Any:
        """The trainer that calls, which is the owner of ``log_metric``; None for a call by hand.

        TRL passes a reward everything but whether this is training; the trainer knows.

        Raises:
            TrainingError: The owner is no trainer.
        """
        if self.log_metric is None:
            return None
        trainer = getattr(self.log_metric, "__self__", None)
        if not hasattr(trainer, "num_generations"):
            raise TrainingError(
                "'log_metric' is no method of a trainer, so nothing tells training from evaluation",
                hint="train with GRPOTrainer, RLOOTrainer or OnlineDPOTrainer of TRL 1.16",
            )
        return trainer

    def batch(self, trainer: Any) -> RewardBatch:
        """The batch to compose. A prompt's generations follow each other; by hand, equal prompts do."""
        rows = len(self.completions)
        if trainer is None:
            group: list[int] | None = _runs(self.prompts)
            progress, training = Progress(), False
        else:
            training = trainer.model.training
            size = generations(rows, trainer, training=training)
            group = [row // size for row in range(rows)] if size > 1 else None
            progress = Progress(self.state.global_step, self.state.max_steps or None)
        return RewardBatch(
            prompts=self.prompts,
            completions=self.completions,
            completion_ids=self.completion_ids,
            columns=self.columns,
            group=group,
            progress=progress,
            training=training,
            trainer=None if trainer is None else TrainerArguments(self.state, rows, environments=self.environments),
        )

    def with_own_rewards(self, trainer: Any) -> Call:
        """The same with what the environments say of their rollouts, in a column."""
        if self.environments is None:
            return self
        said = own_rewards(self.environments, getattr(trainer, "async_loop", None))
        return replace(self, columns={**self.columns, OWN_REWARD: said})


def _runs(prompts: Sequence[TextOrConversation]) -> list[int]:
    """Labels from 0; neighbours that are equal share one."""
    asked = [prompt if isinstance(prompt, str) else _turns(prompt) for prompt in prompts]
    return list(accumulate((one != other for one, other in pairwise(asked)), initial=0))[: len(prompts)]


def _turns(prompt: Any) -> Any:
    """The turns of a prompt, by which arrays and null fields compare as what they say; one without any as it is shown."""
    try:
        return read(prompt, role=USER)
    except ConversationError:
        return repr(prompt)


def is_online_dpo(call: Call) -> bool:
    """Whether `trl.experimental.online_dpo.OnlineDPOTrainer` calls: it passes its state, and nothing to log with."""
    return call.state is not None and call.log_metric is None


def generates_pairs(trainer: Any) -> bool:
    """Whether a trainer generates both completions to a prompt at once, as online DPO does."""
    return not hasattr(trainer.args, "steps_per_generation")


def pairs(call: Call) -> RewardBatch:
    """The batch to compose: P prompts' first completions, then their second ones, a group for each prompt.

    It is a training batch: online DPO scores nothing else.

    Raises:
        TrainingError: The second half of the prompts is not the first half again.
    """
    count = len(call.completions) // 2
    if 2 * count != len(call.prompts) or list(call.prompts[:count]) != list(call.prompts[count:]):
        raise TrainingError(
            "'trainer_state' came without 'log_metric', and the prompts are not two completions' to each",
            hint="train with GRPOTrainer, RLOOTrainer or OnlineDPOTrainer of TRL 1.16",
        )
    return RewardBatch(
        prompts=call.prompts,
        completions=call.completions,
        completion_ids=call.completion_ids,
        columns=call.columns,
        group=[*range(count), *range(count)],
        progress=Progress(call.state.global_step, call.state.max_steps or None),
        training=True,
        trainer=TrainerArguments(call.state, len(call.completions)),
    )


def refuse_unscored(composition: Composition) -> None:
    """Stop where a completion is unscored: TRL would count it as 0, and choose or reject it for that.

    Raises:
        RewardError: A row has no total; says why.
    """
    unscored = np.flatnonzero(np.isnan(composition.totals))
    if len(unscored):
        reason = Scored(composition, int(unscored[0])).reason
        raise RewardError(
            f"{len(unscored)} of {len(composition)} completions are unscored, which online DPO would count as 0: {reason}",
            hint="give the reward a default or a fallback under 'on_failure', or train with `rlaif iterate`, "
            "which leaves such pairs out",
        )


Generate: TypeAlias = Callable[[list[TextOrConversation], Any], Mapping[str, Any]]
"""A ``rollout_func``: of B prompts and the trainer, ``prompt_ids``, ``completion_ids``, ``logprobs`` and other fields."""

_REQUIRED = ("prompt_ids", "completion_ids", "logprobs")
_NO_COLUMNS = {"prompt", "completion", "completion_ids"}
"""What TRL leaves out of the columns that it passes to rewards."""


def generate_as_trainer(prompts: list[TextOrConversation], trainer: Any) -> dict[str, Any]:
    """Generate as the trainer does without a ``rollout_func``: with transformers or vLLM, as its settings say.

    Raises:
        ConfigError: A prompt has an image, which a ``rollout_func`` cannot hand back.
    """
    prompt_ids, images, fields = trainer._tokenize_prompts(prompts)  # noqa: SLF001 - TRL has no public way; see the contract
    if images is not None:
        raise ConfigError("a prompt has an image", key="rollout_func", hint="train without 'rollout_func'")
    size = trainer.num_generations if trainer.model.training else trainer.num_generations_eval
    completion_ids, logprobs = trainer._generate_single_turn(prompt_ids, images, fields, size)  # noqa: SLF001
    return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "logprobs": logprobs}


class OverlappingRollout:
    """A ``rollout_func`` that generates micro-batches and submits each to the composer before it generates the next.

    `rlaif_sdk.integrations.trl.TRLReward.overlapped` makes it.
    """

    def __init__(self, scoring: Scoring, generate: Generate, micro_batch: int) -> None:
        if micro_batch < 1:
            raise ConfigError(f"a micro-batch has at least 1 prompt, not {micro_batch}", key="micro_batch")
        self._scoring = scoring
        self._generate = generate
        self._micro_batch = micro_batch
        self._trainer: Any = None
        self._columns: PromptColumns | None = None

    def __call__(self, prompts: list[TextOrConversation], trainer: Any) -> dict[str, Any]:
        """Generate the completions of B prompts, each of which stands there once for each completion.

        Raises:
            BatchError: A reward misses a column.
            ConfigError: See `rlaif_sdk.integrations.trl.TRLReward.overlapped`.
        """
        if not trainer.model.training:
            return dict(self._generate(prompts, trainer))
        if self._columns is None or trainer is not self._trainer:
            _check_rollout(trainer)
            self._columns, self._trainer = PromptColumns(trainer.train_dataset), trainer
        self._scoring.prepare(trainer)
        rows = self._micro_batch * generations(len(prompts), trainer, training=True)
        under_way = self._scoring.under_way
        under_way.cancel()
        parts = []
        try:
            for start in range(0, len(prompts), rows):
                some = prompts[start : start + rows]
                part = _by_row(self._generate(some, trainer), len(some))
                under_way.submit(_rollout_call(some, part, self._columns, trainer).batch(trainer))
                parts.append(part)
        except BaseException:
            under_way.cancel()
            raise
        return {key: _joined([part[key] for part in parts]) for key in parts[0]}


class UnderWay:
    """The micro-batches of a rollout that are being scored, in order."""

    def __init__(self, composer: BatchComposer) -> None:
        self._composer = composer
        self._batches: list[tuple[RewardBatch, Future[Composition]]] = []

    def submit(self, batch: RewardBatch) -> None:
        """Begin to score one more."""
        self._batches.append((batch, self._composer.submit(batch)))

    def take(self, call: Call) -> list[Composition]:
        """Wait for those that are under way, none after that; empty when there were none.

        Raises:
            TrainingError: The call is about other prompts or completions.
        """
        batches = [batch for batch, _ in self._batches]
        try:
            for name in ("prompts", "completions") if batches else ():
                if [value for batch in batches for value in getattr(batch, name)] != list(getattr(call, name)):
                    raise TrainingError(
                        f"TRL asks to score other {name} than those that were generated",
                        hint="train without 'rollout_func'",
                    )
            return [future.result() for _, future in self._batches]
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Give up what is not finished."""
        for _, future in self._batches:
            future.cancel()
        self._batches = []


class PromptColumns:
    """The columns of a dataset by prompt.

    Raises:
        ConfigError: A prompt stands in two rows that differ in a column, or the dataset has no rows to look up.
    """

    def __init__(self, dataset: Any) -> None:
        if not hasattr(dataset, "column_names") or not hasattr(dataset, "__getitem__"):
            raise ConfigError(
                "the columns of a streamed dataset cannot be looked up",
                key="rollout_func",
                hint="load the dataset, or train without 'rollout_func'",
            )
        self._dataset = dataset
        self._names = [name for name in dataset.column_names if name not in _NO_COLUMNS]
        self._row: dict[str, int] = {}
        if not self._names:
            return
        plain = dataset.with_format(None)
        for row, prompt in enumerate(plain["prompt"]):
            first = self._row.setdefault(_prompt_key(prompt), row)
            for name in self._names if first != row else ():
                if plain[first][name] != plain[row][name]:
                    raise ConfigError(
                        f"rows {first + 1} and {row + 1} have one prompt and differ in {name!r}, and TRL tells a rollout the "
                        "prompt alone",
                        key="rollout_func",
                        hint="remove the column or one of the rows, or train without 'rollout_func'",
                    )

    def of(self, prompts: Sequence[TextOrConversation]) -> dict[str, list[Any]]:
        """A value a prompt of each column.

        Raises:
            ConfigError: A prompt is not in the dataset.
        """
        if not self._names:
            return {}
        found = [self._row.get(_prompt_key(prompt)) for prompt in prompts]
        if None in found:
            raise ConfigError(
                f"a prompt is not in the train_dataset: {str(prompts[found.index(None)])[:80]!r}",
                key="rollout_func",
                hint="train without 'rollout_func'",
            )
        rows = {row: self._dataset[row] for row in set(found)}
        return {name: [rows[row][name] for row in found] for name in self._names}


def _prompt_key(prompt: TextOrConversation) -> str:
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=repr)


def _check_rollout(trainer: Any) -> None:
    """Refuse a trainer whose completions are not what a rollout generated, read as text."""
    tokenizer = _tokenizer(trainer)
    for found, what in (
        (trainer.tools, "tools"),
        (trainer.environments is not None, "environments"),
        (getattr(tokenizer, "response_template", None), "a tokenizer that parses responses"),
        (getattr(tokenizer, "response_schema", None), "a tokenizer that parses responses"),
    ):
        if found:
            raise ConfigError(
                f"the trainer has {what}, which change completions after they were generated",
                key="rollout_func",
                hint="train without 'rollout_func'",
            )


def _tokenizer(trainer: Any) -> Any:
    return getattr(trainer.processing_class, "tokenizer", trainer.processing_class)


def _by_row(generated: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """What was generated, with a list of a value a row in each field; None stays, which says that there are none."""
    part = {
        key: value if value is None or isinstance(value, list) else [value] * rows for key, value in generated.items()
    }
    for key in _REQUIRED:
        if key not in part:
            raise TrainingError(f"'generate' returned no {key!r}", hint="return what TRL asks of a 'rollout_func'")
    for key, value in part.items():
        if value is not None and len(value) != rows:
            raise TrainingError(f"'generate' returned {len(value)} {key!r} for {rows} prompts")
    return part


def _rollout_call(
    prompts: list[TextOrConversation], part: Mapping[str, Any], columns: PromptColumns, trainer: Any
) -> Call:
    """What TRL will pass to the rewards for these rows."""
    texts: list[str] = trainer.processing_class.batch_decode(part["completion_ids"], skip_special_tokens=True)
    completions: list[TextOrConversation] = [
        text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    further = {key: value for key, value in part.items() if key not in {*_REQUIRED, "env_mask"} and value is not None}
    known = {**columns.of(prompts), **further}
    return Call(prompts, completions, part["completion_ids"], known, trainer.state, None, None)


def _joined(parts: Sequence[list[Any] | None]) -> list[Any] | None:
    return [value for part in parts if part is not None for value in part] if parts[0] is not None else None


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
        environments: Sequence[Any] | None = None,
        **columns: Sequence[Any],
    ) -> list[float | None]:
        """One value a completion, None where it is unscored.

        Raises:
            BatchError: A reward misses a column, or the dataset has a column of a reserved name.
            ConfigError: The trainer's settings are refused; see `check`.
            StateError: Training resumes from a checkpoint with the state of another composition.
            RewardError: A reward failed whose policy is ``raise``, or a completion of online DPO is unscored.
            TrainingError: Something else than a trainer of TRL calls.
        """
        call = Call(prompts, completions, completion_ids, columns, trainer_state, log_extra, log_metric, environments)
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
        refused only here: TRL itself stumbles on it, with a TypeError.

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
        self._reads_own_rewards = reads_own_rewards(composer)
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
        """Check a trainer that is new, learn with its other processes, and resume from its checkpoint."""
        if trainer is not self._trainer:
            self.check(trainer)
            self._learn_together()
            if self._reads_own_rewards:
                self._take_over_own_rewards(trainer)
            self._trainer = trainer
        self._resume(trainer.state)

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
        if self._reads_own_rewards:
            call = call.with_own_rewards(trainer)
        if trainer is None:
            return [self._composer.compose(call.batch(None))]
        self.prepare(trainer)
        compositions = self.under_way.take(call) or [self._composer.compose(call.batch(trainer))]
        self._keep(call.state)
        for composition in compositions:
            _report(composition, call, completions=trainer.log_completions)
        _pass_on(compositions, call)
        return compositions

    def _compose_pairs(self, call: Call) -> Composition:
        if self._weights is not None:
            raise ConfigError("online DPO adds rewards up", key="separate", hint="use for_trl() as one function")
        if call.state is not self._state:
            self._learn_together()
        self._resume(call.state)
        composition = self._composer.compose(pairs(call))
        refuse_unscored(composition)
        self._keep(call.state)
        return composition

    def _take_over_own_rewards(self, trainer: Any) -> None:
        """Have TRL count what environments say only within the composition, and still log it under their names.

        TRL adds a function for each class of environments that has a reward of its own, after those it is given, and so
        asks it only when this batch is composed.
        """
        for place, function in enumerate(trainer.reward_funcs):
            if (kind := _asked_class(function)) is not None:
                trainer.reward_funcs[place] = partial(self._said_by, kind)
                trainer.reward_weights[place] = 0.0

    def _said_by(self, kind: type, /, *, environments: Sequence[Any], **_: Any) -> list[float | None]:
        """What environments of a class have said of the rows that the composition scores: TRL drops others."""
        assert self._latest is not None
        (composition,) = self._latest[1]
        said = composition.batch.columns[OWN_REWARD]
        return [
            value if type(environment) is kind and isinstance(value, float) and not math.isnan(total) else None
            for environment, value, total in zip(environments, said, composition.totals, strict=True)
        ]

    def _learn_together(self) -> None:
        combiner = self._composer.combiner
        if combiner.all_gather is None:
            combiner.all_gather = torch_all_gather()

    def _keep(self, state: Any) -> None:
        """Put the composer's state where the trainer's next checkpoint has it."""
        state.stateful_callbacks[STATE_KEY] = {"args": {}, "attributes": self._composer.state_dict()}

    def _resume(self, state: Any) -> None:
        """Resume from the checkpoint that a trainer's new state is of, if it is of one."""
        if state is not self._state:
            if state.global_step:
                self._restore(state)
            self._state = state

    def _restore(self, state: Any) -> None:
        saved = state.stateful_callbacks.get(STATE_KEY)
        if saved is None:
            _logger.warning("the checkpoint holds no state of the composer, which keeps the one it has")
        else:
            self._composer.load_state_dict(saved["attributes"])


def composed_reward(composer: BatchComposer) -> TRLReward:
    """A function that returns the totals. See `rlaif_sdk.Composer.for_trl`."""
    return TRLReward(NAME, Scoring(composer), lambda composition: composition.to_list())


def separate_rewards(composer: BatchComposer) -> tuple[list[TRLReward], list[float]]:
    """A function for each reward that has a weight, and the weights. See `rlaif_sdk.Composer.for_trl`.

    Raises:
        ConfigError: Something in the composition holds only over the total.
    """
    weights = gdpo_weights(composer)
    scoring = Scoring(composer, weights)
    return [TRLReward(name, scoring, _column(name)) for name in weights], list(weights.values())


def _column(name: str) -> Callable[[Composition], Sequence[float | None]]:
    return lambda composition: composition.columns_for_gdpo()[name]


def _pass_on(compositions: Sequence[Composition], call: Call) -> None:
    """Log with the trainer what reward functions have logged of a call's rows."""
    logged = [part for composition in compositions if (part := composition.batch.trainer)]
    if call.log_metric:
        for name, value in (metric for part in logged for metric in part.metrics):
            call.log_metric(name, value)
    if call.log_extra:
        for column in dict.fromkeys(column for part in logged for column in part.extras):
            parts = (part.extras.get(column, [None] * part.size) for part in logged)
            call.log_extra(column, [value for part in parts for value in part])


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
            call.log_extra(f"{name}/raw", [*map(json_number, column.raw)])
            call.log_extra(f"{name}/reason", [column.reason(row) or "" for row in rows])
