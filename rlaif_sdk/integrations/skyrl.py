"""A composed reward in SkyRL: an environment of SkyRL-Gym (0.1 to 0.4).

In the entry point that SkyRL's examples have::

    from skyrl_gym.envs import register
    from skyrl_gym.envs.base_text_env import BaseTextEnv
    from rlaif_sdk.integrations.skyrl import environment

    register(id="composed", entry_point=environment("rewards.yaml", BaseTextEnv))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlaif_sdk.conversations.special_tokens import without_end
from rlaif_sdk.integrations.host import Rewards, host
from rlaif_sdk.integrations.samples import Sample, prompt_of


def environment(
    rewards: Rewards,
    base: type,
    *,
    state: str | None = None,
    unscored: float | None = None,
) -> type:
    """A class of environments that end after one turn, with the total as its reward.

    The columns are the keys of ``extras``, with those of its ``reward_spec`` and ``extra_info`` beside them, so that
    ``ground_truth`` is a column. Each reward's own score is in the step's ``metadata`` and in the environment's
    metrics.

    Args:
        rewards: A config or a composer; see `rlaif_sdk.integrations.Host`.
        base: ``BaseTextEnv``.
        state: A file with what the composer learned elsewhere.
        unscored: What SkyRL gets for an unscored completion. None, the default, raises: it has no word for that.

    Raises:
        ConfigError: The composition's numbers would depend on how SkyRL cuts its calls.
    """
    hosted = host(rewards, "SkyRL's environment", state=state)

    class ComposedEnv(base):  # type: ignore[misc]  # the class is given
        def __init__(self, env_config: Any = None, extras: Mapping[str, Any] | None = None) -> None:
            super().__init__()
            del env_config
            self._columns = columns_of(extras or {})
            self._prompt: Any = ""
            self._figures: dict[str, float] = {}

        def init(self, prompt: Any) -> Any:
            self._prompt = prompt_of(prompt)
            return super().init(prompt)

        def step(self, action: str) -> dict[str, Any]:
            self.turns += 1
            (scored,) = hosted.score([Sample(self._prompt, without_end(action), self._columns)])
            self._figures = scored.known_scores()
            reward = scored.number(unscored)
            return {"observations": [], "reward": reward, "done": True, "metadata": dict(self._figures)}

        def get_metrics(self) -> dict[str, float]:
            return self._figures

    return ComposedEnv


def columns_of(extras: Mapping[str, Any]) -> dict[str, Any]:
    """What SkyRL passes of a data set's row, its nested parts laid flat."""
    nested = [extras.get(name) for name in ("reward_spec", "extra_info")]
    flat = {name: value for part in nested if isinstance(part, Mapping) for name, value in part.items()}
    return {**{name: value for name, value in extras.items() if name not in ("reward_spec", "extra_info")}, **flat}
