"""The reward ``conciseness``: an answer of the wanted length that does not repeat itself."""

from __future__ import annotations

from rlaif_conciseness.params import ConcisenessParams
from rlaif_sdk import Reward, RewardSpec, hookimpl

__all__ = ["ConcisenessParams", "rlaif_rewards"]

rlaif_api_version = 1


def _build(params: ConcisenessParams) -> Reward:
    from rlaif_conciseness.reward import ConcisenessReward

    return ConcisenessReward(params)


@hookimpl
def rlaif_rewards() -> list[RewardSpec]:
    """Offer the reward ``conciseness``."""
    return [
        RewardSpec(
            name="conciseness",
            factory=_build,
            params=ConcisenessParams,
            description="Full marks within a target length, fewer the farther from it and the more repetitive.",
            range=(0.0, 1.0),
            ends=("padded", "concise"),
            example={"weight": 0.5, "params": {"target": 60, "tolerance": 0.25}},
        )
    ]
