"""A composed reward in verl (0.4 to 0.9).

For the reward loop and the naive reward manager, one line of a run's arguments and no file::

    reward.custom_reward_function.path=pkg://rlaif_sdk.integrations.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.config=/path/to/rewards.yaml

verl then calls `compute_score` once a completion, with what `VerlReward` documents. Before verl 0.7 the keys have no
``reward.`` in front. `compute_score_batch` is for ``reward_manager=batch``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from rlaif_sdk.conversations.special_tokens import without_end
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.integrations.host import Rewards, host
from rlaif_sdk.integrations.samples import Sample, Scored, prompt_of


class VerlReward:
    """Answers verl's calls with a composed reward.

    A sample's columns are ``data_source``, ``ground_truth`` and every key of ``extra_info``. Its prompt is
    ``extra_info[prompt_key]``: verl's managers pass no prompt, so put it there when the data set is made.

    Args:
        rewards: A config or a composer; see `rlaif_sdk.integrations.Host`.
        prompt_key: Where ``extra_info`` holds the prompt; None scores completions without one.
        state: A file with what the composer learned elsewhere.
        unscored: What verl gets for an unscored completion. None, the default, raises: verl has no word for it, and a
            number is a judgement.

    Raises:
        ConfigError: The composition's numbers would depend on how verl cuts its calls.
    """

    def __init__(
        self,
        rewards: Rewards,
        *,
        prompt_key: str | None = "prompt",
        state: str | None = None,
        unscored: float | None = None,
    ) -> None:
        self._host = host(rewards, "verl's compute_score", state=state)
        self._prompt_key = prompt_key
        self._unscored = unscored

    async def compute_score(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> dict[str, float]:
        """``score``, the total, and for verl's ``reward_extra_info`` each reward's own score and ``unscored``.

        Completions that verl asks for at the same time are scored together.

        Raises:
            ConfigError: ``extra_info`` has no prompt.
            RewardError: The completion is unscored and ``unscored`` states no number, or a reward failed whose policy
                is ``raise``.
        """
        return self._answer(
            await self._host.ascore_one(self._sample(data_source, solution_str, ground_truth, extra_info))
        )

    def compute_score_sync(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> dict[str, float]:
        """`compute_score` for a place that takes no coroutine."""
        (scored,) = self._host.score([self._sample(data_source, solution_str, ground_truth, extra_info)])
        return self._answer(scored)

    def compute_score_batch(
        self,
        data_sources: Sequence[str],
        solution_strs: Sequence[str],
        ground_truths: Sequence[Any],
        extra_infos: Sequence[Mapping[str, Any] | None],
        **_: Any,
    ) -> list[dict[str, float]]:
        """`compute_score` of a whole batch, for verl's ``batch`` reward manager."""
        rows = zip(data_sources, solution_strs, ground_truths, extra_infos, strict=True)
        return [self._answer(scored) for scored in self._host.score([self._sample(*row) for row in rows])]

    def _sample(
        self, data_source: str, solution: str, ground_truth: Any, extra_info: Mapping[str, Any] | None
    ) -> Sample:
        return sample_of(data_source, solution, ground_truth, extra_info, prompt_key=self._prompt_key)

    def _answer(self, scored: Scored) -> dict[str, float]:
        return {"score": scored.number(self._unscored), **scored.scores()}


def sample_of(
    data_source: str,
    solution: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None,
    *,
    prompt_key: str | None,
) -> Sample:
    """What verl hands over, as a sample; see `VerlReward`.

    Raises:
        ConfigError: ``extra_info`` has no prompt.
    """
    extra = dict(extra_info or {})
    prompt = ""
    if prompt_key is not None:
        try:
            prompt = extra.pop(prompt_key)
        except KeyError:
            raise ConfigError(
                f"extra_info has no {prompt_key!r}; it has {', '.join(sorted(extra)) or 'nothing'}",
                key="prompt_key",
                hint="put the prompt there when the data set is made, or set prompt_key",
            ) from None
    return Sample(
        prompt_of(prompt), without_end(solution), {**extra, "data_source": data_source, "ground_truth": ground_truth}
    )


@functools.cache
def _of_config(config: str, prompt_key: str | None, state: str | None, unscored: float | None) -> VerlReward:
    return VerlReward(config, prompt_key=prompt_key, state=state, unscored=unscored)


def _configured(config: str | None, prompt_key: str | None, state: str | None, unscored: float | None) -> VerlReward:
    """The rewards that verl's ``reward_kwargs`` tell of.

    Raises:
        ConfigError: They name no config.
    """
    if config is None:
        raise ConfigError(
            "verl's reward_kwargs name no config",
            key="config",
            hint="+reward.custom_reward_function.reward_kwargs.config=/path/to/rewards.yaml",
        )
    return _of_config(config, prompt_key, state, unscored)


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    config: str | None = None,
    prompt_key: str | None = "prompt",
    state: str | None = None,
    unscored: float | None = None,
    **_: Any,
) -> dict[str, float]:
    """`VerlReward.compute_score` of a config file: what verl asks, and as ``reward_kwargs`` the file and its settings.

    Args:
        data_source: The data set that the row is from, a column.
        solution_str: The completion.
        ground_truth: A column likewise.
        extra_info: The prompt and other columns.
        config: The composition's file; verl passes it with every call.
        prompt_key: As `VerlReward` has it, and so ``state`` and ``unscored``.
        state: See there.
        unscored: See there.
        **_: What else verl passes, which is not read.

    Raises:
        ConfigError: There is no ``config``; and what `VerlReward` says.
    """
    reward = _configured(config, prompt_key, state, unscored)
    return await reward.compute_score(data_source, solution_str, ground_truth, extra_info)


def compute_score_sync(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    config: str | None = None,
    prompt_key: str | None = "prompt",
    state: str | None = None,
    unscored: float | None = None,
    **_: Any,
) -> dict[str, float]:
    """`VerlReward.compute_score_sync` of a config file; see `compute_score`."""
    reward = _configured(config, prompt_key, state, unscored)
    return reward.compute_score_sync(data_source, solution_str, ground_truth, extra_info)


def compute_score_batch(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Mapping[str, Any] | None],
    *,
    config: str | None = None,
    prompt_key: str | None = "prompt",
    state: str | None = None,
    unscored: float | None = None,
    **_: Any,
) -> list[dict[str, float]]:
    """`VerlReward.compute_score_batch` of a config file; see `compute_score`."""
    reward = _configured(config, prompt_key, state, unscored)
    return reward.compute_score_batch(data_sources, solution_strs, ground_truths, extra_infos)
