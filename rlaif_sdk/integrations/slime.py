"""A composed reward in slime: a file of two lines for ``--custom-rm-path my_rewards.reward``.

The file, say ``my_rewards.py``::

    from rlaif_sdk.integrations.slime import reward_model

    reward = reward_model("rewards.yaml")

With ``--group-rm`` it is `group_reward_model`, whose rewards may compare the completions to one prompt.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np

from rlaif_sdk.conversations.special_tokens import without_end
from rlaif_sdk.diagnostics.saturation import no_variance
from rlaif_sdk.exceptions import ConfigError, DataError
from rlaif_sdk.integrations.host import Rewards, host
from rlaif_sdk.integrations.samples import Sample, Scored, prompt_of
from rlaif_sdk.integrations.turns import ResponseReader
from rlaif_sdk.types import Message, TextOrConversation

SCORES = "rlaif"
"""Where a sample's ``metadata`` gets each reward's own score, None where it has none."""


def reward_model(
    rewards: Rewards, *, state: str | None = None, unscored: float | None = None
) -> Callable[..., Awaitable[Any]]:
    """An ``async rm(args, sample)`` for slime, which also takes the list of samples that one rollout was cut into.

    A sample's columns are ``label`` and every key of its ``metadata``; its completion is the response without the tokens
    that end it, in turns where ``loss_mask`` tells the policy's words from a tool's. slime awaits the samples of a batch
    at the same time, and they are scored together.

    Args:
        rewards: A config or a composer; see `rlaif_sdk.integrations.Host`.
        state: A file with what the composer learned elsewhere.
        unscored: What slime gets for an unscored completion, whose ``remove_sample`` is then set, so that it is not
            trained on; it still counts in its group's mean. None, the default, raises instead.

    Raises:
        ConfigError: The composition's numbers would depend on how slime cuts its calls.
    """
    hosted = host(rewards, "slime's rm", state=state)

    async def rm(args: Any, sample: Any, **kwargs: Any) -> float | list[float]:
        del kwargs
        if isinstance(sample, (list, tuple)):
            scored = await hosted.ascore([sample_of(one, args) for one in sample])
            return _told(sample, scored, [one.number(unscored) for one in scored])
        one = await hosted.ascore_one(sample_of(sample, args))
        (reward,) = _told([sample], [one], [one.number(unscored)])
        return reward

    return rm


def group_reward_model(
    rewards: Rewards, *, state: str | None = None, unscored: float | None = None
) -> Callable[..., Awaitable[list[float]]]:
    """An ``async rm(args, samples)`` for slime's ``--group-rm``, which hands over the completions to one prompt.

    It reads samples as `reward_model` does. An unscored one has ``remove_sample`` set, so that it is not trained on, and
    gets the mean of the others, so that it moves no advantage.

    Args:
        rewards: A config or a composer; see `rlaif_sdk.integrations.Host`.
        state: A file with what the composer learned elsewhere.
        unscored: What slime gets for all of a group of which none is scored. None, the default, raises instead.

    Raises:
        ConfigError: The composition learns while it trains, or follows its steps, which slime does not tell.
    """
    hosted = host(rewards, "slime's rm", state=state, grouped=True)

    async def rm(args: Any, samples: Sequence[Any], **kwargs: Any) -> list[float]:
        del kwargs
        if not isinstance(samples, (list, tuple)):
            raise ConfigError("slime handed over one sample, and no group", key="group_rm", hint="add --group-rm")
        scored = await hosted.ascore_group([sample_of(one, args) for one in samples])
        return _told(samples, scored, [one.number_in_group(unscored) for one in scored])

    return rm


def _told(samples: Sequence[Any], scored: Sequence[Scored], rewards: list[float]) -> list[float]:
    """The rewards, once each sample knows its scores and whether it is to be left out."""
    for sample, one in zip(samples, scored, strict=True):
        sample.metadata = {**(sample.metadata or {}), SCORES: one.rewards}
        if one.total is None:
            sample.remove_sample = True
    return rewards


def group_filter(reward: str | None = None) -> Callable[..., bool]:
    """A function for slime's ``--dynamic-sampling-filter-path``, which keeps the groups that teach something.

    A group is left out where its scored samples all have one value, or fewer than two are scored.

    Args:
        reward: The reward by whose own score that is told, as `reward_model` left it; the reward that slime trains on if
            None.
    """

    def keep(args: Any, samples: Sequence[Any], **kwargs: Any) -> bool:
        del kwargs
        values = [_value(sample, args, reward) for sample in samples]
        known = np.array([[np.nan if value is None else value for value in values]], dtype=np.float64)
        return not bool(no_variance(known, np.zeros(len(values), dtype=np.intp)).all())

    return keep


def _value(sample: Any, args: Any, reward: str | None) -> float | None:
    """What a sample got, None where it is unscored.

    Raises:
        ConfigError: It has no such reward.
    """
    if reward is None:
        return None if getattr(sample, "remove_sample", False) else float(sample.get_reward_value(args))
    scores: dict[str, float | None] = (sample.metadata or {}).get(SCORES, {})
    if reward not in scores:
        raise ConfigError(f"there is no reward {reward!r}; there are {', '.join(scores) or 'none'}", key="reward")
    return scores[reward]


def sample_of(sample: Any, args: Any = None) -> Sample:
    """A sample of slime's.

    Where its ``loss_mask`` says that the policy wrote only some of the response, the rest is what tools answered.

    Raises:
        DataError: It does, and ``args.hf_checkpoint`` names no tokenizer to tell the one from the other.
    """
    known = {name: value for name, value in (sample.metadata or {}).items() if name != SCORES}
    mask = list(getattr(sample, "loss_mask", None) or ())
    completion: TextOrConversation = without_end(sample.response)
    # With partial rollouts the mask may leave out what an earlier policy wrote, which is no tool's answer.
    if len(set(mask)) > 1 and not getattr(args, "mask_offpolicy_in_partial_rollout", False):
        completion = _in_turns(sample.tokens[-len(mask) :], mask, args)
    return Sample(prompt_of(sample.prompt), completion, {**known, "label": sample.label})


def _in_turns(tokens: Sequence[int], mask: Sequence[int], args: Any) -> list[Message]:
    folder = getattr(args, "hf_checkpoint", None)
    if not folder or len(tokens) != len(mask):
        raise DataError(
            "the policy wrote only some of the response (loss_mask), and it cannot be told which",
            hint="args.hf_checkpoint names the tokenizer, and sample.tokens ends with the tokens that loss_mask is about",
        )
    return ResponseReader(_tokenizer(folder)).by_mask(tokens, mask)


@functools.cache
def _tokenizer(folder: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
