"""Between the trainer and the composer: rows of a dataset in, scores and their statistics out. B rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import ismethod
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from rlaif_sdk.composer.normalizers import GroupZScore, Normalizer, Passthrough, ZScore
from rlaif_sdk.exceptions import BatchError, ConfigError, DataError, RewardError, StateError
from rlaif_sdk.rewards import as_reward
from rlaif_sdk.training.ppo.rollout import Tokens
from rlaif_sdk.types import RESERVED_COLUMNS, Progress, RewardBatch, TextOrConversation, TrainerArguments


class ScoredColumn(Protocol):
    """What the trainer reads of one reward; B values, NaN where there is none."""

    @property
    def raw(self) -> np.ndarray[Any, Any]:
        """In the reward's own units."""


class ScoredBatch(Protocol):
    """What the trainer reads of a `Composition`."""

    @property
    def totals(self) -> np.ndarray[Any, Any]:
        """B totals, NaN where a row is unscored."""

    @property
    def rewards(self) -> Mapping[str, ScoredColumn]:
        """The rewards by name."""

    def metrics(self) -> dict[str, float]:
        """Statistics for loggers."""


class Composes(Protocol):
    """Anything that scores a batch: a `rlaif_sdk.Composer`, or an object of its shape."""

    def compose(self, batch: RewardBatch) -> ScoredBatch:
        """Score B rows."""


def begin_scoring(composer: Composes, batch: RewardBatch) -> Callable[[], ScoredBatch]:
    """Start to score a batch without waiting: calling what is returned waits for the composition.

    A composer without ``submit`` scores when that is called.
    """
    submit = getattr(composer, "submit", None)
    if callable(submit):
        waiting: Callable[[], ScoredBatch] = submit(batch).result
        return waiting
    return partial(composer.compose, batch)


def build_composer(reward_funcs: Any, weights: Sequence[float] | None = None) -> Composes:
    """The composer to train with.

    Args:
        reward_funcs: A composer, which is used as it is; or a reward, or a function
            ``f(prompts, completions, **columns)``, or a list of these, or a mapping of name to one of these.
        weights: One a reward, in their order; 1.0 each when None.

    Raises:
        ConfigError: Two rewards have one name, there are none, the number of weights differs, or weights were given
            for a composer, which has its own.
        TypeError: Something is no reward.
    """
    if callable(getattr(reward_funcs, "compose", None)):
        if weights is not None:
            raise ConfigError("reward_weights was given along with a composer", hint="set the weights in the composer")
        composer: Composes = reward_funcs
        return composer
    if isinstance(reward_funcs, Mapping):
        rewards = {name: as_reward(value) for name, value in reward_funcs.items()}
    else:
        listed = reward_funcs if isinstance(reward_funcs, (list, tuple)) else [reward_funcs]
        rewards = {}
        for value in listed:
            _refuse_models(value)
            reward = as_reward(value)
            if reward.name in rewards:
                raise ConfigError(
                    f"two rewards are named {reward.name!r}",
                    hint="pass a mapping of name to reward, or give each a name with @reward(name=...)",
                )
            rewards[reward.name] = reward
    if not rewards:
        raise ConfigError("there is no reward", hint="pass a composer, a reward, a function, or a list of these")
    if weights is not None and len(weights) != len(rewards):
        raise ConfigError(
            f"reward_weights has {len(weights)} entries for {len(rewards)} rewards", hint="give one weight a reward"
        )
    from rlaif_sdk.composer import Composer

    built: Composes = Composer(rewards, weights=dict(zip(rewards, weights or [1.0] * len(rewards), strict=True)))
    return built


def _refuse_models(value: Any) -> None:
    # The layer `score` of a sequence classifier would pass for the method of a reward, until the first rollout.
    if isinstance(value, str) or (isinstance(value, torch.nn.Module) and not ismethod(getattr(value, "score", None))):
        raise TypeError(
            f"a model is no reward by itself: {value if isinstance(value, str) else type(value).__name__}; write a "
            "function of the completions around rlaif_sdk.load_classifier(model).logits"
        )


def reward_batch(
    rows: Sequence[Mapping[str, Any]],
    *,
    prompts: Sequence[TextOrConversation],
    completions: Sequence[TextOrConversation],
    completion_ids: Sequence[Sequence[int]],
    generations: int,
    progress: Progress,
    training: bool,
    trainer: TrainerArguments | None = None,
) -> RewardBatch:
    """The batch that the composer scores: every column of the dataset but the prompt goes along.

    Args:
        rows: Rows of the dataset, of which the first B count; a prompt's generations follow each other.
        prompts: B prompts.
        completions: B completions.
        completion_ids: Their token ids.
        generations: Completions a prompt. With one there are no groups to speak of.
        progress: How far training is.
        training: False while evaluating.
        trainer: What reward functions log with.
    """
    columns = {name: [row.get(name) for row in rows[: len(prompts)]] for name in rows[0] if name != "prompt"}
    return RewardBatch(
        prompts=prompts,
        completions=completions,
        completion_ids=completion_ids,
        columns=columns,
        group=[row // generations for row in range(len(prompts))] if generations > 1 else None,
        progress=progress,
        training=training,
        trainer=trainer,
    )


def scores_of(composition: ScoredBatch, rows: int, *, clip: tuple[float, float] | None = None) -> Tensor:
    """The totals as float32 scores_B, NaN where a row is unscored.

    Raises:
        RewardError: The composer returned another number of rows, or an infinite total.
    """
    totals_B = np.asarray(composition.totals, dtype=np.float64)
    if totals_B.shape != (rows,):
        raise RewardError(f"the composer returned totals of shape {totals_B.shape} for {rows} completions")
    if np.isinf(totals_B).any():
        raise RewardError("the composer returned an infinite total", hint="bound the reward, or leave the row unscored")
    if clip is not None:
        totals_B = totals_B.clip(*clip)
    return torch.from_numpy(totals_B.astype(np.float32))


def token_rewards_of(composition: ScoredBatch, tokens: Tokens, tokenizer: Any = None) -> Tensor | None:
    """The part of each row's total that falls on each token, float32 token_rewards_BT; None where no reward gives credit.

    Args:
        composition: What the composer said.
        tokens: The rollout's.
        tokenizer: What made the completions' text of them.
    """
    token_rewards = getattr(composition, "token_rewards", None)
    rows: list[Any] = token_rewards(tokenizer) if callable(token_rewards) else []
    if all(row is None for row in rows):
        return None
    token_rewards_BT = torch.zeros(tokens.completion_ids_BT.shape)
    for row, token_rewards_T in enumerate(rows):
        if token_rewards_T is not None:
            token_rewards_BT[row, : len(token_rewards_T)] = torch.from_numpy(token_rewards_T)
    return token_rewards_BT


def reward_metrics(composition: ScoredBatch) -> dict[str, float]:
    """What the composition reports of itself, and the totals' mean and deviation under TRL's names for them."""
    totals_B = np.asarray(composition.totals, dtype=np.float64)
    known = totals_B[~np.isnan(totals_B)]
    mean, deviation = (float(known.mean()), float(known.std())) if known.size else (float("nan"), float("nan"))
    return {"reward": mean, "reward_std": deviation, **composition.metrics()}


def check_datasets(*datasets: Any) -> None:
    """Refuse datasets that a rollout would stumble over; each is a dataset, a mapping of name to one, or None.

    Raises:
        DataError: There is no column ``prompt``.
        BatchError: A column has a name that reward functions receive something else under.
    """
    for dataset in datasets:
        for part in dataset.values() if isinstance(dataset, Mapping) else [dataset]:
            columns = getattr(part, "column_names", None)
            if columns is None:
                continue
            if "prompt" not in columns:
                raise DataError("the dataset has no column 'prompt'", hint=f"columns present: {', '.join(columns)}")
            for name in sorted(RESERVED_COLUMNS.intersection(columns)):
                raise BatchError(f"the column {name!r} has a reserved name", hint="rename the column in the dataset")


ScoreNormalization = Literal["none", "batch", "running"]
_NORMALIZERS: Mapping[str, type[Normalizer]] = {"none": Passthrough, "batch": GroupZScore, "running": ZScore}


class ScoreNormalizer:
    """Shifts and scales composed scores; the composer's own normalizers have done their work before.

    Args:
        kind: ``none``; ``batch``, by the rollout's own mean and deviation; or ``running``, by those of all training
            scores so far, these included.
        gather: Concatenates a (B,) tensor of each rank along its rows, in the order of ranks.
        rank: This process's place among them.
    """

    def __init__(
        self, kind: ScoreNormalization, *, gather: Callable[[Tensor], Tensor] = lambda x: x, rank: int = 0
    ) -> None:
        self.kind = kind
        self._normalizer = _NORMALIZERS[kind]()
        self._gather = gather
        self._rank = rank

    def normalize(
        self, scores_B: Tensor, token_rewards_BT: Tensor | None, *, training: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The scores on the common scale, and what of them falls on single tokens, scaled as they are.

        Args:
            scores_B: NaN where there is none, which stays NaN and counts in no statistic.
            token_rewards_BT: See `rlaif_sdk.training.ppo.advantages.token_rewards`; or None.
            training: Whether running statistics learn from the scores.
        """
        if self.kind == "none":
            return scores_B, token_rewards_BT
        all_N = self._gather(scores_B).cpu().double().numpy()
        own = slice(self._rank * len(scores_B), (self._rank + 1) * len(scores_B))
        if training:
            self._normalizer.update(all_N, None)
        normalized_B = torch.from_numpy(self._normalizer.normalize(all_N, None)[own]).to(scores_B)
        if token_rewards_BT is not None:
            scale_B = torch.from_numpy(self._normalizer.scale(all_N, None)[own]).to(scores_B)
            token_rewards_BT = token_rewards_BT * scale_B[:, None]
        return normalized_B, token_rewards_BT

    def state_dict(self) -> dict[str, Any]:
        """What must survive a restart; JSON values."""
        return {"kind": self.kind, **self._normalizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a saved state.

        Raises:
            StateError: It was saved with another kind of normalization.
        """
        if state.get("kind") != self.kind:
            raise StateError(
                f"the checkpoint was made with score_normalization {state.get('kind')!r}, and this run has {self.kind!r}",
                hint="resume with the setting that it was made with",
            )
        self._normalizer.load_state_dict({name: value for name, value in state.items() if name != "kind"})
