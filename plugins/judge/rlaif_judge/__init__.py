"""The reward ``judge``: a language model rates each answer."""

from __future__ import annotations

from rlaif_judge.params import JudgeParams
from rlaif_sdk import Reward, RewardSpec, hookimpl

__all__ = ["JudgeParams", "rlaif_rewards"]

rlaif_api_version = 1


def _build(params: JudgeParams) -> Reward:
    from rlaif_sdk import load_judge

    return load_judge(**params.judge_settings(), **params.backend_settings())


@hookimpl
def rlaif_rewards() -> list[RewardSpec]:
    """Offer the reward ``judge``."""
    return [
        RewardSpec(
            name="judge",
            factory=_build,
            params=JudgeParams,
            description="A language model, local or behind a server, rates each answer; from -1 to 1.",
            range=(-1.0, 1.0),
            ends=("bad", "good"),
            example={
                "weight": 1.0,
                "params": {"model": "Qwen/Qwen2.5-7B-Instruct", "criteria": "helpfulness", "mode": "likelihood"},
            },
        )
    ]
