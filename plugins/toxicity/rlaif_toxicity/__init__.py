"""The reward ``toxicity``: how free of toxicity an answer is, by any classifier or the one that comes with it."""

from __future__ import annotations

from rlaif_sdk import Reward, RewardSpec, hookimpl
from rlaif_toxicity.params import ToxicityParams

__all__ = ["ToxicityParams", "rlaif_rewards"]

rlaif_api_version = 1


def _build(params: ToxicityParams) -> Reward:
    from rlaif_toxicity.reward import ToxicityReward

    return ToxicityReward(params)


@hookimpl
def rlaif_rewards() -> list[RewardSpec]:
    """Offer the reward ``toxicity``."""
    return [
        RewardSpec(
            name="toxicity",
            factory=_build,
            params=ToxicityParams,
            description="How free of toxicity the answer is, by a classifier; higher is better.",
            ends=("toxic", "harmless"),
            example={
                "weight": 1.0,
                "params": {
                    "model": "facebook/roberta-hate-speech-dynabench-r4-target",
                    "label": "nothate",
                    "output": "logit",
                },
            },
        )
    ]
