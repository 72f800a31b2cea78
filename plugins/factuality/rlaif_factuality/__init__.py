"""The reward ``factuality``: is each sentence of an answer supported by its source?"""

from __future__ import annotations

from rlaif_factuality.params import FactualityParams
from rlaif_sdk import Reward, RewardSpec, hookimpl

__all__ = ["FactualityParams", "rlaif_rewards"]

rlaif_api_version = 1


def _build(params: FactualityParams) -> Reward:
    from rlaif_factuality.reward import FactualityReward

    return FactualityReward(params)


@hookimpl
def rlaif_rewards() -> list[RewardSpec]:
    """Offer the reward ``factuality``."""
    return [
        RewardSpec(
            name="factuality",
            factory=_build,
            params=FactualityParams,
            description="Share of an answer's sentences that a source column supports; numbers and names exactly.",
            range=(0.0, 1.0),
            ends=("unsupported", "supported"),
            example={"weight": 1.0, "params": {"column": "reference"}},
        )
    ]
