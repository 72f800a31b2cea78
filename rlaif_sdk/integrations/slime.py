"""A composed reward in slime: a file of two lines for ``--custom-rm-path my_rewards.reward``.

The file, say ``my_rewards.py``::

    from rlaif_sdk.integrations.slime import reward_model

    reward = reward_model("rewards.yaml")
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, overload

from rlaif_sdk.integrations.host import Rewards, host
from rlaif_sdk.integrations.samples import Sample, Scored

FIGURES = "rlaif"
"""Where a sample's ``metadata`` gets each reward's own score, None where it has none."""


def reward_model(
    rewards: Rewards, *, state: str | None = None, unscored: float | None = None
) -> Callable[..., Awaitable[Any]]:
    """An ``async rm(args, sample)`` for slime; with ``--group-rm`` it gets a list of samples and returns one.

    A sample's columns are ``label`` and every key of its ``metadata``. slime awaits the samples of a batch at the same
    time, and they are scored together.

    Args:
        rewards: A config or a composer; see `rlaif_sdk.integrations.Host`.
        state: A file with what the composer learned elsewhere.
        unscored: What slime gets for an unscored completion, whose ``remove_sample`` is then set, so that it is not
            trained on; it still counts in its group's mean. None, the default, raises instead.

    Raises:
        ConfigError: The composition's numbers would depend on how slime cuts its calls.
    """
    hosted = host(rewards, "slime's rm", state=state)

    def answer(sample: Any, scored: Scored) -> float:
        sample.metadata = {**(sample.metadata or {}), FIGURES: scored.rewards}
        reward = scored.number(unscored)
        if scored.total is None:
            sample.remove_sample = True
        return reward

    @overload
    async def rm(args: Any, sample: Sequence[Any], **kwargs: Any) -> list[float]: ...
    @overload
    async def rm(args: Any, sample: Any, **kwargs: Any) -> float: ...
    async def rm(args: Any, sample: Any, **kwargs: Any) -> float | list[float]:
        del args, kwargs
        if isinstance(sample, (list, tuple)):
            scored = await hosted.ascore([_sample(one) for one in sample])
            return [answer(one, said) for one, said in zip(sample, scored, strict=True)]
        return answer(sample, await hosted.ascore_one(_sample(sample)))

    return rm


def _sample(sample: Any) -> Sample:
    known = {name: value for name, value in (sample.metadata or {}).items() if name != FIGURES}
    return Sample(sample.prompt, sample.response, {**known, "label": sample.label})
