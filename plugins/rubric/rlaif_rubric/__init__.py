"""The reward ``rubric``: a judge, or code, checks an answer criterion by criterion."""

from __future__ import annotations

from rlaif_rubric.criteria import CriterionParams
from rlaif_rubric.params import RubricParams
from rlaif_sdk import Reward, RewardSpec, hookimpl

__all__ = ["CriterionParams", "RubricParams", "rlaif_rewards"]

rlaif_api_version = 1


def _build(params: RubricParams) -> Reward:
    from rlaif_rubric.reward import RubricReward

    return RubricReward(params)


@hookimpl
def rlaif_rewards() -> list[RewardSpec]:
    """Offer the reward ``rubric``."""
    return [
        RewardSpec(
            name="rubric",
            factory=_build,
            params=RubricParams,
            description="The weighted share of a rubric's criteria that an answer meets, by a judge's verdicts or by code.",
            ends=("no criterion met", "every criterion met"),
            example={
                "weight": 1.0,
                "params": {
                    "model": "Qwen/Qwen2.5-7B-Instruct",
                    "criteria": [
                        {"name": "cites", "text": "Cites the paragraph of the law that it relies on.", "weight": 2},
                        {"name": "invents", "text": "Cites a paragraph that does not exist.", "points": -3},
                    ],
                },
            },
        )
    ]
