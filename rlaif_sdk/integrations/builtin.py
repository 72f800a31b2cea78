"""Rewards of other libraries and servers, offered by name through the hook that any plugin uses."""

from __future__ import annotations

from rlaif_sdk.integrations.remote import Remote, RemoteParams
from rlaif_sdk.integrations.verifiers import VerifiersFunction, VerifiersParams
from rlaif_sdk.plugins import RewardSpec, hookimpl

rlaif_api_version = 1


@hookimpl
def rlaif_rewards() -> list[RewardSpec]:
    """Functions in verifiers' convention, and reward servers. TRL's need no name: ``reward: trl.rewards:NAME``."""
    return [
        RewardSpec(
            name="verifiers",
            factory=VerifiersFunction,
            params=VerifiersParams,
            description="A reward function written for the verifiers library.",
            ends=("worse", "better"),
            example={"params": {"function": "my_environment:correct_answer"}},
        ),
        RewardSpec(
            name="remote",
            factory=Remote,
            params=RemoteParams,
            description="What a reward server says: one of `rlaif serve`, or one for OpenRLHF.",
            ends=("worse", "better"),
            example={"params": {"url": "http://127.0.0.1:8000"}},
        ),
    ]
