"""Rewards of other libraries and servers, offered by name through the hook that any plugin uses."""

from __future__ import annotations

from rlaif_sdk.integrations.reward_params import RemoteParams, VerifiersParams
from rlaif_sdk.plugins import RewardSpec, hookimpl
from rlaif_sdk.rewards import Params, Reward

rlaif_api_version = 1


def _verifiers(params: VerifiersParams) -> Reward:
    from rlaif_sdk.integrations.verifiers import VerifiersFunction

    return VerifiersFunction(params)


def _remote(params: RemoteParams) -> Reward:
    from rlaif_sdk.integrations.remote import Remote

    return Remote(params)


def _environment(_: Params) -> Reward:
    from rlaif_sdk.integrations.environments import EnvironmentReward

    return EnvironmentReward()


@hookimpl
def rlaif_rewards() -> list[RewardSpec]:
    """Functions in verifiers' convention, reward servers, and environments. TRL's functions need no name: ``reward: trl.rewards:NAME``."""
    return [
        RewardSpec(
            name="verifiers",
            factory=_verifiers,
            params=VerifiersParams,
            description="A reward function written for the verifiers library.",
            ends=("worse", "better"),
            example={"params": {"function": "my_environment:correct_answer"}},
        ),
        RewardSpec(
            name="remote",
            factory=_remote,
            params=RemoteParams,
            description="What a reward server says: one of `rlaif serve`, or one for OpenRLHF.",
            ends=("worse", "better"),
            example={"params": {"url": "http://127.0.0.1:8000"}},
        ),
        RewardSpec(
            name="environment",
            factory=_environment,
            description="What the environment of a rollout says of it: its own reward, under TRL.",
            ends=("worse", "better"),
        ),
    ]
