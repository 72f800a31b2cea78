"""A composed reward in verl (0.4 to 0.9), as a reward manager or as the function that verl's own managers call.

The manager (``RewardManager``, verl 0.8 and later) reads prompts, tools' turns and groups from what verl hands to it::

    reward.reward_manager.source=importlib
    reward.reward_manager.module.path=pkg://rlaif_sdk.integrations.verl
    reward.reward_manager.name=RewardManager
    +reward.custom_reward_function.reward_kwargs.config=/path/to/rewards.yaml

The function sees one completion at a time and takes its prompt from ``extra_info``::

    reward.custom_reward_function.path=pkg://rlaif_sdk.integrations.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.config=/path/to/rewards.yaml

verl then calls `compute_score` once a completion, with what `VerlReward` documents. Before verl 0.7 the keys have no
``reward.`` in front. `compute_score_batch` is for ``reward_manager=batch``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np

from rlaif_sdk.config.documents import Document, Location, load_document
from rlaif_sdk.conversations.offsets import mask_spans
from rlaif_sdk.conversations.special_tokens import without_end
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.integrations.cohorts import DEADLINE
from rlaif_sdk.integrations.host import Rewards, host, is_address
from rlaif_sdk.integrations.samples import Sample, Scored, prompt_of
from rlaif_sdk.integrations.turns import ResponseReader
from rlaif_sdk.types import TextOrConversation


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
    ) -> dict[str, float | None]:
        """``score``, the total, and for verl's ``reward_extra_info`` each reward's own score and ``unscored``.

        A reward without a score has ``unscored``'s number, or None where none is stated: verl 0.9 leaves that out of its
        logs. GDPO wants a number of every reward; ``RewardManager`` gives it one that changes no advantage.

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
    ) -> dict[str, float | None]:
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
    ) -> list[dict[str, float | None]]:
        """`compute_score` of a whole batch, for verl's ``batch`` reward manager."""
        rows = zip(data_sources, solution_strs, ground_truths, extra_infos, strict=True)
        return [self._answer(scored) for scored in self._host.score([self._sample(*row) for row in rows])]

    def _sample(
        self, data_source: str, solution: str, ground_truth: Any, extra_info: Mapping[str, Any] | None
    ) -> Sample:
        return sample_of(data_source, solution, ground_truth, extra_info, prompt_key=self._prompt_key)

    def _answer(self, scored: Scored) -> dict[str, float | None]:
        return {"score": scored.number(self._unscored), **_known(scored, self._unscored)}


def _known(scored: Scored, missing: float | None) -> dict[str, float | None]:
    """Each reward's own score, and whether the completion is unscored: the same keys for every completion, and no NaN."""
    rewards = {name: missing if value is None else value for name, value in scored.rewards.items()}
    return {**rewards, "unscored": float(scored.total is None)}


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


def _no_config() -> ConfigError:
    return ConfigError(
        "verl's reward_kwargs name no config",
        key="config",
        hint="+reward.custom_reward_function.reward_kwargs.config=/path/to/rewards.yaml",
    )


def _configured(config: str | None, prompt_key: str | None, state: str | None, unscored: float | None) -> VerlReward:
    """The rewards that verl's ``reward_kwargs`` tell of.

    Raises:
        ConfigError: They name no config.
    """
    if config is None:
        raise _no_config()
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
) -> dict[str, float | None]:
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
) -> dict[str, float | None]:
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
) -> list[dict[str, float | None]]:
    """`VerlReward.compute_score_batch` of a config file; see `compute_score`."""
    reward = _configured(config, prompt_key, state, unscored)
    return reward.compute_score_batch(data_sources, solution_strs, ground_truths, extra_infos)


IN_FLIGHT = 1000
"""Calls that one of verl's reward loop workers has under way at most: Ray's limit for an actor with coroutines."""
_ROUTER = "{reward_router_address}"


def reward_manager(base: type, rewards: Rewards | None = None) -> type:
    """A class of reward managers for verl's reward loop, which ``RewardManager`` is with verl's own base.

    verl makes it of ``reward.reward_manager`` with ``source=importlib``. Its settings are the
    ``reward.custom_reward_function.reward_kwargs``:

    - ``config``: A config file, or the address of a reward server. ``{reward_router_address}`` in a text of it becomes where verl serves its reward model, as
      for a judge: ``base_url: "http://{reward_router_address}/v1"``. verl uses no manager beside a reward model unless
      ``reward.custom_reward_function.path`` is set too.
    - ``state``: A file with what the composer learned elsewhere.
    - ``unscored``: What verl gets for an unscored completion, which it cannot leave out. By default that raises: verl's v1
      trainer drops the prompt and samples another, its first one ends. ``mask`` gives the mean of the completion's
      group, with which its advantage is 0; a number is that number.
    - ``deadline``: Seconds that a group is waited for.
    - ``groups``: Whether a server, which has the composition, is to gather groups; see ``rlaif serve --cohort``.

    A sample's prompt is ``raw_prompt``, its columns are ``data_source``, ``ground_truth``, ``num_turns``,
    ``tool_extra_fields`` (with ``turn_scores`` and ``tool_rewards``), and every key of ``extra_info``. Its completion is the
    response without the tokens that end it; where it has several turns, they are told apart by ``response_mask``, or by
    the chat template where verl hands over none.

    The completions of one ``uid`` are gathered before they are scored, where rewards compare them, with ``unscored=mask``, and
    for GDPO, which gets the group's mean for a reward without a score. Elsewhere that is None. Groups are gathered in one
    process, so that needs ``reward.num_workers=1``, or at a server that gathers them.

    Args:
        base: ``RewardManagerBase``.
        rewards: A config or a composer, see `rlaif_sdk.integrations.Host`; None takes the ``config`` of the settings.
    """

    class ComposedRewardManager(base):  # type: ignore[misc]  # the class is given
        def __init__(
            self,
            config: Any,
            tokenizer: Any,
            compute_score: Any = None,
            reward_router_address: str | None = None,
            reward_model_tokenizer: Any = None,
        ) -> None:
            super().__init__(config, tokenizer, compute_score)
            del reward_model_tokenizer
            settings = (config.reward.get("custom_reward_function") or {}).get("reward_kwargs") or {}
            given = _with_router(settings.get("config"), reward_router_address) if rewards is None else rewards
            self._mask = settings.get("unscored") == "mask"
            self._unscored = None if self._mask else settings.get("unscored")
            self._neutral = config.algorithm.get("adv_estimator") == "gdpo"
            self._reader = ResponseReader(tokenizer)
            self._token_reader = None if _streams(config) else tokenizer
            self._host = host(
                given,
                "verl's reward manager",
                state=settings.get("state"),
                grouped=True,
                deadline=settings.get("deadline", DEADLINE),
            )
            self._group_size = None
            compares = settings.get("groups", False) if self._host.is_served else self._host.compares
            if compares or self._mask or self._neutral:
                self._group_size = _group_size(config, served=self._host.is_served)

        async def run_single(self, data: Any) -> dict[str, Any]:
            """The total of the last sequence of a rollout as ``reward_score``, and ``reward_extra_info``.

            Where verl puts scores into its batch by `assemble_rm_scores`, a completion with credit has the reward of each
            token in the place of its total.
            """
            scored = await self._host.ascore_one(self._sample(data))
            total = scored.number_in_group() if self._mask else scored.number(self._unscored)
            known = _known(scored, None)
            if self._neutral:
                known = {name: _neutral(scored, name) if value is None else value for name, value in known.items()}
            placed = scored.token_rewards(self._token_reader) if self._token_reader else None
            return {"reward_score": placed or total, "reward_extra_info": {"score": total, **known}}

        @classmethod
        def assemble_rm_scores(cls, data: Any, scores: Sequence[float | list[float]]) -> Any:
            """``rm_scores``, (B, T): each token's reward, or the total on the last token."""
            totals = [math.fsum(score) if isinstance(score, list) else score for score in scores]
            return _by_token(super().assemble_rm_scores(data, totals), scores)

        def _sample(self, data: Any) -> Sample:
            row = {name: values[-1] for name, values in data.non_tensor_batch.items()}
            fields = {
                name: value for name, value in (row.get("tool_extra_fields") or {}).items() if name != "raw_prompt"
            }
            turns = int(row.get("__num_turns__") or 0)
            columns = {
                **(row.get("extra_info") or {}),
                "data_source": str(row["data_source"]),
                "ground_truth": row["reward_model"]["ground_truth"],
                "num_turns": turns,
                "tool_extra_fields": fields,
            }
            sample = _sample_of(self._reader, data.batch, turns, prompt_of(row["raw_prompt"]), columns)
            if self._group_size is None:
                return sample
            member = row.get("session_id")
            return replace(
                sample,
                group=str(row["uid"]),
                group_size=self._group_size,
                member=None if member is None else int(member),
            )

    return ComposedRewardManager


def _sample_of(
    reader: ResponseReader, batch: Any, turns: int, prompt: TextOrConversation, columns: Mapping[str, Any]
) -> Sample:
    """The last response of a batch, with its tokens where it is known which are the policy's."""
    responses_T = _last(batch["responses"])
    length = int(np.count_nonzero(_last(batch["attention_mask"])[-len(responses_T) :]))
    tokens = responses_T[:length].tolist()
    mask = _last(batch["response_mask"])[:length].tolist() if "response_mask" in batch.keys() else []  # noqa: SIM118 - a TensorDict
    if len(set(mask)) > 1:
        completion = reader.by_mask(tokens, mask)
        return Sample(prompt, completion, columns, completion_ids=tokens, turn_spans=mask_spans(mask))
    if turns > _ONE_TURN and not mask:
        return Sample(prompt, reader.by_template(tokens), columns)
    return Sample(prompt, reader.text(tokens), columns, completion_ids=tokens, turn_spans=[(0, length)])


def _last(values_BT: Any) -> Any:
    """The last row as an array, which is cut and counted in a fraction of the time that a tensor of this size takes."""
    return values_BT.cpu().numpy()[-1]


def _by_token(rm_scores: Any, scores: Sequence[float | list[float]]) -> Any:
    """``rm_scores`` with each token's reward in the rows that have one."""
    for row, score in enumerate(scores):
        if isinstance(score, list):
            rm_scores[row] = 0.0
            rm_scores[row, : len(score)] = rm_scores.new_tensor(score)
    return rm_scores


_ONE_TURN = 2
"""verl's number of turns where the policy answers once: the user's and its own."""


def _neutral(scored: Scored, reward: str) -> float:
    """A number for a reward without a score that is its group's mean; where none has one, all get 0 and no advantage."""
    return scored.group_mean(reward) or 0.0


def _group_size(config: Any, *, served: bool) -> int:
    """How many completions have one ``uid``.

    Raises:
        ConfigError: They do not all come to one process, or not at the same time, or nothing tells how many they are.
    """
    reward, rollout = config.reward, config.actor_rollout_ref.rollout
    size = int(rollout.n)
    if size < 2:
        raise ConfigError(
            "each prompt gets one completion, which has no group", key="actor_rollout_ref.rollout.n", hint="sample more"
        )
    if reward.num_workers != 1 and not served:
        raise ConfigError(
            f"the completions to one prompt are scored together, and verl deals them to {reward.num_workers} processes",
            key="reward.num_workers",
            hint="set reward.num_workers=1, or give the address of a server that gathers them and groups=True",
        )
    if config.algorithm.get("adv_estimator") == "remax":
        raise ConfigError(
            "ReMax's baseline has the same uid as the samples",
            key="algorithm.adv_estimator",
            hint="use another estimator",
        )
    validates = config.trainer.get("test_freq", -1) > 0 or config.trainer.get("val_before_train", True)
    if validates and rollout.val_kwargs.n != size:
        raise ConfigError(
            f"a group has {size} completions in training and {rollout.val_kwargs.n} in validation, and verl does not tell "
            "the one from the other",
            key="actor_rollout_ref.rollout.val_kwargs.n",
            hint=f"set it to {size}, or trainer.test_freq=-1 and trainer.val_before_train=False",
        )
    in_flight = IN_FLIGHT * reward.num_workers
    if _streams(config) and config.data.train_batch_size * size > in_flight:
        raise ConfigError(
            f"a step has {config.data.train_batch_size * size} completions, and verl's reward workers have {in_flight} under way "
            "at most, which may all wait for others of their groups",
            key="data.train_batch_size",
            hint="use fewer prompts a step, or more workers, the address of a server that gathers groups, and groups=True",
        )
    return size


def _streams(config: Any) -> bool:
    """Whether completions are scored as they come, and not as a batch once the policy has made way for a reward model."""
    model = config.reward.reward_model
    return not model.enable or bool(model.get("enable_resource_pool"))


def _with_router(config: str | None, address: str | None) -> Document | str:
    """The config's document, in which the router's address stands where it is named; a reward server's address as it is.

    Raises:
        ConfigError: It is named, and verl serves no reward model; or there is no config.
    """
    if config is None:
        raise _no_config()
    if is_address(config):
        return config
    document = load_document(config)

    def filled(value: Any, location: Location) -> Any:
        if isinstance(value, dict):
            return {key: filled(each, (*location, key)) for key, each in value.items()}
        if isinstance(value, list):
            return [filled(each, (*location, place)) for place, each in enumerate(value)]
        if not isinstance(value, str) or _ROUTER not in value:
            return value
        if address is None:
            raise document.error(
                f"{_ROUTER} is named, and verl serves no reward model", location, "set reward.reward_model.enable=True"
            )
        return value.replace(_ROUTER, address)

    return replace(document, data=filled(document.data, ()))


def __getattr__(name: str) -> Any:
    """``RewardManager``, which verl loads by name, and which needs verl."""
    if name != "RewardManager":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    verls = import_module("verl.experimental.reward_loop.reward_manager.base")  # which asks for it, so it is there
    manager = globals()[name] = reward_manager(verls.RewardManagerBase)
    return manager
