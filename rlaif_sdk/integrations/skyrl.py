"""A composed reward in SkyRL: an environment of SkyRL-Gym (0.1 to 0.4).

In the entry point that SkyRL's examples have::

    from skyrl_gym.envs import register
    from skyrl_gym.envs.base_text_env import BaseTextEnv
    from rlaif_sdk.integrations.skyrl import environment

    register(id="composed", entry_point=environment("rewards.yaml", BaseTextEnv))

An environment of one's own that takes several turns is given in place of ``BaseTextEnv``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from rlaif_sdk.conversations.special_tokens import without_end
from rlaif_sdk.integrations.environments import COLUMN as OWN_REWARD
from rlaif_sdk.integrations.host import Rewards, host
from rlaif_sdk.integrations.samples import Sample, answer_of, prompt_of


def environment(
    rewards: Rewards,
    base: type,
    *,
    state: str | None = None,
    unscored: float | None = None,
    each_turn: bool = False,
) -> type:
    """A class of environments with the total as the reward of an episode, at its last turn or over its turns.

    With ``BaseTextEnv`` an episode ends after one turn. An environment derived from it steps as it does by itself, calls
    tools, and says when the episode is done; turns before that get 0. The completion is then all that the policy said with
    what the environment answered, and what the environment's own steps gave adds up to the column ``environment_reward``, for
    a reward that wants it.

    The other columns are the keys of ``extras``, with those of its ``reward_spec`` and ``extra_info`` beside them, so that
    ``ground_truth`` is a column. Each reward's own score is in the last step's ``metadata`` and in the environment's
    metrics. An episode that SkyRL ends before the environment does, because its context is full, is never scored; its
    reward in SkyRL is 0.

    SkyRL takes a turn's reward when the turn is taken, and puts it on the turn's last token. With ``each_turn`` the episode so
    far is scored at each turn, and the turn gets what it adds to the total: the rewards of the turns sum to the total. Of
    rewards that give credit by turn it is that credit, as long as no turn changes what an earlier one earned.

    Args:
        rewards: A config or a composer; see `rlaif_sdk.integrations.Host`.
        base: ``BaseTextEnv``, or an environment derived from it.
        state: A file with what the composer learned elsewhere.
        unscored: What SkyRL gets for an unscored completion. None, the default, raises: it has no word for that.
        each_turn: Whether turns before the last are rewarded too, at the cost of scoring at each. One after which the episode
            is unscored adds nothing.

    Raises:
        ConfigError: The composition's numbers would depend on how SkyRL cuts its calls.
    """
    hosted = host(rewards, "SkyRL's environment", state=state)
    takes_extras = "extras" in inspect.signature(base).parameters

    class ComposedEnv(base):  # type: ignore[misc]  # the class is given
        def __init__(self, env_config: Any = None, extras: Mapping[str, Any] | None = None) -> None:
            super().__init__(*((env_config, extras or {}) if takes_extras else ()))
            self._columns = columns_of(extras or {})
            self._asked: Any = ""
            self._said: list[Mapping[str, Any]] = []
            self._known_scores: dict[str, float] = {}
            self._given = 0.0

        def init(self, prompt: Any) -> Any:
            started = super().init(prompt)
            self._asked = prompt_of(started[0])
            return started

        def step(self, action: str) -> dict[str, Any]:
            answer = self._step(action)
            action = answer.get("postprocessed_action") or action
            self._said.append({"role": "assistant", "content": without_end(action)})
            if answer["done"] or each_turn:
                (scored,) = hosted.score([Sample(self._asked, answer_of(self._said), dict(self._columns))])
                self._known_scores = scored.known_scores()
                is_open = scored.total is None and not answer["done"]
                total = self._given if is_open else scored.number(unscored)
                metadata = {**(answer.get("metadata") or {}), **self._known_scores}
                answer = {**answer, "reward": total - self._given, "metadata": metadata}
                self._given = total
            else:
                answer = {**answer, "reward": 0.0}
            self._said += answer["observations"]
            return answer

        def _step(self, action: str) -> dict[str, Any]:
            """What the environment says by itself."""
            answer: dict[str, Any] | None = super().step(action)
            if answer is None:  # SkyRL-Gym's base says nothing
                self.turns += 1
                return {"observations": [], "done": True}
            self._columns[OWN_REWARD] = self._columns.get(OWN_REWARD, 0.0) + float(answer["reward"])
            return answer

        def get_metrics(self) -> dict[str, Any]:
            return {**super().get_metrics(), **self._known_scores}

    return ComposedEnv


def columns_of(extras: Mapping[str, Any]) -> dict[str, Any]:
    """What SkyRL passes of a data set's row, its nested parts laid flat."""
    nested = [extras.get(name) for name in ("reward_spec", "extra_info")]
    flat = {name: value for part in nested if isinstance(part, Mapping) for name, value in part.items()}
    return {**{name: value for name, value in extras.items() if name not in ("reward_spec", "extra_info")}, **flat}
